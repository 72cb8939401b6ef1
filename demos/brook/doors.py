"""The ways by which a film comes to a model and a question about it is asked. In: something that has streams and
generates (a connection or an engine), a film's bytes, questions. Out: the answers.

It does not know which answers are right.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

import av
from penstock import (
    Appended,
    AudioChunk,
    Dropped,
    Event,
    Item,
    PenstockError,
    Request,
    SamplingParams,
    VideoBytes,
    VideoFrame,
)

from .film import FPS
from .questions import BrookQuestion

_ANSWER = SamplingParams(max_tokens=60, temperature=0.0)


class House(Protocol):
    """A connection to a server, or an engine in this process."""

    async def stream(self, request: Request, /) -> Any: ...

    async def generate(self, request: Request, params: SamplingParams | None = None, /) -> str: ...


Door = Callable[[House, bytes | None, float, Sequence[BrookQuestion]], Awaitable[list[str]]]


async def by_file(house: House, film: bytes | None, seconds: float, questions: Sequence[BrookQuestion]) -> list[str]:
    """The film is appended to a stream as the file that it is."""
    return await _in_a_stream(house, [] if film is None else [VideoBytes(film, final=True)], seconds, questions)


async def by_frames(house: House, film: bytes | None, seconds: float, questions: Sequence[BrookQuestion]) -> list[str]:
    """The film is decoded here; its frames and its sound are appended to a stream in the order of their times."""
    return await _in_a_stream(house, [] if film is None else _decoded(film), seconds, questions)


async def by_messages(
    house: House, film: bytes | None, seconds: float, questions: Sequence[BrookQuestion]
) -> list[str]:
    """Each question is a prompt of its own, with the film in its first message."""
    shown = [] if film is None else [{"type": "video", "video": film}]
    given = []
    for question in questions:
        messages: list[dict[str, Any]] = [{"role": "user", "content": shown}]
        if question.lead is not None:
            messages[0]["content"] = [*shown, {"type": "text", "text": question.lead.text}]
            said = await _prompted(house, messages, film is not None)
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": []}]
        messages[-1]["content"] = [*messages[-1]["content"], {"type": "text", "text": question.text}]
        given.append(await _prompted(house, messages, film is not None))
    return given


DOORS: dict[str, Door] = {"file": by_file, "frames": by_frames, "messages": by_messages}


async def _prompted(house: House, messages: list[dict[str, Any]], hears: bool) -> str:
    return (await house.generate(Request(messages=messages, format="turns", audio_in_video=hears), _ANSWER)).strip()


async def _in_a_stream(
    house: House, items: Sequence[Item], seconds: float, questions: Sequence[BrookQuestion]
) -> list[str]:
    """Every question is asked on a copy of the stream, so that no question helps another."""
    stream = await house.stream(Request(format="turns", params=_ANSWER))
    for item in items:
        await stream.append(item)
    if items:
        await _settled(stream, seconds)
    given = []
    for question in questions:
        copy = await stream.fork()
        if question.lead is not None:
            await (await copy.ask(question.lead.text)).text()
        given.append((await (await copy.ask(question.text)).text()).strip())
        await copy.close()
    await stream.close()
    return given


async def _settled(stream: AsyncIterator[Event], seconds: float) -> None:
    """Wait until all whole pieces of the film are in the cache, so that every copy has them."""
    pairs, blocks = int((seconds * FPS - 1) / FPS * 2 + 1) // 2, int(seconds - 0.1)
    missing = {"video": pairs - 0.5, "audio": float(blocks)}
    async for event in stream:
        if isinstance(event, Appended | Dropped) and event.stop_us is not None:
            if event.stop_us / 1e6 >= missing.get(event.modality, 0.0) - 0.05:
                missing.pop(event.modality, None)
            if not missing:
                return
    raise PenstockError(f"expected a film of {seconds} s to be taken in, got the stream's end")


def _decoded(film: bytes) -> list[Item]:
    """The frames and the sound of a film, in the order of their times."""
    found: list[tuple[int, Item]] = []
    with av.open(io.BytesIO(film), "r") as container:
        for frame in container.decode():
            assert frame.pts is not None and frame.time_base is not None
            pts_us = round(frame.pts * frame.time_base * 1_000_000)
            if isinstance(frame, av.VideoFrame):
                found.append((pts_us, VideoFrame(frame.to_ndarray(format="rgb24"), pts_us)))
            elif isinstance(frame, av.AudioFrame):
                found.append((pts_us, AudioChunk(frame.to_ndarray(), frame.sample_rate, pts_us)))
    return [item for _, item in sorted(found, key=lambda timed: timed[0])]
