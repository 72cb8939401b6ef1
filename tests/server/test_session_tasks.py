"""What a session decides is carried out on an engine in its order, on any event loop, however long each part waits."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from fake_engine import FakeEngine, FakeStream
from harness import run, until
from hypothesis import given
from hypothesis import strategies as st
from penstock.server import commands as c
from penstock.server.access import EVERYONE
from penstock.server.account import Account
from penstock.server.metrics import Meter
from penstock.server.session import Session
from penstock.server.session_tasks import SessionTasks
from penstock.streams.item import Text

ACCOUNT = Account(EVERYONE, Meter())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@given(kinds=st.lists(st.tuples(st.sampled_from(["append", "ask"]), st.integers(0, 3), st.booleans()), max_size=12))
def test_inputs_and_questions_are_numbered_as_they_came(loop: str, kinds: list[tuple[str, int, bool]]) -> None:
    """An append takes its number when its wait is over, a question at once; `turns` is for how long each waits, and
    `together` whether it comes in one message with the one before it.
    """
    answers: dict[int, c.CarriedOut] = {}

    def tell(answer: c.Answer) -> None:
        if isinstance(answer, c.CarriedOut):
            answers[answer.ref] = answer

    async def main() -> None:
        engine: Any = FakeEngine(tokens=1)
        waits = iter([turns for kind, turns, _ in kinds if kind == "append"])
        async with asyncio.TaskGroup() as tasks:
            work = SessionTasks(Session(1, 1 << 20), engine, tell, tasks, "test", ACCOUNT)
            work.take(c.OpenStream(stream="a"))
            await until(lambda: bool(engine.streams))
            quick = engine.streams[0].append

            async def slow(item: Text) -> int:
                for _ in range(next(waits)):
                    await asyncio.sleep(0)
                return await quick(item)

            engine.streams[0].append = slow
            for ref, (kind, turns, together) in enumerate(kinds):
                if kind == "append":
                    work.take(c.AppendItem(stream="a", ref=ref, item=Text("x")))
                else:
                    work.take(c.AskQuestion(stream="a", ref=ref))
                for _ in range(0 if together else turns):
                    await asyncio.sleep(0)
            await until(lambda: len(answers) == len(kinds))
            work.take(c.CloseStream(stream="a"))
        await work.close()

    run(main, loop)
    assert [answers[ref].seq for ref in range(len(kinds))] == [*range(1, len(kinds) + 1)]


def test_interrupts_come_before_what_is_asked_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an interrupt takes its time: the second one must not cut the reply to the question."""
    calls: list[str] = []
    go_on = asyncio.Event()
    ask = FakeStream.ask

    async def slow(self: FakeStream, at: int | None = None) -> None:
        calls.append("interrupt")
        await go_on.wait()

    async def noted(self: FakeStream, *arguments: Any, **options: Any) -> Any:
        calls.append("ask")
        go_on.set()
        return await ask(self, *arguments, **options)

    monkeypatch.setattr(FakeStream, "interrupt", slow)
    monkeypatch.setattr(FakeStream, "ask", noted)

    async def main() -> None:
        numbers, told = itertools.count(), []
        engine: Any = FakeEngine()
        async with asyncio.TaskGroup() as tasks:
            work = SessionTasks(Session(1, 1 << 20), engine, told.append, tasks, "test", ACCOUNT)
            for command in (c.OpenStream, c.InterruptReply, c.InterruptReply, c.AskQuestion):
                work.take(command(stream="a", ref=next(numbers)))
            await until(lambda: len([answer for answer in told if isinstance(answer, c.CarriedOut)]) == 3)
            work.take(c.CloseStream(stream="a"))
        await work.close()

    run(main)
    assert calls == ["interrupt", "interrupt", "ask"]
