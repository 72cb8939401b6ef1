"""A fault of ours in the work of one stream ends that stream or its input; the others, and the event loop, go on."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
from penstock.actors import decode
from penstock.actors.intake import Intake
from penstock.actors.messages import Notice
from penstock.engine.command import Accept, Command
from penstock.engine.conversation.rules import Life
from penstock.errors import ContextOverflowError, PenstockError
from penstock.streams.event import Appended, Closed, Error, ReplyDone, ReplyStarted
from penstock.streams.item import Image, Text, VideoFrame
from penstock.streams.requests.request import Request
from penstock.streams.requests.whole import decoded

from tests.actors.conftest import House
from tests.actors.test_failure import LONG, SHORT, Picky
from tests.actors.watch import FRAME_US, Reader, ids, until
from tests.reference.media import picture

MOST_THREADS = max(2, os.cpu_count() or 2)  # that decode


def test_a_stream_whose_message_fails_ends_alone(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A fault of ours in one stream's own message: the others go on."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as good, await engine.stream() as bad:
            reader, scheduler = Reader(bad), engine._wiring.schedule._scheduler
            apply = scheduler.apply

            def failing(command: Command) -> None:
                if isinstance(command, Accept) and getattr(command.input, "text", "") == "Fail.":
                    raise ValueError("no such words")
                apply(command)

            scheduler.apply = failing
            reply = await good.ask("What?", LONG)
            await bad.append(Text("Fail."))
            (closed,) = await reader.see(Closed)
            (error,) = reader.of(Error)
            assert (error.code, error.fatal, closed.reason) == ("internal", True, "error")
            assert "Accept failed: ValueError: no such words" in error.message
            await reply.text()
            assert reply.reason == "length"

    house.run(work())
    assert "no such words" in caplog.text


def test_a_step_that_one_stream_s_rules_do_not_allow_ends_that_stream_alone(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """A token for a reply that rests cannot be: going on could be a wrong answer in silence."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as good, await engine.stream() as bad:
            reader, reply = Reader(bad), await good.ask("What?", LONG)
            await bad.ask("What?", LONG)
            spoilt = engine._wiring.schedule._scheduler.streams[bad.id].reply
            assert spoilt is not None
            spoilt.life = Life.RESTING
            (closed,) = await reader.see(Closed)
            (error,) = reader.of(Error)
            assert (error.code, error.fatal, closed.reason) == ("internal", True, "error")
            assert "that is resting: expected" in error.message and "got: token" in error.message
            await reply.text()
            assert reply.reason == "length"

    house.run(work())
    assert "could not take effect" in caplog.text


def test_a_stream_that_cannot_be_opened_for_a_fault_of_ours(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(spec: Any, request: Request, *rest: Any) -> Intake:
        if request.video_fps == 3.0:
            raise OverflowError("cannot convert float infinity to integer")
        return Intake(spec, request, *rest)

    monkeypatch.setattr(decode, "Intake", failing)

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as good:
            for _ in range(2):
                async with await engine.stream(Request(video_fps=3.0)) as bad:
                    (error,) = await Reader(bad).see(Error)
                    assert error.fatal and error.code == "internal" and "float infinity" in error.message
            assert len(await ids(await good.ask("What?", SHORT))) == 4

    house.run(work())


def test_closing_a_stream_waits_for_no_decoder(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that takes long to close, as where its process is at work for somebody else, holds up nobody."""
    go, begun, close = threading.Event(), threading.Event(), Intake.close

    def slow(intake: Intake) -> None:
        begun.set()
        assert go.wait(20)
        close(intake)

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as other:
            stream = await engine.stream()
            await stream.append(Image(picture(1)))
            await stream.ask("What?", SHORT)
            monkeypatch.setattr(Intake, "close", slow)
            await stream.close()
            await until(begun.is_set)
            assert len(await ids(await other.ask("What?", SHORT))) == 4
            go.set()
            await until(lambda: engine._wiring.decode.streams == 1)

    try:
        house.run(work())
    finally:
        go.set()


def test_a_question_whose_own_media_fails_is_not_asked(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """It is refused, and no reply runs that nobody holds; the next question is answered."""

    async def work() -> None:
        towers = Picky(house.loaded.towers)
        async with house.engine(house.loaded._replace(towers=towers)) as engine, await engine.stream() as stream:
            reader = Reader(stream)
            await stream.append(VideoFrame(np.zeros((56, 84, 3), np.uint8), 0))  # half a pair: the question flushes it
            with pytest.raises(PenstockError, match="a kernel failed"):
                await stream.ask("What?", SHORT)
            reply = await stream.ask("And now?", SHORT)
            assert len(await ids(reply)) == 4
            assert [event.reply for event in await reader.see(ReplyDone)] == [reply.id] == [1]

    house.run(work())


def test_what_went_wrong_is_told_behind_what_happened_before_it(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            schedule = engine._wiring.schedule
            for event in (Error("media", "no picture", 1), Error("internal", "ours", fatal=True)):
                schedule._scheduler.streams[stream.id].events.append(ReplyStarted(1, 1))
                schedule._perform(Notice(stream.id, event))
                told = schedule._told.pop(stream.id).events
                assert [type(other) for other in told] == [ReplyStarted, Error]

    house.run(work())


def test_long_prompts_hold_up_no_camera(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are decoded; each is one piece of work, however long its film."""
    go = threading.Event()

    def slow(*work: Any) -> Any:
        assert go.wait(20)
        return decoded(*work)

    monkeypatch.setattr(decode, "decoded", slow)

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as camera:
            reader = Reader(camera)
            prompts = [await engine.stream(Request(prompt="Tell me.", params=SHORT)) for _ in range(MOST_THREADS)]
            for frame in range(4):
                await camera.append(VideoFrame(picture(frame, 56, 84), pts_us=frame * FRAME_US))
            await reader.see(Appended)
            go.set()
            for prompt in prompts:
                await Reader(prompt).see(ReplyDone)
                await prompt.close()

    house.run(work())


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "door " * 1_600_000},
        {"prompt_ids": [5] * 1_000_000},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "door " * 800_000}] * 2}]},
        {"messages": [{"role": "user", "content": "door " * 1_600_000}]},
        {"system": "door " * 1_600_000, "messages": [{"role": "user", "content": "door"}]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_prompt_that_can_never_fit_is_refused_before_anybody_works_on_it(
    house: House, fields: dict[str, Any]
) -> None:
    """No actor gets a message of it, and so nobody else waits for a step."""

    async def work() -> None:
        async with house.engine(observer=lambda mailbox, lane, message: told.append(message)) as engine:
            await engine.warm_up()
            told.clear()
            with pytest.raises(ContextOverflowError, match="the cache holds 8192 rows: expected at most"):
                await engine.generate(Request(**fields))
            assert told == []

    told: list[Any] = []
    house.run(work())
