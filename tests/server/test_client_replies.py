"""A client's stream keeps a reply as long as somebody may want it, whatever comes when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from harness import run
from hypothesis import given
from hypothesis import strategies as st
from penstock.errors import InputError
from penstock.server import wire
from penstock.server.client_stream import ClientReply, ClientStream
from penstock.streams.event import Closed, ReplyDone, ReplyStarted, Token
from penstock.streams.requests.request import SamplingParams


class Line:
    """A connection whose server answers when a test says so."""

    piece_bytes = 1 << 20

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[wire.Answer]] = []

    async def send(self, frame: str | bytes) -> int:
        """Nothing."""
        return 0

    async def call(self, encode: Callable[[str], str | bytes], stream: str | None) -> wire.Answer:
        """Waits for its place in `answers`."""
        answer: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return await answer

    async def open_copy(self, source: ClientStream, again: SamplingParams | None, **back: int | None) -> ClientStream:
        """None."""
        raise AssertionError("expected no fork")


@given(prompted=st.booleans(), data=st.data())
def test_no_ended_reply_stays_once_all_questions_are_answered(prompted: bool, data: st.DataObject) -> None:
    """Each reply begins, speaks and ends in this order; its question is answered at any time once it has begun, or is
    given up, or refused.
    """

    async def main() -> None:
        line = Line()
        stream = ClientStream(line, "s", prompted)
        count = data.draw(st.integers(1, 4), label="questions")
        asking = [asyncio.create_task(stream.ask(), name=f"ask {number}") for number in range(count)]
        await asyncio.sleep(0)
        fates = data.draw(st.lists(st.sampled_from(["answer", "answer", "cancel", "refuse"]), min_size=4, max_size=4))
        steps: dict[int, list[str]] = {number: ["start", "token", "done"] for number in range(count + prompted)}
        for number in range(count):
            place = data.draw(st.integers(0 if fates[number] == "refuse" else 1, 3))
            steps[number].insert(place, fates[number])
            if fates[number] == "refuse":
                steps[number] = ["refuse"]
        asked: dict[int, ClientReply] = {}
        while any(steps.values()):
            number = data.draw(st.sampled_from([number for number, left in steps.items() if left]))
            step = steps[number].pop(0)
            seq = 1 if number == count else number + 2
            match step:
                case "start":
                    stream.put(ReplyStarted(number, seq))
                case "token":
                    stream.put(Token(number, 0, 7, f"w{number}", None))
                case "done":
                    stream.put(ReplyDone(number, "stop", 1))
                case "cancel":
                    asking[number].cancel()
                    await asyncio.wait([asking[number]])
                case "refuse":
                    line.answers[number].set_exception(InputError("expected a question, got none"))
                    await asyncio.wait([asking[number]])
                case "answer":
                    line.answers[number].set_result(wire.Accepted(stream="s", seq=seq, reply=number))
                    asked[number] = await asking[number]
        for number, reply in asked.items():
            assert (reply.id, reply.reason, await reply.text()) == (number, "stop", f"w{number}")
        assert set(stream._replies) == ({count} if prompted else set())
        if prompted:
            assert await (await stream.prompted()).text() == f"w{count}"
        stream.put(Closed("closed"))

    run(main)


def test_a_first_question_is_no_prompt() -> None:
    async def main() -> None:
        line = Line()
        stream = ClientStream(line, "s")
        asking = asyncio.create_task(stream.ask(), name="ask")
        await asyncio.sleep(0)
        stream.put(ReplyStarted(1, 1))
        line.answers[0].set_result(wire.Accepted(stream="s", seq=1, reply=1))
        reply = await asking
        stream.put(ReplyDone(1, "stop", 0))
        assert reply.seq == 1 and not stream._replies
        with pytest.raises(InputError):
            await stream.prompted()

    run(main)
