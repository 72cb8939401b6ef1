"""Streamed in any cuts and order of arrival equals one append of all, and both equal the reference.

No reply runs while media comes. Compared are ids, positions (to the bit), the logits of the reply that follows, and
its ids.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.engine.family import Loaded
from penstock.streams.event import Appended
from penstock.streams.segment import SizeRule

from tests.reference.media import frames, picture, sound

from .acts import COSTLY, WORDS
from .rig import FRAME_US, RATE, TOLERANCE, Rig, Session

pytestmark = pytest.mark.timeout(3600)  # many examples

REPLY = 10
FILM = frames(5, 9)
NOISE = sound(5, 5.0)
QUIET_THEN_LOUD = np.concatenate([NOISE[: 2 * RATE] * 1e-3, NOISE[2 * RATE :]])

cuts = st.lists(st.integers(1, 5 * RATE - 1), max_size=5)
rules = st.sampled_from(["max", "transformers"])


def film(count: int, first: int = 0) -> list[Frame]:
    return [Pixels(FILM[index % len(FILM)], index * FRAME_US) for index in range(first, first + count)]


def chunks(samples: np.ndarray, places: list[int]) -> list[Frame]:
    borders = [0, *sorted({place for place in places if place < len(samples)}), len(samples)]
    return [
        Samples(samples[None, start:stop], RATE, start * 1_000_000 // RATE)
        for start, stop in zip(borders, borders[1:], strict=False)
    ]


def grouped(media: list[Frame], sizes: list[int]) -> list[list[Frame]]:
    """The media as several inputs of the drawn sizes; what is left is one more."""
    groups, rest = [], list(media)
    for size in sizes:
        groups.append(rest[:size])
        rest = rest[size:]
    return [group for group in (*groups, rest) if group]


def answered(session: Session) -> Session:
    session.ask("What do you see?", max_tokens=REPLY)
    session.rig.run()
    return session


def assert_same(session: Session, whole: Session) -> None:
    """Everything but the numbers of the inputs."""
    ids, places = session.transcript()
    whole_ids, whole_places = whole.transcript()
    assert ids == whole_ids
    assert torch.equal(places, whole_places)
    assert session.draws.keys() == whole.draws.keys()
    for row, (token, logits) in session.draws.items():
        assert token == whole.draws[row][0]
        assert float((logits - whole.draws[row][1]).abs().max()) < TOLERANCE


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@COSTLY
@given(
    count=st.integers(1, 8),
    sizes=st.lists(st.integers(1, 3), max_size=4),
    places=cuts,
    steps=st.booleans(),
    quiet=st.booleans(),
    rule=rules,
)
def test_cut_anywhere(
    omni: tuple[Any, Any],
    omni_loaded: Loaded,
    count: int,
    sizes: list[int],
    places: list[int],
    steps: bool,
    quiet: bool,
    rule: str,
) -> None:
    """Frames, an odd number of them too, then a picture, then sound that may be quiet at first; then a second turn."""
    wave = QUIET_THEN_LOUD if quiet else NOISE

    def streamed(pieces: list[int], sizes: list[int]) -> Session:
        rig = Rig(omni_loaded)
        session = rig.open(format="turns", positions=rule)
        for turn in range(2):
            for group in grouped(film(count, first=turn * count), sizes):
                session.feed(group)
                rig.step(2 * steps)
            session.image(picture(turn))
            for chunk in chunks(wave, pieces) if turn == 0 else []:
                session.feed([chunk])
                rig.step(2 * steps)
            answered(session)
        return session

    session = streamed(places, sizes)
    whole = streamed([], [])
    assert session.check(*omni) == 2 * REPLY
    assert_same(session, whole)


@COSTLY
@given(
    count=st.integers(1, 8), sizes=st.lists(st.integers(1, 3), max_size=4), order=st.permutations(range(4)), rule=rules
)
def test_pictures_cut_anywhere(
    sight_plain: tuple[Any, Any],
    sight_served: Loaded,
    count: int,
    sizes: list[int],
    order: list[int],
    rule: str,
) -> None:
    """Frames in inputs of any size, a picture, then frames in any order; two turns."""

    def streamed(sizes: list[int], order: list[int]) -> Session:
        session = Rig(sight_served).open(format="turns", positions=rule, lateness_us=10_000_000)
        for turn in range(2):
            first = turn * (count + len(order))
            for group in grouped(film(count, first), sizes):
                session.feed(group)
            session.image(picture(turn))
            later = film(len(order), first + count)
            for place in order:
                session.feed([later[place]])
            answered(session)
        return session

    session, whole = streamed(sizes, order), streamed([], sorted(order))
    assert session.check(*sight_plain) == 2 * REPLY
    assert_same(session, whole)


@COSTLY
@given(
    count=st.integers(1, 6), sizes=st.lists(st.integers(1, 3), max_size=4), order=st.permutations(range(3)), rule=rules
)
def test_stills_and_frames_cut_anywhere(
    still_plain: tuple[Any, Any],
    still_served: Loaded,
    count: int,
    sizes: list[int],
    order: list[int],
    rule: str,
) -> None:
    """Frames, where the model takes such, in inputs of any size, pictures, frames in any order; two turns."""
    films = "video" in still_served.family.modalities

    def streamed(sizes: list[int], order: list[int]) -> Session:
        rig = Rig(still_served)
        session = rig.open(format="turns", positions=rule, video_fps=2.0, lateness_us=10_000_000, system="You watch.")
        for turn in range(2):
            first = turn * (count + len(order))
            for group in grouped(film(count, first), sizes) if films else []:
                session.feed(group)
            session.image(picture(turn))
            session.image(picture(turn + 5, 40, 90))
            later = film(len(order), first + count)
            for place in order if films else []:
                session.feed([later[place]])
            answered(session)
        return session

    session, whole = streamed(sizes, order), streamed([], sorted(order))
    assert session.check(*still_plain) == 2 * REPLY
    assert_same(session, whole)


@COSTLY
@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5), steps=st.lists(st.integers(0, 3), max_size=5))
def test_words_come_at_any_time(
    text_plain: tuple[Any, Any], text_served: Loaded, words: list[str], steps: list[int]
) -> None:
    """Texts of one turn, with steps of the engine between some of them and without; two turns."""

    def streamed(steps: list[int]) -> Session:
        session = Rig(text_served, append_rows=5).open(format="turns", system="You watch a door.")
        for _ in range(2):
            for place, text in enumerate(words):
                session.text(text)
                session.rig.step(steps[place] if place < len(steps) else 0)
            answered(session)
        return session

    session, whole = streamed(steps), streamed([])
    assert session.check(*text_plain) == 2 * REPLY
    assert_same(session, whole)


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@COSTLY
@given(places=cuts, order=st.permutations(range(6)))
def test_in_any_order_of_arrival(
    omni: tuple[Any, Any], omni_loaded: Loaded, places: list[int], order: list[int]
) -> None:
    """Six frames in any order, and sound cut anywhere between them, all inside the lateness."""

    def streamed(media: list[Frame]) -> Session:
        session = Rig(omni_loaded).open(format="turns", lateness_us=10_000_000)
        for frame in media:
            session.feed([frame])
        return answered(session)

    shown, heard = film(6), chunks(NOISE, places)
    mixed: list[Frame] = []
    for place in order:
        mixed += [shown[place], *heard[:1]]
        heard = heard[1:]
    session = streamed([*mixed, *heard])
    whole = streamed([*film(6), *chunks(NOISE, [])])
    assert session.check(*omni) == REPLY
    assert_same(session, whole)


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@COSTLY
@given(places=cuts, count=st.integers(4, 9), sizes=st.lists(st.integers(1, 4), max_size=4), rule=rules)
def test_sound_in_video(
    omni: tuple[Any, Any], omni_loaded: Loaded, places: list[int], count: int, sizes: list[int], rule: str
) -> None:
    """Units are made of what belongs to their time, however it came; the last one is flushed by the question."""
    length = count * RATE // 2

    def streamed(pieces: list[int], sizes: list[int]) -> Session:
        session = Rig(omni_loaded).open(format="turns", audio_in_video=True, lateness_us=10_000_000, positions=rule)
        for group in grouped(film(count), sizes):
            session.feed(group)
        for chunk in chunks(NOISE[:length], pieces):
            session.feed([chunk])
        return answered(session)

    session, whole = streamed(places, sizes), streamed([], [])
    assert session.check(*omni) == REPLY
    assert_same(session, whole)


@pytest.mark.parametrize("count", [2, 12])
def test_a_frame_has_the_size_that_it_had_when_the_video_opened(
    omni: tuple[Any, Any], omni_loaded: Loaded, count: int
) -> None:
    """Frames of a camera do not shrink while more of them come, though a processor would shrink those of a longer
    clip.
    """
    loaded = with_pixels(omni_loaded, 112 * 112 * 4)
    big = frames(6, count, 120, 150)

    def stock_size(pixels: np.ndarray) -> np.ndarray:
        planes = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None]
        taken = torch.nn.functional.interpolate(planes, (84, 112), mode="bicubic", antialias=True)
        return taken[0].permute(1, 2, 0).numpy()

    session = Rig(loaded).open(format="turns")
    for index, pixels in enumerate(big):
        session.feed([Pixels(pixels, index * FRAME_US)], as_taken=stock_size)
    answered(session)
    assert {event.rows for event in session.of(Appended)} == {3 * 4}
    assert session.check(*omni) == REPLY


def test_a_declared_length_shrinks_the_first_frame_already(omni_loaded: Loaded) -> None:
    loaded = with_pixels(omni_loaded, 112 * 112 * 4)
    sizes = []
    for expected in (None, 2, 16):
        session = Rig(loaded).open(format="turns", expected_frames=expected)
        for index, pixels in enumerate(frames(6, 2, 120, 150)):
            session.feed([Pixels(pixels, index * FRAME_US)])
        answered(session)
        sizes.append([event.rows for event in session.of(Appended)])
    assert sizes == [[12], [12], [6]]


def with_pixels(loaded: Loaded, total: int) -> Loaded:
    """The same model, but all frames of one video together may have `total` pixels."""
    family = copy.copy(loaded.family)
    assert isinstance(family.spec.video, SizeRule)
    family.spec = msgspec.structs.replace(family.spec, video_total_pixels=total)
    return loaded._replace(family=family)
