"""Formats: how events become turns of the model's chat template. Pure tables; no ids, no models.

A stream's conversation is in one of three states. For each state and event the table says which wrappers are fed and
which state follows; the engine's adapter turns wrapper names into token ids.

    CLOSED          no turn is open (the start, or after a finished reply)
    USER            a user turn is open; media and text go into it
    ASSISTANT       an assistant turn is open; a reply runs or is held open

An event that the table has no row for waits until the state changes (`WAIT`).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    CLOSED = "closed"
    USER = "user"
    ASSISTANT = "assistant"


class Transition(msgspec.Struct, frozen=True):
    """What an event does: wrappers fed before its own rows, wrappers fed after them, and the state that follows."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    state: State


OPEN_USER = ("user_start",)
TO_ASSISTANT = ("user_end", "assistant_start")

# What every format does outside a reply.
_TURNS: dict[tuple[State, str], Transition] = {
    (State.CLOSED, "media"): Transition(OPEN_USER, (), State.USER),
    (State.CLOSED, "text"): Transition(OPEN_USER, (), State.USER),
    (State.CLOSED, "ask"): Transition(OPEN_USER, TO_ASSISTANT, State.ASSISTANT),
    (State.USER, "media"): Transition((), (), State.USER),
    (State.USER, "text"): Transition((), (), State.USER),
    (State.USER, "ask"): Transition((), TO_ASSISTANT, State.ASSISTANT),
    (State.ASSISTANT, "end"): Transition(("assistant_end",), (), State.CLOSED),
}

# In `live` a reply goes on with what comes: media right after its newest token, text as a turn of its own.
_LIVE = _TURNS | {
    (State.ASSISTANT, "media"): Transition((), (), State.ASSISTANT),
    (State.ASSISTANT, "text"): Transition(("assistant_end", "user_start"), TO_ASSISTANT, State.ASSISTANT),
    (State.ASSISTANT, "ask"): Transition(("assistant_end", "user_start"), TO_ASSISTANT, State.ASSISTANT),
}


class Format(msgspec.Struct, frozen=True):
    """One format.

    `table` as above. `holds`: a reply stays open when the model ends it while media is still expected. `cuts`: these
    events end a running reply at the last token that was taken, and keep its KV (media does not: a camera would cut
    every reply). `rests`: whatever comes during a reply waits until the reply rests, and then goes in piece by piece,
    with a reply after each. `unit_us`: media that ends in the same stretch of so much media time is one piece, and a
    reply rests after so many tokens as the request allows for it; 0: each span is a piece.
    """

    name: str
    table: dict[tuple[State, str], Transition]
    holds: bool = False
    cuts: frozenset[str] = frozenset()
    rests: bool = False
    unit_us: int = 0

    def step(self, state: State, event: str) -> Transition | None:
        """The row for `event` ("media", "text", "ask", "end") in `state`; None where the event has to wait."""
        return self.table.get((state, event))

    def unit(self, stop_us: int | None) -> int | None:
        """The number of the unit in which media ends at `stop_us`; None where it is a piece of its own."""
        if stop_us is None or not self.unit_us:
            return None
        return max(0, stop_us - 1) // self.unit_us


TURNS = Format("turns", _TURNS)
LIVE = Format("live", _LIVE, holds=True)
INTERRUPT = Format("interrupt", _TURNS, cuts=frozenset({"text", "ask"}))
PER_FRAME = Format("per-frame", _LIVE, holds=True, rests=True)
UNITS = Format("units", _LIVE, holds=True, rests=True, unit_us=1_000_000)

BY_NAME = {format.name: format for format in (TURNS, LIVE, INTERRUPT, PER_FRAME, UNITS)}


def choose(name: str, live_trained: bool) -> tuple[Format, str]:
    """The format in force and why, in a few words, for a name of `Request.format`."""
    if name != "auto":
        return BY_NAME[name], "asked for"
    if live_trained:
        return LIVE, "auto: the model is trained to speak while media arrives"
    return TURNS, "auto: the model does not claim training for live"
