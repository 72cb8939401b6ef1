"""What a stream tells its client. Plain data; no torch, no sockets.

Every event carries `number`, its place in the stream's events (1, 2, 3, ...; set when it is sent), and where they apply
media times in microseconds and places in the KV cache, so that a client can say what the model had seen when it spoke.
"""

from __future__ import annotations

import msgspec


class Seen(msgspec.Struct, frozen=True):
    """The newest span that a row could attend to.

    Its input number, its modality, and the media time where it starts and stops.
    """

    seq: int
    modality: str
    start_us: int | None
    stop_us: int | None


class Appended(msgspec.Struct, frozen=True, tag="appended"):
    """A span is in the KV cache: rows `[row, row + rows)`, from position `position` on."""

    seq: int
    modality: str
    start_us: int | None
    stop_us: int | None
    row: int
    rows: int
    position: int
    number: int = 0


class ReplyStarted(msgspec.Struct, frozen=True, tag="reply"):
    """A reply to input `seq` has begun. `held`: it stays open behind the model's end of it, until somebody ends it."""

    reply: int
    seq: int
    held: bool = False
    number: int = 0


class Token(msgspec.Struct, frozen=True, omit_defaults=True, tag="token"):
    """One token of a reply. `text` may be empty while a character or a stop string is still open.

    Where they were asked for, `logprob` is its log probability and `top_logprobs` are the likeliest tokens in its
    place, (id, text, log probability) each, the likeliest first: by the model's own distribution, before penalties,
    biases and filters.
    """

    reply: int
    index: int
    id: int
    text: str
    seen: Seen | None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, str, float], ...] = ()
    number: int = 0


class Resting(msgspec.Struct, frozen=True, tag="resting"):
    """A held reply has said what it has to say for now, `tokens` tokens in all. It goes on with what comes next."""

    reply: int
    tokens: int
    number: int = 0


class ReplyDone(msgspec.Struct, frozen=True, tag="done"):
    """A reply has ended: `reason` is "stop", "length", "interrupted", "overtaken" (a later question cut it while it
    spoke) or "error"; `tokens` is how many it keeps.

    `text` is what was still held back when it ended (usually empty).
    """

    reply: int
    reason: str
    tokens: int
    text: str = ""
    number: int = 0


class TranscriptRow(msgspec.Struct, frozen=True):
    """One run of rows of a transcript: what stands in the KV cache from `row` on. `positions` is (3, n)."""

    row: int
    ids: list[int]
    positions: list[list[int]]
    seen: Seen | None


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """Media that will never be seen by the model, and why: "late" (behind what came before it), "latest" (newer media
    took its place), "short" (too little sound for the model), "damaged" (broken packets), "full" (the stream holds no
    more).

    `count` is frames of video, or samples of sound at the model's rate; of what is damaged, packets of video; of what
    is "latest" or "full", pieces.
    """

    seq: int
    modality: str
    count: int
    start_us: int | None
    stop_us: int | None
    reason: str
    number: int = 0


class Credit(msgspec.Struct, frozen=True, tag="credit"):
    """How much more media may be sent now: bytes, and microseconds of media."""

    bytes: int
    media_us: int
    number: int = 0


class Held(msgspec.Struct, frozen=True, tag="held"):
    """Media that is decoded but not yet enough for a segment: lone frames and samples. A question flushes it."""

    frames: int
    samples: int
    number: int = 0


class Evicted(msgspec.Struct, frozen=True, tag="evicted"):
    """Rows `[row, row + rows)` have left the KV cache. Reserved: no stream has a window yet, so none is told."""

    row: int
    rows: int
    number: int = 0


class Error(msgspec.Struct, frozen=True, tag="error"):
    """Something was refused or failed.

    `fatal`: the stream has ended; else it can go on. `seq` names the input, if one.
    """

    code: str
    message: str
    seq: int | None = None
    fatal: bool = False
    number: int = 0


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """The stream has ended; always the last event.

    `reason`: "closed", "error", "slow reader", "engine stopped".
    """

    reason: str
    number: int = 0


Event = Appended | ReplyStarted | Token | Resting | ReplyDone | Dropped | Credit | Held | Evicted | Error | Closed
