"""What the actors say to each other. Frozen structs; no callables, futures, locks or models, so each can be encoded.

Commands (`engine/command.py`) go to schedule as they are; they are marked with a star.

client    -> decode     Open*, Fork*, Forget (control), Take, Flush, Hear, Converse (data)
client    -> decode     Freeze*, Thaw* (control)
client    -> schedule   Open*, Accept*, Fork*, Thaw*, Interrupt*, Hurry*, Park*, Close*, Transcribe (control)
client    -> generate   Bring (control)
decode    -> encode     Segments, Converse (data), Open*, Fork*, Freeze*, Thaw*, Forget (control)
encode    -> schedule   Freeze* (control)
decode    -> schedule   Resolved*, Close*, Notice (control)
encode    -> decode     Encoded (control)
encode    -> schedule   Spans*, LaidOut*, Resolved*, Announce, Failed, Notice, Spent (control)
schedule  -> encode     Grant, Discard (control)
schedule  -> generate   Plan, Snapshot; generate -> schedule   Result (its reply), Snapshot, Broken
schedule  -> client     Tell
words     -> schedule   Spelt* (control)
schedule  -> schedule   Rouse (its own timer)
encode    -> encode     TryAgain (its own timer)
"""

from __future__ import annotations

import msgspec

from ..engine.command import Command, Fork, Freeze, Open, Thaw
from ..engine.frozen import Snapshot
from ..engine.plan import Plan, Result
from ..streams.event import Event, TranscriptRow
from ..streams.item import Item
from ..streams.requests.prompt import Content
from ..streams.requests.turns import TurnDetection
from ..streams.segment import Sifted
from .lookback import Clip


class Take(msgspec.Struct, frozen=True, tag=True, eq=False):
    """An item of media, or media from before once more, input `seq` of its stream, which was handed in at `arrived_us`.
    `asked`: a question waited for its reply then, or a reply spoke.

    Here and below that is in microseconds on the clock of `time.monotonic`.
    """

    stream: int
    seq: int
    item: Item | Clip
    arrived_us: int
    asked: bool = False


class Flush(msgspec.Struct, frozen=True, tag=True):
    """Words, a question or the end of the media: what is held goes out as segments of input `seq`. `ends`: no more
    media will come."""

    stream: int
    seq: int
    arrived_us: int
    ends: bool = False


class Hear(msgspec.Struct, frozen=True, tag=True):
    """From input `seq` on, listen for speech in this way, or not any more."""

    stream: int
    seq: int
    turns: TurnDetection | None
    arrived_us: int


class Converse(msgspec.Struct, frozen=True, tag=True, eq=False):
    """A whole prompt for the model's own processor, input `seq` of its stream."""

    stream: int
    seq: int
    content: Content


class Forget(msgspec.Struct, frozen=True, tag=True):
    """A stream has ended: let go of what is kept for it."""

    stream: int


class Segments(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Segments of one stream, in order. `last`: input `seq` has no more. `arrived_us`: when that was handed in; 0
    without segments."""

    stream: int
    seq: int
    segments: list[Sifted]
    last: bool
    arrived_us: int = 0


class Announce(msgspec.Struct, frozen=True, tag=True):
    """Segments of input `seq` wait to be encoded: (index, rows, media time at which it stops, modality, start) each.
    `clip`: they are of media that came once before."""

    stream: int
    seq: int
    sizes: list[tuple[int, int, int | None, str, int | None]]
    arrived_us: int
    clip: bool = False


class Grant(msgspec.Struct, frozen=True, tag=True):
    """Segments that may be encoded now: (stream, seq, index)."""

    segments: list[tuple[int, int, int]]


class Discard(msgspec.Struct, frozen=True, tag=True):
    """Segments that will not be encoded: (stream, seq, index). `passes`: their time passes all the same."""

    segments: list[tuple[int, int, int]]
    passes: bool = False


class Encoded(msgspec.Struct, frozen=True, tag=True):
    """So many bytes of a stream's segments have been encoded or let go of."""

    stream: int
    bytes: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """Segment `index` of input `seq` could not be encoded; the stream goes on without it."""

    stream: int
    seq: int
    index: int
    code: str
    message: str


class Notice(msgspec.Struct, frozen=True, tag=True):
    """An event that decode or encode has to tell."""

    stream: int
    event: Event


class Spent(msgspec.Struct, frozen=True, tag=True):
    """The towers have worked so many seconds for each of these streams: (stream, seconds)."""

    shares: list[tuple[int, float]]


class Transcribe(msgspec.Struct, frozen=True, tag=True):
    """Tell what the cache holds of a stream; `ticket` comes back with it."""

    stream: int
    ticket: int


class Rouse(msgspec.Struct, frozen=True, tag=True):
    """A reply has waited long enough for media that is overdue: see what there is to do."""


class TryAgain(msgspec.Struct, frozen=True, tag=True):
    """An encoder in another process was away: see whether it is there again."""


class Bring(msgspec.Struct, frozen=True, tag=True, eq=False):
    """The rows of a stream that is thawed, which steps will ask for."""

    stream: int
    snapshot: Snapshot
    base: int


class Broken(msgspec.Struct, frozen=True, tag=True):
    """A step failed: the engine cannot go on."""

    message: str


class Tell(msgspec.Struct, frozen=True, tag=True):
    """Events of one stream for its client.

    `opened`: the format in force and why. `resolved`: inputs that are neither in decode nor in encode any more.
    `running`: the reply that a fork goes on with: its number, its input, how many tokens it has. `snapshots`: answers
    to `Freeze`. `transcripts`: answers to `Transcribe`.
    """

    stream: int
    events: list[Event]
    opened: tuple[str, str] | None = None
    resolved: list[int] = []
    running: tuple[int, int, int] | None = None
    snapshots: list[Snapshot] = []
    transcripts: list[tuple[int, list[TranscriptRow]]] = []


DecodeMessage = Open | Fork | Freeze | Thaw | Forget | Take | Flush | Hear | Converse | Encoded
EncodeMessage = Segments | Converse | Open | Fork | Freeze | Thaw | Forget | Grant | Discard | TryAgain
ScheduleMessage = Command | Snapshot | Transcribe | Announce | Failed | Notice | Spent | Result | Rouse | Broken
GenerateMessage = Plan | Snapshot | Bring
Message = DecodeMessage | EncodeMessage | ScheduleMessage | GenerateMessage | Tell
