"""Options of the processors of models that nobody named: found at load, and what they change is what the library's own
processor makes of the same option, in prompts and in streams, asked for by request or for all of an engine."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.errors import InputError
from penstock.streams.event import Appended
from penstock.streams.item import Image, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import run_in
from tests.actors.watch import Reader, until
from tests.engine.test_oracle1 import REPLY, assert_equal, generated, turn
from tests.families.built import BUILDERS
from tests.families.suite import Tried, by_library, opened
from tests.reference.media import frames, picture

# Of each family one value for each of its options, all of which change how many rows a picture of this size is.
SHAPE = (150, 180)
ASKED: dict[str, list[dict[str, Any]]] = {
    "aya_vision": [{"crop_to_patches": False}, {"crop_to_patches": True, "max_patches": 2}],
    "exaone4_5": [{"max_pixels": 3136}, {"min_pixels": 50_000, "max_pixels": 80_000}],
    "glm4v": [{"max_pixels": 3136}, {"min_pixels": 50_000, "max_pixels": 80_000}],
    "idefics3": [{"longest_edge": 56}, {"do_image_splitting": False}],
    "mistral3": [{"longest_edge": 56}],
}
# Those that go first; the others run with the slow tests.
EACH = [pytest.param(name, marks=[] if name in ("glm4v", "idefics3") else pytest.mark.slow) for name in ASKED]
WITH_VIDEO = {"exaone4_5": {"max_pixels": 3136}, "video_llama_3": {"min_pixels": 784, "max_pixels": 1568}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    found: dict[str, Tried] = {}

    def get(name: str) -> Tried:
        if name not in found:
            found[name] = opened(BUILDERS[name].build(tmp_path_factory.mktemp(name)))
        return found[name]

    return get


def by_processor(tried: Tried, pixels: np.ndarray, asked: dict[str, Any]) -> Any:
    """What the library's own processor makes of a question about a picture with these options."""
    from PIL import Image as Pictures

    processor: Any = tried.towers.processor
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What do you see?"}]}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if "longest_edge" in asked:
        asked = {"size": {"longest_edge": asked["longest_edge"]}}
    elif type(processor.image_processor).__name__ == "Glm4vImageProcessor":  # of which the library has no other name
        own = dict(processor.image_processor.size)
        least, most = asked.get("min_pixels", own["shortest_edge"]), asked.get("max_pixels", own["longest_edge"])
        asked = {"size": {"shortest_edge": least, "longest_edge": most}}
    images = [[Pictures.fromarray(pixels)]]
    return processor(text=[text], images=images, images_kwargs=asked, return_tensors="pt")


@pytest.mark.parametrize("name", EACH)
def test_a_prompt_is_that_of_the_librarys_processor_with_the_same_option(served: Any, name: str) -> None:
    tried: Tried = served(name)
    pixels = picture(1, *SHAPE)
    usual = by_processor(tried, pixels, {})["input_ids"].shape[1]
    params = SamplingParams(max_tokens=REPLY)
    for asked in ASKED[name]:
        assert set(asked) <= set(tried.loaded.family.spec.options)
        inputs = by_processor(tried, pixels, asked)
        request = Request(
            messages=[turn(("image", pixels), "What do you see?")],
            positions="transformers",
            params=params,
            processor=asked,
        )
        assert_equal(generated(tried.loaded, request), by_library(tried, inputs))
        assert inputs["input_ids"].shape[1] != usual, asked


async def appended(loaded: Loaded, items: list[Any], asked: dict[str, Any], **config: Any) -> list[int]:
    """How many rows each of these is, with its marks."""
    async with (
        Engine(loaded, EngineConfig(kv_tokens=4096, **config)) as engine,
        await engine.stream(Request(processor=asked)) as stream,
    ):
        reader = Reader(stream)
        for item in items:
            await stream.append(item)
        await (await stream.ask("What?", SamplingParams(max_tokens=1))).text()
        await until(lambda: bool(reader.of(Appended)))
        return [event.rows for event in reader.of(Appended)]


@pytest.mark.parametrize("name", EACH)
def test_a_stream_lays_what_the_processor_does_with_the_same_option(served: Any, name: str) -> None:
    """By the request, and for all of the engine; with other rows each time, though the picture is the same."""
    tried: Tried = served(name)
    pixels = picture(1, *SHAPE)
    token = tried.loaded.towers.taken().ids.get("image") or tried.towers.senses["image"].id

    async def work() -> None:
        found = []
        for asked in ({}, *ASKED[name]):
            [rows] = await appended(tried.loaded, [Image(pixels)], asked)
            assert [rows] == await appended(tried.loaded, [Image(pixels)], {}, processor=asked)
            ids = by_processor(tried, pixels, asked)["input_ids"][0]
            where = np.flatnonzero((ids == token).numpy())
            assert rows == int(where[-1] - where[0]) + 1
            found.append(rows)
        assert found[0] not in found[1:]

    run_in(asyncio.new_event_loop, work())


@pytest.mark.parametrize("name", ["exaone4_5", pytest.param("video_llama_3", marks=pytest.mark.slow)])
def test_frames_have_the_size_of_the_same_option(served: Any, name: str) -> None:
    tried: Tried = served(name)
    asked, towers = WITH_VIDEO[name], tried.towers
    clip = frames(3, towers.clip_frames, *SHAPE)
    video = torch.from_numpy(clip).permute(0, 3, 1, 2)
    rows = []
    for more in ({}, asked):
        grid = towers.processor.video_processor([video], do_sample_frames=False, return_tensors="pt", **more)
        rows.append(int(grid["video_grid_thw"].prod()) // towers.processor.video_processor.merge_size**2)
    assert rows[0] > rows[1]

    async def work() -> None:
        shots = [VideoFrame(pixels, round(tick / towers.video_fps * 1e6)) for tick, pixels in enumerate(clip)]
        for count, more in zip(rows, ({}, asked), strict=True):
            laid = sum(await appended(tried.loaded, shots, more))
            words = 0 if not towers.times_inside else laid - count  # with the words for their times
            assert laid == count + words and (words > 0) == towers.times_inside

    run_in(asyncio.new_event_loop, work())


@pytest.mark.parametrize(
    "name", ["glm4v", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cohere_compass", "qwen3_5", "glm46v"))]
)
def test_frames_of_a_video_whose_length_is_known_have_the_size_that_the_whole_has(served: Any, name: str) -> None:
    """Its frames share a budget of pixels. Where a stream does not say how many there will be, each piece has the size
    that the processor gives it alone."""
    tried: Tried = served(name)
    towers = tried.towers
    assert tried.loaded.family.spec.by_length
    count, least = 24, towers.least_frames
    clip = frames(3, count, *SHAPE)
    part = towers.processor.video_processor

    def rows(pixels: np.ndarray) -> int:
        video = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        grid = part([video], do_sample_frames=False, return_tensors="pt")["video_grid_thw"]
        return int(grid.prod()) // part.merge_size**2

    alone, whole = count // least * rows(clip[:least]), rows(clip)
    assert whole < alone

    async def laid(expected: int | None) -> int:
        async with Engine(tried.loaded, EngineConfig(kv_tokens=4096)) as engine:
            async with await engine.stream(Request(expected_frames=expected)) as stream:
                for tick, pixels in enumerate(clip):
                    await stream.append(VideoFrame(pixels, round(tick / towers.video_fps * 1e6)))
                await (await stream.ask("What?", SamplingParams(max_tokens=1))).text()
                runs = await stream.transcript()
        ids = {sense.id for sense in towers.senses.values()} | {tried.model.config.image_token_id}  # frames as pictures
        return sum(id in ids for run in runs if run.seen is not None for id in run.ids)

    async def work() -> None:
        assert await laid(count) == whole
        assert await laid(None) == alone

    run_in(asyncio.new_event_loop, work())


def test_an_option_that_a_model_does_not_have_names_those_that_it_has(served: Any) -> None:
    glm, aya = served("glm4v").loaded, served("aya_vision").loaded

    wrong: list[tuple[Loaded, Any, str]] = [
        (glm, {"crop_to_patches": True}, r"'crop_to_patches': expected one of .*\(fps, max_pixels, min_pixels\)"),
        (aya, {"fps": 1}, r"'fps': expected one of those that this model has \(crop_to_patches, max_patches\)"),
        (aya, {"max_patches": 2.5}, r"'max_patches': expected a whole number in \[1, 64\], got 2.5"),
        (
            glm,
            {"min_pixels": 9000, "max_pixels": 8000},
            "'min_pixels': expected at most max_pixels, 8000, got",
        ),
    ]

    async def work() -> None:
        for loaded, asked, words in wrong:
            async with Engine(loaded, EngineConfig(kv_tokens=2048)) as engine:
                with pytest.raises(InputError, match=words):
                    await engine.stream(Request(processor=asked))
            with pytest.raises(InputError, match=words):
                Engine(loaded, EngineConfig(kv_tokens=2048, processor=asked))

    run_in(asyncio.new_event_loop, work())
