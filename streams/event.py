"""What a stream tells its client. Plain data; no torch, no sockets.

`async for event in stream` gives the events of a stream in the order in which they happened. `Event` is any of them.
These fields have one meaning in all events:

number: the event's place among the events of its stream: 1, 2, 3, ... It is 0 until a client takes the event.
seq: the number of the input that the event is about, as `Stream.append` returns it.
reply: the number of the reply in its stream: 1, 2, 3, ...
modality: "image", "video", "audio", "unit" for sound inside a video, or "prompt" for media of the request's prompt.
start_us, stop_us: the media times at which the media starts and stops, in microseconds on the stream's clock. `None`
    if the media has no time.
row, rows: the place of the media in the stream's KV cache. It has the rows from `row` up to, and without, `row + rows`.
"""

from __future__ import annotations

import msgspec


class Seen(msgspec.Struct, frozen=True):
    """The newest piece of media that a token could attend to, by the plan of its step, never by a clock."""

    seq: int
    modality: str
    start_us: int | None
    stop_us: int | None


class Appended(msgspec.Struct, frozen=True, tag="appended"):
    """A piece of media is in the KV cache, and every later token can attend to it.

    position: the position of its first row in the model. Positions are not rows: the rows of a picture may share them.
    lag_us: how long it took, in microseconds, from when the media was handed in that completed the piece. `None` if the
        piece was in the cache before, for example before an interrupt, or came with the prompt.
    overdue_us: how long after its deadline it came, in microseconds. 0: it was in time (docs/glossary.md).
    """

    seq: int
    modality: str
    start_us: int | None
    stop_us: int | None
    row: int
    rows: int
    position: int
    lag_us: int | None = None
    overdue_us: int = 0
    number: int = 0


class MediaDecoded(msgspec.Struct, frozen=True, tag="decoded"):
    """The media of the request's prompt is decoded, and there is sound in it.

    sound_us: how long all of that sound lasts together, in microseconds.
    """

    seq: int
    sound_us: int
    number: int = 0


class ReplyStarted(msgspec.Struct, frozen=True, tag="reply"):
    """The reply to the question with the number `seq` has begun. The request's prompt has the number 1.

    held: the reply stays open when the model ends it, until somebody ends it or the media ends.
    """

    reply: int
    seq: int
    held: bool = False
    number: int = 0


class Token(msgspec.Struct, frozen=True, omit_defaults=True, tag="token"):
    """One token of a reply.

    index: its place in the reply, from 0.
    id: its number in the model's vocabulary.
    text: its words. Empty while a character is not complete or a stop string may still follow.
    seen: the newest media that the token could attend to. `None` before the first media.
    logprob: its log probability (natural logarithm), if `SamplingParams.logprobs` asks for it. It is the model's:
        before penalties, biases, temperature and filters.
    top_logprobs: the likeliest tokens in its place, the likeliest first, if they were asked for: (id, text, log
        probability) each.
    age_us: how old the newest media behind the token was, in microseconds: from when that media was handed in until the
        token was drawn. `None` if there is none, or if more than 16 pieces have come since.
    """

    reply: int
    index: int
    id: int
    text: str
    seen: Seen | None
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, str, float], ...] = ()
    age_us: int | None = None
    number: int = 0


class Resting(msgspec.Struct, frozen=True, tag="resting"):
    """A held reply has said what there is to say for now. It goes on with what comes next.

    tokens: how many tokens it has so far.
    """

    reply: int
    tokens: int
    number: int = 0


class ReplyDone(msgspec.Struct, frozen=True, tag="done"):
    """A reply has ended.

    reason: "stop" (the model, a stop string or a stop token ended it), "length" (it has `max_tokens`, or the stream is
        full), "interrupted", "overtaken" (a later question ended it while it spoke) or "error" (the stream failed, or
        the grammar of `SamplingParams.structured` had no way on: an `Error` event before it says why).
    tokens: how many tokens it keeps. Tokens after these were cut, also those that a client has read.
    text: words that follow its last token. They were held back because they could have become a stop string. Usually
        empty.
    cached: how many of the rows before the reply were not computed for this stream, because they were in the prefix
        cache when it began (docs/memory.md).
    since_us: media before this time had left the stream's window when the reply ended (docs/windows.md). `None` if no
        media had left, or if the stream ended before the reply.
    rows: how many rows of the stream came before the reply: its prompt, media included.
    """

    reply: int
    reason: str
    tokens: int
    text: str = ""
    cached: int = 0
    since_us: int | None = None
    rows: int = 0
    number: int = 0


class TranscriptRow(msgspec.Struct, frozen=True):
    """One run of rows of `Stream.transcript`: what the KV cache holds from `row` on.

    ids: the n token ids of the run. Each row of media has the id of its placeholder.
    positions: their positions, 3 lists of n numbers: time, height and width. In a model with one axis all 3 are equal.
    seen: the media that these rows are, or `None` for text.
    """

    row: int
    ids: list[int]
    positions: list[list[int]]
    seen: Seen | None


class Dropped(msgspec.Struct, frozen=True, tag="dropped"):
    """Media that the model will never see.

    count: how much: frames of video, or samples of sound at the model's rate. For the reasons "latest" and "full" it
        counts pieces, and for damaged video it counts packets.
    reason: "late" (older than what came before it, by more than `Request.lateness_us`), "latest" (newer media took its
        place), "short" (too little sound for the model), "damaged" (broken packets), "still" (nothing new to see or to
        hear: `Request.drop_still`), "rate" (video has its lower rate: `Request.video_fps_idle`), "silence" (nobody
        speaks: `Request.turn_detection`) or "full" (the stream holds no more).
    """

    seq: int
    modality: str
    count: int
    start_us: int | None
    stop_us: int | None
    reason: str
    number: int = 0


class Credit(msgspec.Struct, frozen=True, tag="credit"):
    """How much more media may be sent now. A stream without any media on its way has 32 MiB and 60 s.

    bytes: how many bytes. With the policy "block", `Stream.append` waits while an item is larger than this and earlier
        media is still on its way.
    media_us: how many microseconds of media.
    """

    bytes: int
    media_us: int
    number: int = 0


class Held(msgspec.Struct, frozen=True, tag="held"):
    """Media that is decoded but not yet enough for the model. The next media completes it, or a question flushes it.

    frames: frames that wait for a partner.
    samples: samples of sound, at the model's rate, that wait for the rest of their block.
    """

    frames: int
    samples: int
    number: int = 0


class Evicted(msgspec.Struct, frozen=True, tag="evicted"):
    """The oldest rows have left the stream's window: later tokens do not see them (`Request.window`).

    recalled: how many of these rows were words that stay on as text memory, or with what is pinned.
    start_us, stop_us: the media times of what left. `None` if no media with a time did.
    """

    row: int
    rows: int
    recalled: int = 0
    start_us: int | None = None
    stop_us: int | None = None
    number: int = 0


class SpeechStarted(msgspec.Struct, frozen=True, tag="speech_started"):
    """Somebody has begun to speak (`Request.turn_detection`).

    turn: the number of the turn that begins: 1, 2, 3, ...
    at_us: the media time from which on sound goes in: the speech, and what came just before it.
    detector: which one heard it, "silero" or "energy".
    """

    turn: int
    seq: int
    at_us: int
    detector: str
    number: int = 0


class SpeechStopped(msgspec.Struct, frozen=True, tag="speech_stopped"):
    """Nobody speaks any more. If the request says so, the stream asks for a reply, and `seq` is its question.

    turn: the number of the turn that ends.
    at_us: the media time up to which sound went in: the speech, and the silence that ended it.
    reason: "silence", "finished" (by what was said: `TurnDetection.semantic`), "gap" (the sound broke off), "end" (no
        more media will come, or nobody listens any more) or "idle" (nobody spoke for long: `TurnDetection.idle_ms`;
        there was no `SpeechStarted`).
    """

    turn: int
    seq: int
    at_us: int
    reason: str
    number: int = 0


class Error(msgspec.Struct, frozen=True, tag="error"):
    """Something was refused or failed.

    code: the stable name of the error, such as "media_damaged". docs/errors.md lists all of them.
    message: what was expected and what came, in one line.
    seq: the number of the input that was wrong, or `None` if the error is not about one input.
    fatal: the stream has ended. Otherwise it goes on without this input.
    """

    code: str
    message: str
    seq: int | None = None
    fatal: bool = False
    number: int = 0


class Usage(msgspec.Struct, frozen=True):
    """What a stream has cost, from when it was opened, forked or restored until it ended. A fork and a restored stream
    have accounts of their own, which begin empty. The sums over all streams are the engine's
    (`Engine.statistics()["usage"]`).

    rows: rows that were computed for it, each once: of words ("text": the tokens of replies and what the format and the
        template add are among them), and of media by modality.
    refed: rows that were computed once more: its pages had gone to other streams, or an interrupt moved media up.
    cached: rows with which it began that were in the prefix cache, and were not computed.
    tokens: tokens of its replies, also those that were cut later.
    encode_seconds: how long the towers worked for its media. Media that was encoded before costs nothing.
    step_seconds: its part of the time of the steps, by its share of the rows of each.
    dropped: media that the model did not see, by modality and reason, counted as `Dropped.count` does.
    """

    rows: dict[str, int] = {}
    refed: int = 0
    cached: int = 0
    tokens: int = 0
    encode_seconds: float = 0.0
    step_seconds: float = 0.0
    dropped: dict[str, dict[str, int]] = {}


class Closed(msgspec.Struct, frozen=True, tag="closed"):
    """The stream has ended. This is always the last event.

    reason: "closed" (by its client), "error", "slow reader" (its client left events unread) or "engine stopped".
    usage: what the stream has cost. `None` where nobody can tell: the engine has failed, or the connection is lost.
    """

    reason: str
    usage: Usage | None = None
    number: int = 0


Event = (
    Appended
    | MediaDecoded
    | ReplyStarted
    | Token
    | Resting
    | ReplyDone
    | Dropped
    | Credit
    | Held
    | Evicted
    | SpeechStarted
    | SpeechStopped
    | Error
    | Closed
)
