"""Rows that were made elsewhere. The law: rows that the model's own towers made, sent as such, are the medium."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from penstock.actors.stream import Stream
from penstock.engine.embeddings import EncodedSpan
from penstock.engine.family import Loaded
from penstock.errors import InputError
from penstock.streams.event import Error
from penstock.streams.item import Embedding, Image, Item, Text
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import AudioSegment, ImageSegment, Segment, VideoSegment
from penstock.streams.size import fit
from safetensors.torch import save

from tests.actors.conftest import House
from tests.actors.watch import Reader, shots
from tests.fixtures.loaded import served
from tests.reference.media import picture, sound

SEEING = ("omni", "qwen2_5_vl", "qwen3_vl", "llava", "gemma3", "llava_onevision")
SHORT = SamplingParams(max_tokens=6, temperature=0)
PIXELS = picture(1, 70, 90)


def made(loaded: Loaded, segment: Segment) -> EncodedSpan:
    with torch.inference_mode():
        (encoded,) = loaded.towers.encode([(999_999, segment)])
    loaded.towers.forget(999_999)
    return encoded


def as_item(encoded: EncodedSpan, kind: str, **times: Any) -> Embedding:
    """What somebody else's encoder would send."""
    span, embeds = encoded
    tensors = {"rows": embeds.rows} if embeds.deep is None else {"rows": embeds.rows, "deep": embeds.deep}
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return Embedding(data, kind, span.grid if span.grid[0] else None, **times)


async def told(stream: Stream, items: list[Item]) -> tuple[list[Any], str]:
    """What is laid after these items and a question, and what is said."""
    for item in items:
        await stream.append(item)
    said = await (await stream.ask("What is it?", SHORT)).text()
    return [(run.ids, run.positions) for run in await stream.transcript()], said


@pytest.mark.parametrize("name", SEEING)
def test_rows_of_the_models_own_tower_are_the_picture(house: House, name: str) -> None:
    loaded = served(name)
    assert loaded.family.spec.image is not None
    size = fit(loaded.family.spec.image, *PIXELS.shape[:2])
    pixels = np.asarray(PIXELS if size == PIXELS.shape[:2] else picture(1, *size))
    item = as_item(made(loaded, ImageSegment(1, 0, pixels)), "image")

    async def work() -> None:
        async with house.engine(loaded) as engine:
            laid = []
            for shown in (Image(pixels), item):
                async with await engine.stream(Request(window=None)) as stream:
                    laid.append(await told(stream, [Text("Look:"), shown]))
            assert laid[0] == laid[1]
            async with await engine.stream(Request(window=None)) as stream:
                assert (await told(stream, [Text("Look:")])) != laid[0]

    house.run(work())


def test_rows_of_frames_with_their_time_and_of_sound(house: House) -> None:
    seeing, hearing = served("qwen3_vl"), served("omni")
    frames = [np.asarray(shot.data) for shot in shots(1, 2)]
    rule = seeing.family.spec.video
    assert rule is not None and fit(rule, *frames[0].shape[:2]) == frames[0].shape[:2]
    clip = made(seeing, VideoSegment(1, 0, np.stack(frames), 1_000_000, 1_500_000))
    heard = sound(1, 1.0)
    spoken = made(hearing, AudioSegment(1, 0, heard, 0, 100, 0, 0, 1_000_000))

    async def work() -> None:
        async with house.engine(seeing) as engine, await engine.stream(Request(window=None)) as stream:
            rows, _ = await told(stream, [as_item(clip, "video", pts_us=1_000_000, stop_us=1_500_000)])
            assert "<1.2 seconds>" in seeing.family.tokenizer.decode([id for ids, _ in rows for id in ids])
            reader = Reader(stream)
            await stream.append(as_item(clip, "video"))
            await reader.see(Error)
            assert "expected pts_us and stop_us" in reader.of(Error)[0].message
        async with house.engine(hearing) as engine, await engine.stream(Request(window=None)) as stream:
            rows, _ = await told(stream, [as_item(spoken, "audio")])
            ids = [id for ids, _ in rows for id in ids]
            assert ids.count(hearing.family.spec.rows.ids["audio"]) == len(spoken.span.ids)

    house.run(work())


@pytest.mark.parametrize("name", ["text", "omni"])
def test_the_embeddings_of_words_are_the_words(house: House, name: str) -> None:
    loaded = served(name)
    ids = loaded.family.spelling.ids("a red door")
    rows = loaded.text.get_input_embeddings()(torch.tensor(ids)).detach().numpy()

    async def work() -> None:
        async with house.engine(loaded) as engine:
            said, places = [], []
            for item in (Text("a red door"), Embedding(rows, "text")):
                async with await engine.stream(Request(window=None)) as stream:
                    laid, words = await told(stream, [Text("See:\n"), item, Text("\n!")])
                    said.append(words)
                    places.append([place for _, positions in laid for place in positions[0]])
            assert said[0] == said[1]
            assert places[0] == places[1]

    house.run(work())


def test_rows_that_do_not_fit_are_refused_and_the_stream_goes_on(house: House) -> None:
    width = house.loaded.family.spec.rows.width
    good = np.zeros((4, width), np.float32)
    broken = good.copy()
    broken[2, 3] = np.nan
    wrong: list[tuple[Embedding, str]] = [
        (Embedding(good[:, 1:], "image", (1, 2, 2)), rf"expected rows \(n, {width}\) with n at least 1, got \(4, "),
        (Embedding(good[:0], "audio"), r"expected rows .* got \(0, "),
        (Embedding(good.astype(np.float64), "audio"), "expected rows as float32 or float16, got float64"),
        (Embedding(broken, "audio"), "expected finite numbers"),
        (Embedding(good, "image"), "expected the grid"),
        (Embedding(good, "image", (1, 2, 3)), "expected a grid of 4 rows"),
        (Embedding(good, "audio", (1, 2, 2)), "expected no grid"),
        (Embedding(b"\x80\x04pickle", "audio"), "expected a safetensors file"),
        (Embedding(save({"rows": torch.zeros(4, width).long()}), "audio"), "expected float32, float16 or bfloat16"),
        (Embedding(save({"other": torch.zeros(4, width)}), "audio"), "expected tensors rows and deep, got other"),
        (
            Embedding(save({"rows": torch.zeros(4, width), "deep": torch.zeros(1, 4, width)}), "audio"),
            "expected deep features none",
        ),
    ]

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(window=None)) as stream:
            reader = Reader(stream)
            with pytest.raises(InputError, match="this model takes text, image, video, audio, got Embedding"):
                await stream.append(Embedding(good, "smell"))
            for number, (item, words) in enumerate(wrong, 1):
                await stream.append(item)
                await reader.see(Error, number)
                assert re.search(words, reader.of(Error)[-1].message), (words, reader.of(Error)[-1].message)
            await told(stream, [Embedding(good, "image", (1, 2, 2)), Embedding(good.astype(np.float16), "audio")])

    house.run(work())
