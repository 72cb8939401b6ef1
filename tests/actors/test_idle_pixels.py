"""Frames are smaller while nothing happens: what goes in is what plain `transformers` has for frames of these sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from penstock.actors.stream import Stream
from penstock.errors import InputError
from penstock.streams.event import Appended, Token
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from torch.nn.functional import interpolate

from tests.actors.conftest import House
from tests.actors.watch import FRAME_US, WORDS, Reader, ids
from tests.fixtures.loaded import plain, served
from tests.reference import pieces as p
from tests.reference.dense import build, greedy
from tests.reference.media import picture

SIDE, SIDES = 128, {"f": 112, "s": 56}  # of the camera; of its frames at their full size and smaller
PARAMS = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True, logprobs=0)
# By the pairs: five seconds of a scene, then it stays; another, and that stays; and a frame that waits for a question.
SIZES = "fffffsssfffffss"
COUNT = 2 * len(SIZES) + 1
QUIET = Request(format="turns", video_pixels_idle=64 * 64)


def seen(number: int) -> np.ndarray:
    """A frame of a camera: a small thing moves in one scene, then in another."""
    frame = picture(1 if number < 16 else 2, SIDE, SIDE)
    frame[8:16, 4 * number : 4 * number + 8] = 255
    return frame


def smaller(frame: np.ndarray, side: int) -> np.ndarray:
    """As the processors of `transformers` resize: bicubic, antialiased, in bytes."""
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None]
    return interpolate(planes, (side, side), mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()


def shown() -> list[p.VideoPiece]:
    """The runs of frames of one size, at their times; the last frame, which a question asks for, at its full size."""
    pieces: list[p.VideoPiece] = []
    wanted = [SIDES[size] for size in SIZES for _ in range(2)] + [SIDES["f"]]
    start = 0
    for stop in range(1, COUNT + 1):
        if stop == COUNT or wanted[stop] != wanted[start]:
            film = np.stack([smaller(seen(number), wanted[start]) for number in range(start, stop)])
            pieces.append(p.VideoPiece(film, tuple(number / 2 for number in range(start, stop))))
            start = stop
    return pieces


async def watch(stream: Stream, first: int = 0, stop: int = COUNT) -> None:
    for number in range(first, stop):
        await stream.append(VideoFrame(seen(number), number * FRAME_US))


@pytest.mark.parametrize("name", ["omni", "qwen2_5_vl", "qwen2_vl", "qwen3_vl"])
def test_frames_of_two_sizes_equal_a_dense_forward_of_both(house: House, name: str) -> None:
    async def work() -> tuple[list[Token], list[Any], list[Appended]]:
        async with house.engine(served(name)) as engine, await engine.stream(QUIET) as stream:
            reader = Reader(stream)
            await watch(stream)
            await (await stream.ask(WORDS, PARAMS)).text()
            told = await reader.see(Token, PARAMS.max_tokens)
            return told, await stream.transcript(), reader.of(Appended)

    told, rows, appended = house.run(work())
    asked = [p.System(None), p.UserStart(), *shown(), p.Text(WORDS), p.UserEnd(), p.AssistantStart()]
    sequence = build(*plain(name), asked)
    expected, logits = greedy(plain(name)[0], sequence, PARAMS.max_tokens or 0)
    assert [token.id for token in told] == expected
    likely = logits.log_softmax(-1).gather(1, torch.tensor(expected)[:, None])[:, 0]
    assert torch.allclose(torch.tensor([token.logprob for token in told]), likely, atol=1e-4)
    held = [id for row in rows for id in row.ids][: len(sequence.ids)]
    assert held == sequence.ids.tolist()
    places = torch.tensor([[place for row in rows for place in row.positions[axis]] for axis in range(3)])
    assert torch.equal(places[:, : len(sequence.ids)], sequence.positions)
    assert [one.rows for one in appended] == [(SIDES[size] // 28) ** 2 for size in SIZES + "f"]


@pytest.mark.parametrize("first", [9, 15])
def test_a_copy_and_a_snapshot_go_on_with_the_size(house: House, tmp_path: Path, first: int) -> None:
    """One frame waits for its pair: in the first five seconds, and while frames are smaller."""

    async def goes_on(stream: Stream) -> Any:
        await watch(stream, first)
        answer = await ids(await stream.ask(WORDS, PARAMS))
        return answer, [(row.ids, row.positions) for row in await stream.transcript()]

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(QUIET) as stream:
            await watch(stream, 0, first)
            copy = await stream.fork()
            await stream.snapshot(tmp_path / "camera")
            async with await engine.restore(tmp_path / "camera") as again:
                told = [await goes_on(one) for one in (stream, copy, again)]
            await copy.close()
            assert told[0] == told[1] == told[2]

    house.run(work())


@pytest.mark.parametrize(
    ("name", "request_", "said"),
    [
        ("omni", Request(video_pixels_idle=1), "video_pixels_idle: expected 3136 to 12544, .* got 1"),
        ("omni", Request(video_pixels_idle=20_000), "video_pixels_idle: expected 3136 to 12544, .* got 20000"),
        (
            "omni",
            Request(video_pixels_idle=3136, processor={"min_pixels": 4000}),
            "video_pixels_idle: expected 4000 to 12544",
        ),
        (
            "omni",
            Request(video_pixels_idle=3136, audio_in_video=True),
            "video_pixels_idle: expected none with audio_in_video",
        ),
        (
            "llava_onevision",
            Request(video_pixels_idle=3136),
            "video_pixels_idle: expected a model whose .* got llava_onevision, in which every frame",
        ),
        ("text", Request(video_pixels_idle=3136), "video: expected a model that takes video"),
    ],
)
def test_a_size_that_cannot_be_is_refused(house: House, name: str, request_: Request, said: str) -> None:
    async def work() -> None:
        async with house.engine(served(name)) as engine:
            with pytest.raises(InputError, match=said):
                await engine.stream(request_)

    house.run(work())
