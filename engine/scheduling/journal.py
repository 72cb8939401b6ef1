"""What happened to a scheduler, so that a run can be repeated to the same tokens. Knows no time.

Embeddings are entries of their own, before the command that names them: the span store that a run begins with is empty.

Only the order of commands and steps matters. So a journal of a run under load replays exactly, by hand, without load.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from ...errors import PenstockError
from ...streams.event import Event
from ..command import Command, LaidOut, Spans, Thaw
from ..embeddings import Embeddings
from ..plan import Plan, Result
from ..span import Rows, Span, Stored


class Planned(msgspec.Struct, frozen=True, tag="planned"):
    """Step `number` was planned; its `Result` follows where it came to its end."""

    number: int


class Made(msgspec.Struct, frozen=True, tag="made", eq=False):
    """The encoder has handed out entry `id` of the span store."""

    id: int
    embeds: Embeddings


Entry = Command | Planned | Result | Made


class Notes(Protocol):
    """What keeps entries: in memory or in a file."""

    def note(self, entry: Entry) -> None: ...


class Journal:
    """The entries of one scheduler, in order, in memory. `spans`: the store of its runner."""

    def __init__(self, spans: Holds) -> None:
        self.entries: list[Entry] = []
        self._spans = spans

    def note(self, entry: Entry) -> None:
        self.entries += [*made(entry, self._spans), entry]


class Holds(Protocol):
    """A span store."""

    def read(self, stored: Stored) -> Embeddings: ...

    def add(self, id: int, embeds: Embeddings) -> None: ...


def made(entry: Entry, spans: Holds) -> list[Made]:
    """What has to be noted before an entry: the embeddings that came with it, in host memory."""
    content: Sequence[Span | Rows] = []
    if isinstance(entry, Spans):
        content = entry.spans
    elif isinstance(entry, LaidOut):
        content = entry.prompt.rows
    named = [one.stored for one in content if one.stored is not None]
    return [Made(stored.id, spans.read(stored)) for stored in named]


class Repeats(Protocol):
    """A scheduler."""

    def apply(self, command: Command) -> None: ...

    def plan(self) -> Plan | None: ...

    def commit(self, plan: Plan, result: Result) -> object: ...

    def events(self) -> list[tuple[int, Event]]: ...


class Runs(Protocol):
    """What carries out plans: a language model. `spans` is its store."""

    @property
    def spans(self) -> Holds: ...

    def run(self, plan: Plan) -> Result: ...


class Again(msgspec.Struct, frozen=True):
    """One entry done once more: what it was, what its step gave now (None: it was no result), and the events."""

    entry: Entry
    result: Result | None
    events: list[tuple[int, Event]]


def replay(entries: Iterable[Entry], scheduler: Repeats, runner: Runs) -> Iterator[Again]:
    """Do it all again with a fresh scheduler and language model of the same sizes.

    Each step goes on with the tokens that it gives now. Raises PenstockError where there is nothing to do at a step, or
    where a stream begins with a snapshot, whose rows in the cache are not in a record.
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
            case Thaw():
                raise PenstockError("replay: expected streams that begin in the record, got one from a snapshot")
            case Made(id, embeds):
                runner.spans.add(id, embeds)
            case command:
                try:
                    scheduler.apply(command)
                except PenstockError:
                    pass  # as then: its client was refused
        yield Again(entry, result, scheduler.events())
