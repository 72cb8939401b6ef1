"""The cache of spans by content: what was encoded once is not encoded again, and the cache keeps to its bytes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.runner.encoder import Encoder
from penstock.engine.runner.spans import SpanStore
from penstock.engine.span import Span
from penstock.streams.event import Appended
from penstock.streams.item import Image
from penstock.streams.requests.request import SamplingParams
from penstock.streams.segment import AudioSegment, ImageSegment, VideoSegment
from penstock.streams.size import fit

from tests.actors.conftest import House
from tests.actors.watch import Reader, ids, shots
from tests.fixtures.recipe import model_path
from tests.reference.media import frames, picture, sound

SHORT = SamplingParams(max_tokens=6)


class Counting:
    """The towers of a model; counts what they encode."""

    def __init__(self, towers: Any) -> None:
        self._towers = towers
        self.encoded: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._towers, name)

    def encode(self, batch: list[Any]) -> Any:
        self.encoded += batch
        return self._towers.encode(batch)


def rows_of(store: SpanStore, span: Span) -> torch.Tensor:
    assert span.stored is not None
    return store.get(span.stored).rows


def image(seed: int, seq: int = 1, start_us: int | None = None) -> ImageSegment:
    return ImageSegment(seq, 0, picture(seed, 56, 56), start_us, start_us)


def test_same_picture_is_encoded_once_across_streams(house: House) -> None:
    async def work() -> None:
        towers = Counting(house.loaded.towers)
        async with house.engine(house.loaded._replace(towers=towers)) as engine:
            answers = []
            for _ in range(2):
                async with await engine.stream() as stream:
                    reader = Reader(stream)
                    await stream.append(Image(picture(1)))
                    for frame in shots(2, 2):
                        await stream.append(frame)
                    answers.append(await ids(await stream.ask("What?", SHORT)))
                    assert [event.seq for event in reader.of(Appended)] == [1, 3]
            assert answers[0] == answers[1]
            assert len(towers.encoded) == 2

    house.run(work())


def test_span_from_the_cache_is_the_segments_own(loaded: Loaded) -> None:
    store = SpanStore()
    encoder = Encoder(loaded.towers, 1 << 20, store)
    (first,) = encoder.encode([(1, image(1, 1, 0))])
    again, twice, other = encoder.encode([(2, image(1, 5, 9)), (3, image(1, 6)), (3, image(2, 7))])
    assert (encoder.encoded, encoder.hits) == (2, 2)
    assert [(span.seq, span.start_us) for span in (first, again, twice, other)] == [
        (1, 0),
        (5, 9),
        (6, None),
        (7, None),
    ]
    assert first.stored == again.stored == twice.stored
    assert not torch.equal(rows_of(store, first), rows_of(store, other))


@pytest.mark.parametrize("name", ["qwen3_vl", "smolvlm"])
def test_frames_from_the_cache_have_the_words_for_their_own_time(name: str) -> None:
    """Models whose frames come with their time; a picture that stands still is encoded once."""
    towers = load(model_path(name), EngineConfig()).towers
    segment, *later = (VideoSegment(1, at, still(name), at * 4_000_000, at * 4_000_000 + 500_000) for at in range(3))
    encoder = Encoder(towers, 1 << 20, SpanStore())
    spans = [*encoder.encode([(1, segment), (1, later[0])]), *encoder.encode([(2, later[1])])]
    assert (encoder.encoded, encoder.hits) == (1, 2)
    assert len({span.before for span in spans}) == 3
    for span, one in zip(spans, (segment, *later), strict=True):
        (alone,) = Encoder(towers, 0, SpanStore()).encode([(3, one)])
        assert (span.before, span.after) == (alone.before, alone.after)


def still(name: str) -> np.ndarray:
    """A piece of video in which nothing happens, as the model takes it."""
    spec = load(model_path(name), EngineConfig()).family.spec
    assert spec.video is not None
    pixels = picture(1, *fit(spec.video, 56, 56))
    return np.stack([pixels] * spec.temporal_patch)


def test_equal_pictures_in_one_batch_are_encoded_once(loaded: Loaded) -> None:
    towers = Counting(loaded.towers)
    encoder = Encoder(cast(Any, towers), 0, SpanStore())  # also where nothing fits the cache
    spans = encoder.encode([(1, image(1, seq)) for seq in range(1, 5)])
    assert len(towers.encoded) == 1 and encoder.cached_bytes == 0
    assert [span.seq for span in spans] == [1, 2, 3, 4]


def test_a_picture_is_not_a_frame_and_size_counts(loaded: Loaded) -> None:
    encoder = Encoder(loaded.towers, 1 << 20, SpanStore())
    plain = np.zeros((2, 56, 112, 3), np.uint8)
    encoder.encode(
        [
            (1, VideoSegment(1, 0, plain, 0, 1)),
            (1, ImageSegment(2, 0, plain[0])),
            (1, ImageSegment(3, 0, plain[0].reshape(112, 56, 3))),
            (1, VideoSegment(4, 0, frames(1, 2, 56, 112), 0, 1)),
        ]
    )
    assert (encoder.encoded, encoder.hits) == (4, 0)


def test_sound_is_not_cached(loaded: Loaded) -> None:
    """Its features hang on what its stream has heard before."""
    encoder = Encoder(loaded.towers, 1 << 20, SpanStore())
    block = AudioSegment(1, 0, sound(1, 2.0025), 0, 200, 0, 0, 2_000_000)
    for stream in (901, 902):
        encoder.encode([(stream, block)])
        encoder.forget(stream)
    assert (encoder.encoded, encoder.hits, encoder.cached_bytes) == (2, 0, 0)


@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), max_size=8), st.integers(0, 4))
def test_cache_keeps_to_its_bytes_and_changes_nothing(loaded: Loaded, batches: list[list[int]], fits: int) -> None:
    (_, one) = loaded.towers.encode([(1, image(1))])[0]
    store, size = SpanStore(), one.rows.nbytes
    encoder = Encoder(loaded.towers, fits * size, store)
    recent: list[int] = []
    for seeds in batches:
        known = set(recent)
        encoded = encoder.encoded
        spans = encoder.encode([(1, image(seed)) for seed in seeds])
        assert encoder.encoded - encoded == len(set(seeds) - known)
        for seed in seeds:
            recent = [*(other for other in recent if other != seed), seed][-fits or len(recent) + 1 :]
        assert encoder.cached_bytes == len(recent) * size <= fits * size
        for seed, span in zip(seeds, spans, strict=True):
            alone = loaded.towers.encode([(1, image(seed))])[0].embeds.rows
            torch.testing.assert_close(rows_of(store, span), alone, rtol=0, atol=1e-5)
        store.release([(span.stored.id, 1) for span in spans if span.stored])
        assert len(store.ids) == len(recent), "what is neither cached nor named by anybody is let go"
