"""What happened to a scheduler, so that a run can be repeated to the same tokens. Knows no time.

Only the order of commands and steps matters. So a journal of a run under load replays exactly, by hand, without load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from ...errors import PenstockError
from ...streams.event import Event
from ..command import Command
from ..plan import Plan, Result


class Planned(msgspec.Struct, frozen=True, tag="planned"):
    """Step `number` was planned; its `Result` follows where it came to its end."""

    number: int


Entry = Command | Planned | Result


class Notes(Protocol):
    """What keeps entries: in memory or in a file."""

    def note(self, entry: Entry) -> None: ...


class Journal:
    """The entries of one scheduler, in order, in memory."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def note(self, entry: Entry) -> None:
        self.entries.append(entry)


class Repeats(Protocol):
    """A scheduler."""

    def apply(self, command: Command) -> None: ...

    def plan(self) -> Plan | None: ...

    def commit(self, plan: Plan, result: Result) -> object: ...

    def events(self) -> list[tuple[int, Event]]: ...


class Runs(Protocol):
    """What carries out plans: a language model."""

    def run(self, plan: Plan) -> Result: ...


class Again(msgspec.Struct, frozen=True):
    """One entry done once more: what it was, what its step gave now (None: it was no result), and the events."""

    entry: Entry
    result: Result | None
    events: list[tuple[int, Event]]


def replay(entries: Iterable[Entry], scheduler: Repeats, runner: Runs) -> Iterator[Again]:
    """Do it all again with a fresh scheduler and language model of the same sizes.

    Each step goes on with the tokens that it gives now. Raises PenstockError where there is nothing to do at a step.
    """
    step: tuple[Plan, Result] | None = None
    for entry in entries:
        result = None
        match entry:
            case Planned(number):
                plan = scheduler.plan()
                if plan is None:
                    raise PenstockError(f"replay: expected something to do in step {number}, got nothing")
                step = plan, runner.run(plan)
            case Result():
                assert step is not None, "a result comes after its plan"
                result = step[1]
                scheduler.commit(*step)
            case command:
                try:
                    scheduler.apply(command)
                except PenstockError:
                    pass  # as then: its client was refused
        yield Again(entry, result, scheduler.events())
