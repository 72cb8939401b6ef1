"""What a client may ask of its session, what it is answered, and what the session has done on an engine. Plain data.

Doors make `Command`s of their clients' messages and messages of `Answer`s. `Work` is for whoever holds the engine.
Knows no wire: `ref` is the door's own mark on a command, and comes back with the answer to it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..streams.event import Event
from ..streams.item import Item
from ..streams.requests.request import Request, SamplingParams
from ..streams.requests.turns import TurnDetection


# ---- From a client ---------------------------------------------------------------------------------------------------
class _Command(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    stream: str  # The name that the client gave it.
    ref: Any = None
    size: int = 0  # Bytes of the message that it came in. They count as waiting until it is carried out.


class OpenStream(_Command, frozen=True, kw_only=True, eq=False):
    """Open a stream under a name that is free. Answered with `StreamOpened`."""

    request: Request = Request()


class ForkStream(_Command, frozen=True, kw_only=True, eq=False):
    """Open the stream `copy` as a copy of this one, as `Stream.fork` does. Answered with `StreamOpened`."""

    copy: str
    again: SamplingParams | None = None
    back_to: int | None = None
    back_to_us: int | None = None


class RestoreStream(_Command, frozen=True, kw_only=True, eq=False):
    """Open a stream that goes on as the snapshot of this name has it. Answered with `StreamOpened`."""

    name: str


class SnapshotStream(_Command, frozen=True, kw_only=True, eq=False):
    """Write the stream to the snapshot of this name."""

    name: str


class AppendItem(_Command, frozen=True, kw_only=True, eq=False):
    """Append an item to the stream."""

    item: Item


class AskQuestion(_Command, frozen=True, kw_only=True, eq=False):
    """Ask for a reply, with the options of `Stream.ask`. Answered when the reply begins."""

    question: str = ""
    params: SamplingParams | None = None
    wait_ms: int | None = None
    hold: bool | None = None
    ignore_failed: bool = False
    lookback: float | None = None


class InterruptReply(_Command, frozen=True, kw_only=True, eq=False):
    """Cut the running reply after token `at`; None: after the last token that was passed on."""

    at: int | None = None


class Listen(_Command, frozen=True, kw_only=True, eq=False):
    """Listen for speech in this way from here on; None: no longer."""

    turn_detection: TurnDetection | None


class EndMedia(_Command, frozen=True, kw_only=True, eq=False):
    """No more media will come."""


class CloseStream(_Command, frozen=True, kw_only=True, eq=False):
    """End the stream at once. Answered with the event `Closed`."""


class KeepConnection(msgspec.Struct, frozen=True, kw_only=True):
    """Keep the streams for a while if the connection is lost; `closed`: also if its client closes it. Answered with
    `ConnectionKept`."""

    closed: bool = False


class ResumeConnection(msgspec.Struct, frozen=True, kw_only=True):
    """Go on with the kept connection of this token, of which the client has `received` so many messages. Answered with
    `ConnectionResumed`, and by the messages that it has not received. `terms`: what its client expects to hold, for the
    door of that connection."""

    token: str
    received: int
    terms: Any = None


# What is about the connection itself; its streams know nothing of it.
Moving = KeepConnection | ResumeConnection
# Those that an open stream carries out.
Carried = ForkStream | SnapshotStream | AppendItem | AskQuestion | InterruptReply | Listen | EndMedia | CloseStream
Command = OpenStream | RestoreStream | Carried


# ---- For the client --------------------------------------------------------------------------------------------------
class StreamFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of a stream that it has opened, as in `Stream`."""

    id: int
    format: str
    why: str
    trained: bool


class StreamOpened(msgspec.Struct, frozen=True, kw_only=True):
    """The stream is open; `source` is the stream that it is a copy of, None where it is new."""

    stream: str
    ref: Any
    facts: StreamFacts
    source: str | None = None


class CarriedOut(msgspec.Struct, frozen=True, kw_only=True):
    """A command was carried out. `seq` numbers an input of the stream; `reply` is the reply to a question."""

    stream: str
    ref: Any
    seq: int | None = None
    reply: int | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A command, or what a client sent in place of one, came to nothing.

    `stream` None: no stream is meant. `path` is the place in the message that was wrong, as its door writes it.
    `fatal`: the stream has ended or was never opened. `message` never holds what only the server's log may say.
    """

    stream: str | None
    ref: Any
    code: str
    message: str
    path: str | None = None
    fatal: bool = False


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream."""

    stream: str
    event: Event


class ConnectionKept(msgspec.Struct, frozen=True, kw_only=True):
    """The connection is kept under this token for so many seconds after it was lost. From here on both sides count the
    messages that they receive."""

    token: str
    seconds: float


class ConnectionResumed(msgspec.Struct, frozen=True, kw_only=True):
    """The connection goes on here; the server has `received` so many messages of its client. A door that does not go on
    with these `terms` raises HangUp, which ends the newer WebSocket only."""

    received: int
    terms: Any = None


class GoingDown(msgspec.Struct, frozen=True, kw_only=True):
    """The server goes down: it takes nothing new, and what runs has as long as the configuration says."""


Answer = StreamOpened | CarriedOut | Refused | StreamEvent | ConnectionKept | ConnectionResumed | GoingDown


# ---- For whoever holds the engine ------------------------------------------------------------------------------------
class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Open stream number `channel` on the engine, as new or as a snapshot has it; report `opened` or `failed`."""

    job: int
    channel: int
    command: OpenStream | RestoreStream


class Carry(msgspec.Struct, frozen=True, kw_only=True):
    """Carry out a command on stream number `channel`; report `done`, `failed`, or for a fork `opened`.

    `copy` is the number of the stream that a fork makes.
    """

    job: int
    channel: int
    command: Carried
    copy: int = 0


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody wants the result of this job any more."""

    job: int


class StopMedia(msgspec.Struct, frozen=True, kw_only=True):
    """Tell stream number `channel` that no more media will come. Nothing is reported."""

    channel: int


class Shut(msgspec.Struct, frozen=True, kw_only=True):
    """Close stream number `channel`. Nothing is reported but its own events."""

    channel: int


Work = Begin | Carry | Cancel | StopMedia | Shut
Action = Answer | Work
