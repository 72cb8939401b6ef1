"""Streams that are copied to go on elsewhere: the pages of a copy go to host memory with the next step, and then it is
ready. Pages and numbers only.
"""

from __future__ import annotations

import msgspec

from ..command import Freeze
from ..conversation.freezing import forms, freeze, named
from ..conversation.kept import Kept
from ..conversation.state import StreamState
from ..conversation.twins import copy as copied
from ..frozen import Snapshot
from ..plan import Changes, Plan, Result, StateMove


class Freezing:
    """The copies of one scheduler."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._copies: dict[int, tuple[Freeze, StreamState]] = {}
        self._new: list[int] = []  # whose pages are not in host memory yet
        self._ready: list[tuple[Freeze, StreamState | None]] = []

    @property
    def copies(self) -> list[StreamState]:
        """All that hold something."""
        return [copy for _, copy in self._copies.values()]

    def freeze(self, stream: StreamState, command: Freeze) -> None:
        """Copy a stream as it is. Embeddings of rows that have been fed are left out, so the copy can only be moved
        whole, and its reply can be cut only behind media that was spliced in."""
        copy = copied(stream, command.twin, [0, 0, 0], Changes())
        self._kept.add(copy.laid)
        self._kept.waits(copy.inputs)
        while copy.kept_from < copy.spare:
            self._kept.remove(copy.let_go())
        self._copies[command.twin] = command, copy
        if copy.away or copy.pages:
            self._new.append(command.twin)
            if copy.carried is not None:
                stream.changes.states.append(StateMove(command.twin, copy.carried.entries, None))
        else:
            self._ready.append((command, copy))

    def moves(self) -> tuple[list[tuple[int, list[int]]], list[tuple[int, int]]]:
        """What the next step does first: pages that are saved, and host copies that a twin has as well."""
        saves, twins = [], []
        for twin in self._new:
            command, copy = self._copies[twin]
            if copy.away:
                twins.append((command.stream, twin))
            else:
                saves.append((twin, copy.save()))
        return saves, twins

    def commit(self, plan: Plan, result: Result) -> None:
        """A step is done: copies that were new before it are ready."""
        moved = {twin for twin, _ in plan.saves} | {twin for _, twin in plan.twins}
        for twin in [twin for twin in self._new if twin in moved]:
            self._new.remove(twin)
            command, copy = self._copies[twin]
            self._ready.append((command, None if twin in result.failed else copy))

    def ready(self) -> list[tuple[Freeze, StreamState | None]]:
        """Copies whose pages are in host memory since the last call, and None where memory ran out. Nothing changes
        them any more, and they are kept there until `let_go`."""
        ready, self._ready = self._ready, []
        return ready

    def let_go(self, twin: int) -> None:
        """The copy has been taken, or there is none."""
        if twin in self._copies:
            _, copy = self._copies.pop(twin)
            self._kept.remove(copy.laid)
            self._kept.acted(copy.inputs)


def snapshot(command: Freeze, copy: StreamState) -> Snapshot:
    """A copy that is ready, as plain data without its rows. It takes some 15 microseconds a run of rows."""
    frozen = msgspec.structs.replace(
        command.frozen,
        format=copy.layout.format.name,
        why=copy.why,
        state=freeze(copy),
        entries=sorted(named(copy)),
        pages=copy.away,
        page_tokens=copy.table.pool.page_tokens,
        structured=forms(copy),
        adapter="" if copy.wears is None else copy.wears.fingerprint,
    )
    return Snapshot(command.stream, command.twin, frozen)
