"""How long a piece is only the model's processor says, by its shape. The event loop does not wait for it, what it
refuses costs one input, and a piece that is dropped takes the time that it would have taken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from penstock.actors.engine import Engine
from penstock.codecs.frame import Samples
from penstock.engine.config import EngineConfig
from penstock.engine.families import tried
from penstock.engine.family import Loaded
from penstock.engine.loading.worst import largest_turns
from penstock.streams.event import Appended, Error
from penstock.streams.item import Image, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import ImageSegment

from tests.actors.conftest import run_in
from tests.actors.watch import Reader, until
from tests.engine.test_dropped_time import pairs, same, told
from tests.families.built import BUILDERS
from tests.families.suite import opened
from tests.fixtures.recipe import model_path
from tests.reference.media import picture, sound


class Before:
    """A model's processor of frames, before each call of which something is done."""

    def __init__(self, towers: Any, before: Callable[[], None]) -> None:
        self._inner, self._before = towers.processor.video_processor, before

    def __call__(self, *media: Any, **options: Any) -> Any:
        self._before()
        return self._inner(*media, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


SHORT = SamplingParams(max_tokens=2, ignore_eos=True)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A model that takes frames one by one, and pictures not."""
    return opened(BUILDERS["llava_next_video"].build(tmp_path_factory.mktemp("clips"))).loaded


def test_the_event_loop_goes_on_while_a_processor_says_how_long_a_piece_is(
    clips: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until other work of the loop has been done, the processor does not come back."""
    towers: Any = clips.towers
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go.wait(10), "nothing else was done while the processor was at work"

    async def work() -> None:
        async with Engine(clips, EngineConfig(kv_tokens=2048)) as engine, await engine.stream(Request()) as stream:
            reader, words = Reader(stream), await engine.stream(Request())
            monkeypatch.setattr(towers.processor, "video_processor", Before(towers, slow))
            await stream.append(VideoFrame(picture(1, 50, 70), 0))
            await until(begun.is_set)
            reply = await words.ask("What is it?", SHORT)
            assert len([token async for token in reply]) == 2
            go.set()
            await stream.ask("What do you see?", SHORT)
            await reader.see(Appended)
            await words.close()

    run_in(asyncio.new_event_loop, work())


def test_a_frame_that_the_processor_refuses_costs_its_input_and_no_more(
    clips: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers: Any = clips.towers

    def refuse() -> None:
        raise ValueError("expected a height of at least 56, got 40")

    async def work() -> None:
        async with Engine(clips, EngineConfig(kv_tokens=2048)) as engine, await engine.stream(Request()) as stream:
            reader = Reader(stream)
            with monkeypatch.context() as patch:
                patch.setattr(towers.processor, "video_processor", Before(towers, refuse))
                await stream.append(VideoFrame(picture(1, 40, 70), 0))
                [error] = await reader.see(Error)
            assert (error.code, error.seq, error.fatal) == ("media", 1, False)
            assert "expected a height of at least 56, got 40" in error.message
            await stream.append(Image(picture(1, 56, 84), 1_000_000))
            await reader.see(Appended)
            assert stream.credit_bytes == 32 << 20

    run_in(asyncio.new_event_loop, work())


@pytest.mark.parametrize("name", ["glm4v", "llava_next"])
def test_a_picture_has_as_many_rows_as_were_foreseen_and_none_more_than_were_planned_for(
    name: str, tmp_path: Path
) -> None:
    """Tiles and patches hang on its shape; of a wide one may be more than of a large square."""
    loaded = opened(BUILDERS[name].build(tmp_path)).loaded
    [(_, largest), *_] = largest_turns(loaded, EngineConfig())[0]
    for shape in ((56, 112), (112, 56), (60, 200), (300, 90), (100, 100), (900, 1700), (2300, 2300)):
        segment = ImageSegment(1, 0, np.zeros((*shape, 3), np.uint8))
        [(span, _)] = loaded.towers.encode([(1, segment)])
        assert loaded.towers.rows(segment) == len(span.before) + len(span.ids) + len(span.after)
        assert loaded.towers.rows(segment) <= loaded.towers.rows(largest)


@pytest.mark.parametrize("name", ["video_llava", "exaone4_5"])
def test_a_frame_behind_dropped_ones_stands_at_its_time(name: str, tmp_path: Path) -> None:
    loaded = opened(BUILDERS[name].build(tmp_path)).loaded
    same(told(loaded, [*pairs(loaded, [0, 0, 0, 1, 1, 2, 0, 0, 0]), "What?"]))


def test_a_frame_behind_dropped_ones_stands_at_its_time_by_the_models_own_rule() -> None:
    """Several axes, where every piece goes on from where the one before ended."""
    loaded = tried.load(model_path("qwen2_vl"), torch.float32, torch.device("cpu"))
    assert loaded.family.data.axes == 3
    same(told(loaded, [*pairs(loaded, [0, 0, 0, 1, 1, 2, 0, 0, 0]), "What?"]))


def test_times_in_words_between_rows_need_no_positions(tmp_path: Path) -> None:
    loaded = opened(BUILDERS["minimax_m3_vl"].build(tmp_path)).loaded
    assert loaded.towers.times_inside
    ours, _ = told(loaded, pairs(loaded, [0, 0, 0, 1]))
    first, second = ours[0].values()
    assert second.min() - first.max() < 30


def test_sound_behind_silence_stands_at_its_time(tmp_path: Path) -> None:
    loaded = opened(BUILDERS["qwen2_audio"].build(tmp_path)).loaded
    rate, block = loaded.family.spec.audio_rate, loaded.family.spec.block_samples
    loud, silent = sound(1, block / rate)[None], np.zeros((1, block), np.float32)
    heard = [True, False, False, True, False, True, False]
    pieces = [Samples(loud if one else silent, rate, round(at * block / rate * 1e6)) for at, one in enumerate(heard)]
    same(told(loaded, [*pieces, "What?"]))
