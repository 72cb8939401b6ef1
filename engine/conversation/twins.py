"""A stream once more, as it is: a twin that goes its own way from here. It takes no pages and asks for no step."""

from __future__ import annotations

from collections import deque

import msgspec

from ..plan import Changes, StateMove
from .rules import READER, What
from .state import StreamState


def fork(stream: StreamState, id: int, slots: list[int], before: int) -> StreamState:
    """The same stream once more, as it is here, with the inputs before `before` that still wait. `slots`: the numbers
    of the twin's page tables, the window's first."""
    twin = copy(stream, id, slots, stream.changes)
    twin.why = f"fork of stream {stream.id}"
    twin.inputs = deque(input for input in twin.inputs if input.seq < before)
    if not twin.away:
        twin.show_tables()
    if stream.carried is not None:
        twin.carried = stream.carried.copy(twin.slot)
        stream.changes.states.append(StateMove(id, stream.carried.entries, twin.carried.entries))
    return twin


def copy(stream: StreamState, id: int, slots: list[int], changes: Changes) -> StreamState:
    """The same stream once more, of which the runner does not know; `changes` are those of its tables."""
    twin = object.__new__(StreamState)
    twin.__dict__.update(stream.__dict__)
    twin.id, twin.slots, twin.changes = id, slots, changes
    twin.layout, twin.keys, twin.marks = stream.layout.copy(), stream.keys.copy(), stream.marks.copy()
    twin.table, twin.turns = stream.table.fork(), list(stream.turns)
    twin.fronts = None if stream.fronts is None else stream.fronts.copy(slots[1:])
    twin.carried = None if stream.carried is None else stream.carried.copy()
    twin.inputs = deque(input.copy() for input in stream.inputs)
    twin.laid, twin.starts = list(stream.laid), list(stream.starts)
    twin.reply = None if stream.reply is None else stream.reply.copy()
    twin.ready = None if stream.ready is None else dict(stream.ready)
    twin.losses = msgspec.structs.replace(stream.losses)
    twin.reader = READER[stream.reader, What.FORKED]
    twin.events = []
    return twin
