"""The paced client: a send that is late is seen, and pieces, tokens and faults are noted as they are heard of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from harness import run
from penstock.server.bench.camera import PacedCamera, jpegs
from penstock.streams.event import Appended, Closed, Dropped, Error, ReplyDone, Seen, Token
from penstock.streams.item import Image, VideoFrame
from penstock.streams.requests.request import SamplingParams

PICTURES = [b"picture"] * 9


class Wire:
    """A stream on no server: it keeps what is appended, and says what a test puts in."""

    def __init__(self, on_append: Callable[[Any, Callable[[Any], None]], Any] | None = None) -> None:
        self.items: list[Any] = []
        self.closed = False
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._on_append = on_append or (lambda item, say: None)

    def say(self, event: Any) -> None:
        self._events.put_nowait(event)

    async def append(self, item: Any) -> int:
        self.items.append(item)
        self._on_append(item, self.say)
        return len(self.items)

    async def ask(self, question: str, params: SamplingParams) -> None:
        for index in range(params.max_tokens):
            self.say(Token(1, index, 5, "x", Seen(1, "image", 0, 0)))
        self.say(ReplyDone(1, "length", params.max_tokens))

    async def end(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True
        self.say(Closed("closed"))

    async def __aiter__(self) -> AsyncIterator[Any]:
        while not isinstance(event := await self._events.get(), Closed):
            yield event


def at_once(item: Any, say: Callable[[Any], None]) -> None:
    say(Appended(1, "image", item.pts_us, item.pts_us, 0, 64, 0))


def camera(wire: Wire, fps: float, media: str = "image") -> PacedCamera:
    return PacedCamera(wire, PICTURES, fps, media)  # pyright: ignore[reportArgumentType]


def test_a_late_send_is_seen() -> None:
    async def main() -> None:
        async with camera(Wire(at_once), fps=0.1) as shown:
            await shown.show(time.perf_counter(), seconds=5)
            assert shown.late == 0
            await shown.show(time.perf_counter() - 1.5, seconds=5)  # a tenth of the interval is 1 s
            assert shown.late == 1

    run(main)


def test_sends_keep_absolute_times_and_wait_for_no_answer() -> None:
    async def main() -> None:
        async def never(item: Any) -> int:
            wire.items.append((item, time.perf_counter()))
            await asyncio.Event().wait()
            return 0

        wire = Wire()
        wire.append = never
        async with camera(wire, fps=20) as shown:
            start = time.perf_counter()
            showing = asyncio.create_task(shown.show(start))
            await asyncio.sleep(0.24)
            showing.cancel()
            waiting = [task for task in asyncio.all_tasks() if task.get_name() == "bench.camera.send"]
            for task in waiting:
                task.cancel()
            await asyncio.gather(showing, return_exceptions=True)
        assert len(wire.items) == len(waiting) >= 2, "expected more pictures without an answer to the first"
        for place, (item, sent) in enumerate(wire.items):
            assert item.pts_us == place * 50_000 and sent >= start + place * 0.05

    run(main)


@pytest.mark.parametrize(("media", "kind"), [("image", Image), ("frame", VideoFrame)])
def test_what_is_shown(media: str, kind: type) -> None:
    async def main() -> None:
        wire = Wire()
        async with camera(wire, fps=1000, media=media) as shown:
            await shown.show(0.0, seconds=0.003)
        assert [type(item) for item in wire.items] == [kind] * 3
        assert [item.pts_us for item in wire.items] == [0, 1000, 2000]

    run(main)


def test_a_pair_of_frames_is_due_when_its_second_frame_is() -> None:
    def in_pairs(item: Any, say: Callable[[Any], None]) -> None:
        if item.pts_us % 2000 == 1000:
            say(Appended(1, "video", item.pts_us - 1000, item.pts_us, 0, 64, 0))

    async def main() -> None:
        async with camera(Wire(in_pairs), fps=1000, media="frame") as shown:
            await shown.show(0.0, seconds=0.005)
            await asyncio.sleep(0.01)
            first, second, lost = shown.shown(0.0, 1.0)
            assert (first.due, second.due, lost.due) == pytest.approx((0.001, 0.003, 0.004))
            assert first.kv and second.kv and lost.kv is None
            assert shown.shown(0.002, 0.0035) == [second]

    run(main)


def test_a_picture_is_taken_in_once_it_is_in_the_cache() -> None:
    async def main() -> None:
        wire = Wire(lambda item, say: asyncio.get_running_loop().call_later(0.01, at_once, item, say))
        async with camera(wire, fps=2) as shown:
            await shown.take_in(2)
            assert len(wire.items) == 2 and all(piece.kv for piece in shown.shown(0.0, time.perf_counter()))

    run(main)


def test_the_tokens_of_a_reply_come_with_what_they_saw() -> None:
    async def main() -> None:
        async with camera(Wire(), fps=2) as shown:
            said = await shown.speak("What?", SamplingParams(max_tokens=3))
            assert [token.seen_us for token in said] == [0, 0, 0] and shown.said == said
            assert len(await shown.speak("What?", SamplingParams(max_tokens=2))) == 2

    run(main)


def test_faults_are_kept() -> None:
    async def main() -> None:
        wire = Wire()
        async with camera(wire, fps=2) as shown:
            wire.say(Dropped(1, "video", 2, 0, 0, "latest"))
            wire.say(Error("context_overflow", "it is full"))
            await asyncio.sleep(0.01)
            assert shown.faults == ["2 pieces dropped: latest", "it is full"]

    run(main)


def test_every_picture_is_another_one() -> None:
    files = [*jpegs(1, 3), *jpegs(2, 3)]
    assert len(set(files)) == 6 and all(file.startswith(b"\xff\xd8") for file in files)
    assert jpegs(1, 3) == files[:3]
