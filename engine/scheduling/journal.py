"""What happened to a scheduler, call by call, so that a run can be repeated to the same tokens. Knows no time.

Only the order of calls and steps matters, so a journal of a run under load replays exactly, by hand, without load.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ...streams.event import Event
from ..plan import Plan, Result


class Entry(msgspec.Struct, frozen=True):
    """One call: the name of a scheduler method and its arguments; "step" is plan, run and commit."""

    call: str
    arguments: tuple[Any, ...] = ()


class Journal:
    """The calls of one scheduler, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def note(self, call: str, *arguments: Any) -> None:
        self.entries.append(Entry(call, arguments))


class Runs(Protocol):
    """What carries out plans: a language model."""

    def run(self, plan: Plan) -> Result: ...


def replay(journal: Journal, scheduler: Any, runner: Runs) -> list[tuple[int, Event]]:
    """Do it all again with a fresh scheduler and language model of the same sizes; returns the events."""
    events: list[tuple[int, Event]] = []
    for entry in journal.entries:
        if entry.call == "step":
            plan = scheduler.plan()
            if plan is not None:
                scheduler.commit(plan, runner.run(plan))
        else:
            getattr(scheduler, entry.call)(*entry.arguments)
        events += scheduler.events()
    return events
