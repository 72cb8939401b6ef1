"""What may be asked of the scheduler: one tagged union of plain data.

`Scheduler.apply` carries a command out, between two steps; there is no other way to change a stream's life. Actors pass
commands on as they are, and a journal stores them, so that a run can be repeated.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from ..streams.event import Error
from ..streams.requests.request import Request, SamplingParams
from .frozen import Frozen
from .plan import Wears
from .span import Prompt, Span

# Inputs of a client. `seq` numbers them in the order in which they act. `done`: no spans will come for it. `event` is
# the event of the format's table (`streams/format.py`). `at` and `reply`: the client had taken reply number `reply` up
# to its token `at` when it sent this; None where no reply ran.


class MediaInput(msgspec.Struct, frozen=True, tag="media"):
    """Media, whose spans follow."""

    event: ClassVar[str] = "media"
    seq: int
    done: bool = False


class TextInput(msgspec.Struct, frozen=True, tag="text"):
    """Words for the open user turn."""

    event: ClassVar[str] = "text"
    seq: int
    text: str
    done: bool = True
    at: int | None = None
    reply: int | None = None


class Question(msgspec.Struct, frozen=True, tag="ask"):
    """A question: a reply to it begins. `despite`: also where all media before it came to nothing. Without `params` the
    request's are taken. `turn`: what was said in this turn of the user is the question; 0: it is one of its own."""

    event: ClassVar[str] = "ask"
    seq: int
    text: str = ""
    params: SamplingParams | None = None
    done: bool = True
    at: int | None = None
    reply: int | None = None
    despite: bool = False
    turn: int = 0


class MediaEnd(msgspec.Struct, frozen=True, tag="end"):
    """No more media will come."""

    event: ClassVar[str] = "end"
    seq: int
    done: bool = True


class PromptInput(msgspec.Struct, frozen=True, tag="prompt"):
    """The request's own prompt, which `LaidOut` brings: a reply to it begins."""

    event: ClassVar[str] = "prompt"
    seq: int
    params: SamplingParams
    done: bool = False


Input = MediaInput | TextInput | Question | MediaEnd | PromptInput


# Commands.


class Open(msgspec.Struct, frozen=True, tag=True):
    """A stream begins. `wears`: the adapter that the request names. Raises InputError where it is refused."""

    stream: int
    request: Request
    wears: Wears | None = None


class Back(msgspec.Struct, frozen=True):
    """A place in the past of a stream: after input `seq`, or where media up to `media_us` was in it."""

    seq: int | None = None
    media_us: int | None = None


class Fork(msgspec.Struct, frozen=True, tag=True):
    """Stream `twin` begins as a copy of `stream`, with its inputs before number `before`, none of which is on its way.

    With `again` the twin goes back to the end of the request's prompt and begins the reply to it again; with `back` it
    goes back to that place. Raises InputError where it is refused.
    """

    stream: int
    twin: int
    before: int
    again: SamplingParams | None = None
    back: Back | None = None


class Freeze(msgspec.Struct, frozen=True, tag=True):
    """Copy a stream as it is, under the number `twin`, so that it can go on elsewhere. `frozen`: what its client knows,
    and what decode and encode hold."""

    stream: int
    twin: int
    frozen: Frozen


class Unfreeze(msgspec.Struct, frozen=True, tag=True):
    """The copy has been taken: let go of it."""

    twin: int


class Thaw(msgspec.Struct, frozen=True, tag=True):
    """A stream begins as it was frozen. Its pages are in host memory, and its embeddings in the span store, under their
    numbers plus `base`. `wears` as in `Open`. Raises InputError where it is refused."""

    stream: int
    frozen: Frozen
    base: int
    wears: Wears | None = None


class Accept(msgspec.Struct, frozen=True, tag=True):
    """The next input of a stream."""

    stream: int
    input: Input


class Spans(msgspec.Struct, frozen=True, tag=True, eq=False):
    """Encoded segments of inputs that were accepted."""

    stream: int
    spans: list[Span]


class LaidOut(msgspec.Struct, frozen=True, tag=True, eq=False):
    """The request's own prompt, input `seq`, as the model's processor lays it out."""

    stream: int
    seq: int
    prompt: Prompt


class Resolved(msgspec.Struct, frozen=True, tag=True):
    """No further spans will come for input `seq`."""

    stream: int
    seq: int


class Refuse(msgspec.Struct, frozen=True, tag=True):
    """Something of input `error.seq` could not be decoded or encoded, as its client has been told."""

    stream: int
    error: Error


class Interrupt(msgspec.Struct, frozen=True, tag=True):
    """End the running reply after its token `at` (None: its last), and keep its KV up to there.

    It acts only where that reply answers an input up to number `until` (None: whichever runs). `at` counts tokens of
    reply number `reply` (None: of the one that runs); of another one its client had taken none. Where no reply runs,
    the first question up to `until` that waits is cut as soon as its reply begins. `turn`: somebody has begun to speak,
    in turn number `turn` of the stream's user: turns before it ask for no reply any more, and one that answers this
    turn or a later one goes on.
    """

    stream: int
    until: int | None = None
    reply: int | None = None
    at: int | None = None
    turn: int | None = None


class Hurry(msgspec.Struct, frozen=True, tag=True):
    """Question `seq` no longer waits for media before it that is still being decoded or encoded."""

    stream: int
    seq: int


class Park(msgspec.Struct, frozen=True, tag=True):
    """The client of a stream does not read: nothing is fed. Or it reads again."""

    stream: int
    parked: bool


class Spelt(msgspec.Struct, frozen=True, tag=True):
    """The ids of a long text that a stream waits for; None where the tokenizer refuses it."""

    stream: int
    text: str
    behind: bool
    ids: list[int] | None


class Close(msgspec.Struct, frozen=True, tag=True):
    """A stream ends, and frees what it holds.

    A reply that runs ends with it, of which no event tells, and events that nobody has taken are lost: who closes a
    stream takes them before, and tells its client of the end.
    """

    stream: int
    reason: str


class AppendRows(msgspec.Struct, frozen=True, tag=True):
    """How many rows a step may append while some reply decodes, at most what the configuration says."""

    rows: int


class GuessCost(msgspec.Struct, frozen=True, tag=True):
    """What one guessed token adds to a step, as a share of the time of one without. It holds until the next one."""

    share: float


class Yield(msgspec.Struct, frozen=True, tag=True):
    """Media of these streams is overdue: where it can, a reply of theirs waits for it. It holds until the next one."""

    streams: list[int]


class Due(msgspec.Struct, frozen=True, tag=True):
    """Media of these streams is due, the earliest deadline first: in this order their rows go into a step, before those
    of other streams. It holds until the next one."""

    streams: list[int]


Command = (
    Open
    | Fork
    | Freeze
    | Unfreeze
    | Thaw
    | Accept
    | Spans
    | LaidOut
    | Resolved
    | Refuse
    | Interrupt
    | Hurry
    | Park
    | Spelt
    | Close
    | AppendRows
    | GuessCost
    | Yield
    | Due
)
