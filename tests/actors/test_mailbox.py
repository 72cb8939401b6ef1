"""Mailboxes: control first, data bounded, nothing lost or doubled however callers are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.actors.mailbox import Mailbox, MailboxClosed

from tests.actors.conftest import run_in

Run = Callable[[Any], Any]


class Note(msgspec.Struct, frozen=True):
    number: int


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(8):
        await asyncio.sleep(0)


def test_control_is_read_first_and_each_lane_in_order(run: Run) -> None:
    async def work() -> None:
        box: Mailbox[Note] = Mailbox("box", 100)
        for number in range(3):
            await box.put(Note(number), 10)
            box.put_control(Note(10 + number))
        read = [(await box.get()).number for _ in range(6)]
        assert read == [10, 11, 12, 0, 1, 2]

    run(work())


def test_data_waits_for_room_in_bytes_and_control_never_does(run: Run) -> None:
    async def work() -> None:
        box: Mailbox[Note] = Mailbox("box", 100)
        await box.put(Note(0), 500)  # one always fits an empty lane
        late = [asyncio.create_task(box.put(Note(number), size)) for number, size in ((1, 90), (2, 5), (3, 5), (4, 60))]
        await settle()
        box.put_control(Note(9))
        assert [task.done() for task in late] == [False] * 4
        assert box.statistics()["writers"] == 4
        assert [(await box.get()).number for _ in range(2)] == [9, 0]
        await settle()
        assert [task.done() for task in late] == [True, True, True, False]
        assert box.statistics()["data_bytes"] == 100
        assert [(await box.get()).number for _ in range(4)] == [1, 2, 3, 4]
        await asyncio.gather(*late)

    run(work())


def test_large_message_is_not_overtaken_for_ever(run: Run) -> None:
    async def work() -> None:
        box: Mailbox[Note] = Mailbox("box", 100)
        await box.put(Note(0), 60)
        large = asyncio.create_task(box.put(Note(1), 90))
        await settle()
        small = asyncio.create_task(box.put(Note(2), 10))
        await settle()
        assert not small.done()
        assert [(await box.get()).number for _ in range(3)] == [0, 1, 2]
        await asyncio.gather(large, small)

    run(work())


def test_close_wakes_all_writers_and_lets_the_rest_be_read(run: Run) -> None:
    async def work() -> None:
        box: Mailbox[Note] = Mailbox("box", 10)
        await box.put(Note(0), 10)
        box.put_control(Note(1))
        writers = [asyncio.create_task(box.put(Note(2), 10)) for _ in range(3)]
        await settle()
        box.close()
        outcomes = await asyncio.gather(*writers, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [MailboxClosed] * 3
        with pytest.raises(MailboxClosed):
            box.put_control(Note(3))
        with pytest.raises(MailboxClosed):
            await box.put(Note(3))
        assert [(await box.get()).number for _ in range(2)] == [1, 0]
        with pytest.raises(MailboxClosed):
            await box.get()

    run(work())


def test_close_wakes_a_waiting_reader(run: Run) -> None:
    async def work() -> None:
        box: Mailbox[Note] = Mailbox("box", 10)
        reader = asyncio.create_task(box.get())
        await settle()
        box.close()
        with pytest.raises(MailboxClosed):
            await reader

    run(work())


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 12)),
            st.tuples(st.just("get"), st.just(0)),
            st.tuples(st.just("cancel put"), st.integers(0, 5)),
            st.tuples(st.just("cancel get"), st.just(0)),
            st.tuples(st.just("run"), st.integers(0, 3)),
        ),
        max_size=40,
    )
)
def test_nothing_is_lost_doubled_or_stuck_under_cancellation(acts: list[tuple[str, int]]) -> None:
    async def work() -> None:
        box: Mailbox[Note] = Mailbox("box", 20)
        puts: list[asyncio.Task[None]] = []
        gets: list[asyncio.Task[Note]] = []

        for act, number in acts:
            match act:
                case "put":
                    puts.append(asyncio.create_task(box.put(Note(len(puts)), number)))
                case "get" if all(task.done() for task in gets):  # one reader
                    gets.append(asyncio.create_task(box.get()))
                case "cancel put" if number < len(puts):
                    puts[-1 - number].cancel()
                case "cancel get" if gets:
                    gets[-1].cancel()
                case _:
                    for _ in range(number):
                        await asyncio.sleep(0)
        await settle()
        if gets:
            gets[-1].cancel()
        await settle()
        taken = [task.result().number for task in gets if not task.cancelled()]
        async with asyncio.timeout(5):
            while not all(task.done() for task in puts) or box.statistics()["data"]:
                taken.append((await box.get()).number)
                await settle()
        assert taken == [number for number, task in enumerate(puts) if not task.cancelled()]
        assert box.statistics() == {
            "control": 0,
            "data": 0,
            "data_bytes": 0,
            "peak_bytes": box.statistics()["peak_bytes"],
            "writers": 0,
        }

    run_in(asyncio.new_event_loop, work())
