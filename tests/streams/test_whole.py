"""Media of a whole prompt: what was heard at a time stands at that time, counted from the first frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.decoders import Decoders
from penstock.codecs.feeding import Decoded
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.codecs.limits import MediaLimits
from penstock.codecs.reading import Reading
from penstock.errors import InputError, LimitError
from penstock.streams.item import AudioBytes, Image, VideoBytes
from penstock.streams.requests.prompt import Content, Media
from penstock.streams.requests.whole import decoded
from penstock.streams.segment import MediaSpec

from tests.reference.media import png

RATE = 1000  # so that a sample is a millisecond
PICTURE = np.zeros((4, 4, 3), np.uint8)


class Played(Reading):
    """A decoder of files whose frames are known."""

    def __init__(self, frames: Sequence[Frame], limits: MediaLimits) -> None:
        super().__init__(limits.max_decoded_bytes)
        self.frames, self.limits = frames, limits

    def container(self, kind: str, pts_us: int) -> Played:
        return self

    def begin(self, data: Any, final: bool) -> Decoded:
        return Decoded([] if final else list(self.frames), [], False)

    def close(self) -> None:
        pass


def heard(frames: Sequence[Frame], in_video: bool = True, limits: MediaLimits | None = None) -> np.ndarray:
    """The sound of a file with these frames."""
    piece = VideoBytes(b"x", final=True) if in_video else AudioBytes(b"x", final=True)
    content = Content([piece], messages=[], audio_in_video=in_video)
    decoders = cast(Decoders, Played(frames, limits or MediaLimits()))
    sound = decoded(content, decoders, MediaSpec(audio_rate=RATE)).media[-1]
    assert isinstance(sound, Media) and sound.kind == "audio" and sound.rate == RATE
    return sound.data


def tone(start_ms: int, length_ms: int, value: float = 1.0) -> Samples:
    return Samples(np.full((1, length_ms), value, np.float32), RATE, start_ms * 1000)


def pictures(first_ms: int) -> list[Frame]:
    return [Pixels(PICTURE, (first_ms + 500 * number) * 1000) for number in range(4)]


# How long each sound is, and how long after the end of the one before it: a gap, or a little jitter.
SOUNDS = st.lists(st.tuples(st.integers(50, 900), st.just(0) | st.integers(101, 3000)), min_size=1, max_size=6)


@given(st.integers(0, 2000), st.integers(-1500, 2500), SOUNDS)
def test_sound_stands_where_it_was_heard(first_ms: int, begins_ms: int, sounds: list[tuple[int, int]]) -> None:
    start, frames, painted = first_ms + begins_ms, pictures(first_ms), np.zeros(40_000, np.float32)
    for number, (length, gap) in enumerate(sounds, 1):
        frames.append(tone(start, length, float(number)))
        painted[20_000 + start : 20_000 + start + length] = number
        start += length + gap
    end = start - sounds[-1][1]
    if end <= first_ms:
        with pytest.raises(InputError, match="expected sound that lasts into the picture"):
            heard(frames)
        return
    np.testing.assert_array_equal(heard(frames), painted[20_000 + first_ms : 20_000 + end])


@given(st.integers(0, 3000), SOUNDS)
def test_a_sound_of_its_own_begins_at_its_first_sample(begins_ms: int, sounds: list[tuple[int, int]]) -> None:
    start, frames, painted = begins_ms, cast("list[Frame]", []), np.zeros(40_000, np.float32)
    for number, (length, gap) in enumerate(sounds, 1):
        frames.append(tone(start, length, float(number)))
        painted[start : start + length] = number
        start += length + gap
    np.testing.assert_array_equal(heard(frames, in_video=False), painted[begins_ms : start - sounds[-1][1]])


@given(st.lists(st.integers(-90, 90), min_size=1, max_size=8))
def test_jitter_of_stamps_opens_no_gap(jitter: list[int]) -> None:
    frames = [*pictures(0), tone(0, 200)]
    frames += [tone(200 * number + late, 200) for number, late in enumerate(jitter, 1)]
    np.testing.assert_array_equal(heard(frames), np.ones(200 * (len(jitter) + 1), np.float32))


def test_what_was_heard_is_not_heard_again() -> None:
    frames = [*pictures(0), tone(0, 1000, 1.0), tone(500, 1000, 2.0)]
    np.testing.assert_array_equal(heard(frames), np.repeat(np.array([1.0, 2.0], np.float32), [1000, 500]))


def test_a_gap_counts_as_what_fills_it() -> None:
    frames = [tone(0, 100), tone(3_600_000, 100)]
    assert len(heard(frames, in_video=False)) == 3_600_100
    with pytest.raises(LimitError, match="expected at most 1000000 bytes of frames and samples"):
        heard(frames, in_video=False, limits=MediaLimits(max_decoded_bytes=1_000_000))


def test_pictures_count_against_the_budget_of_a_prompt() -> None:
    """However small their files are."""
    many = Content([Image(png(np.zeros((64, 64, 3), np.uint8)))] * 5, messages=[])
    decoders = Decoders(MediaLimits(max_decoded_bytes=4 * 64 * 64 * 3), None)
    with pytest.raises(LimitError, match="expected at most 49152 bytes of frames and samples"):
        decoded(many, decoders, MediaSpec())
