"""The client's side of one stream. In: calls of its client, `Tell` messages. Out: messages to decode and schedule,
events. It knows no segments, spans or pages."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import msgspec

from ..engine.command import Accept, Hurry, Input, Interrupt, MediaEnd, MediaInput, Park, Question, TextInput
from ..engine.frozen import Frozen, Snapshot
from ..errors import InputError, PenstockError, StreamClosedError, error_of
from ..streams import event as events
from ..streams.format import BY_NAME
from ..streams.item import AudioChunk, Item, Text, VideoFrame
from ..streams.requests.request import Request, SamplingParams
from ..streams.requests.turns import TurnDetection
from . import clock
from .answers import Answers, refuse, settle
from .inputs import check_item, check_question, check_text, check_turns, item_bytes, own_copy, place_of
from .lookback import Clip
from .messages import Tell, Transcribe
from .on_way import OnWay
from .order import CallOrder
from .outbox import Outbox, ReaderWatch
from .ports import Host
from .reply import Reply
from .talk import Talk

__all__ = ("Reply", "Stream")


class Stream(Talk[Reply]):
    """One live conversation. `Engine.stream` makes one; used as an async context manager, it is closed at the end.
    Several tasks of one event loop may use it. Cancelling a call leaves the stream usable: an input is in or it is not.
    Once the stream has ended, calls raise StreamClosedError with the reason.

    id, request: its number in the engine; what it was opened with.
    format, why, trained: the format in force; why it was chosen; whether the model claims training for `live`.
    reply: the reply that runs, or `None`.
    """

    def __init__(
        self, engine: Host, id: int, request: Request, begun: Stream | Frozen | None = None, prompt: int | None = None
    ) -> None:
        """`begun`: the stream that this one is a copy of, or what was known of one that goes on here. `prompt`: the
        number of the input that is the request's own prompt, where it has one."""
        known = begun.frozen() if isinstance(begun, Stream) else begun
        future = asyncio.get_running_loop().create_future
        self._engine = engine
        self.id, self.request = id, request
        self.format = self.why = ""  # in force, once the stream is open
        self.trained = engine.info.live_trained
        self.reply: Reply | None = None  # the one that runs
        self._seq = (prompt or 0) if known is None else known.seq
        self._shown = known is not None and known.shown  # media has been appended: words have to flush decoders
        self._ended = known is not None and known.ended
        self._closing = False
        self._outbox = Outbox()
        self._opened: asyncio.Future[None] = future()
        self._asked: dict[int, asyncio.Future[Reply]] = {} if prompt is None else {prompt: future()}
        self._prompted = None if prompt is None else self._asked[prompt]
        self._replies: dict[int, Reply] = {}
        self._silent = 0  # the next reply was interrupted before it began if it answers an input up to this number
        self._transcripts: Answers[list[events.TranscriptRow]] = Answers()
        self._snapshots: Answers[Snapshot] = Answers()
        self._tickets = itertools.count(1)
        self._on_way = OnWay(id, engine.decode, prompt if known is None else None)
        self._order = CallOrder(self._on_way, self._check_open)
        self._fault: PenstockError | None = None  # of the reply that runs
        self._watch = ReaderWatch(self._outbox, self._park)
        self._lookback = engine.keeping.begin(request, begun._lookback if isinstance(begun, Stream) else begun)

    async def append(self, item: Item) -> int:
        """Append media or words; returns the input's number.

        With the policy "block" it waits until there is credit. With "latest" it does not wait with frames and chunks of
        samples: those that are too old are dropped and reported. Raises InputError for what this model does not take
        and for media after `end`, ContextOverflowError for a text longer than the cache. What is wrong with the bytes
        comes later, as an `Error` event with this number. After a cancelled wait the item is not in."""
        self._check_open()
        check_item(item, self._engine.info, self.request.turn_detection)
        if isinstance(item, Text):
            check_text("text", item.text, self._engine.info.kv_tokens)
            await self._order.turn()
            seq = self._accept(TextInput(self._seq + 1, item.text, not self._shown, *self._taken()))
            if self._shown:
                self._on_way.flush(seq)
            return seq
        self._check_media()
        arrived_us, item = clock.now_us(), own_copy(item)
        size = item_bytes(item)
        waits = self.request.policy == "block" or not isinstance(item, VideoFrame | AudioChunk)
        await self._order.until(lambda: self._order.free and not (waits and self._on_way and self.credit_bytes < size))
        self._check_media()
        self._lookback.take(item)
        asked = bool(self._asked) or (self.reply is not None and not self.reply.rests)
        return self._put(item, size, arrived_us, asked)

    async def ask(
        self,
        question: str = "",
        params: SamplingParams | None = None,
        *,
        wait_ms: int | None = None,
        hold: bool | None = None,
        ignore_failed: bool = False,
        lookback: float | None = None,
    ) -> Reply:
        """Ask; returns the reply when it begins. Then all earlier inputs have their places in the cache.

        params, hold: how the reply is drawn, and whether it is held open (`watch`). `None`: as the request says.
        wait_ms: the most milliseconds to wait for media that is being decoded or encoded. `None`: as long as it takes.
        ignore_failed: ask even if all media since the last question came to nothing. Otherwise the first error of that
            media is raised once, and the question can be asked again.
        lookback: the last so many seconds of what is kept (`Request.lookback`) come before the question once more, as a
            video of its own at its full frame rate; all of a stream that is younger. InputError if fewer are kept.

        Raises InputError or ContextOverflowError if the question is refused. After a cancelled wait it is asked anyway,
        unless `params.structured` was still being compiled.
        """
        self._check_open()
        params = (params or self.request.params).seeded()
        if hold is not None:
            params = msgspec.structs.replace(params, hold=hold)
        check_question(question, params, self._engine.info)
        await self._order.turn()
        ready = self._engine.compiling.ready(params)
        cut = not ready and await self._order.compile(self._engine.compiling.check(params))
        if lookback is not None:
            self._put(self._lookback.clip(lookback), 0, clock.now_us())  # its bytes are those that are kept
        asked, taken = asyncio.get_running_loop().create_future(), self._taken()
        seq = self._accept(Question(self._seq + 1, question, params, not self._shown, *taken, ignore_failed))
        self._asked[seq] = asked
        if cut:
            await self.interrupt()
        if self._shown:
            self._on_way.flush(seq)
        if self._shown and wait_ms is not None:
            timer = asyncio.get_running_loop().call_later(wait_ms / 1000, self._engine.send, Hurry(self.id, seq))
            asked.add_done_callback(lambda _: timer.cancel())
        return await asyncio.shield(asked)

    async def prompted(self) -> Reply:
        """The reply to the request's prompt, when it begins; raises what refused it, InputError if there is none. Safe
        to cancel."""
        if self._prompted is None:
            raise InputError("expected a request with messages or a prompt, got one without")
        return await asyncio.shield(self._prompted)

    async def interrupt(self, at: int | None = None) -> None:
        """End the running reply after its token `at` (`None`: the last that was read), and keep the cache up to there.

        Later tokens that nobody has read do not come. If media after `at` is no longer kept
        (`EngineConfig.span_bytes`), the reply ends after that media instead. If no reply runs, the first question that
        waits for one gets an empty reply, which ends "interrupted". It waits for nothing, so it cannot be cancelled.
        """
        self._check_open()
        if self.reply is None:
            self._order.interrupted = not self._asked
            self._silent = self._seq
        self._cut(at, self._seq if self.reply is None else self.reply.seq)

    async def listen(self, turn_detection: TurnDetection | None) -> None:
        """Listen for speech in this way from here on. `None`: no longer; what is being said then ends here.

        Raises InputError as `Engine.stream` does for it. After a cancelled wait nothing has changed."""
        self._check_open()
        check_turns(turn_detection, self._engine.info, self.format)
        await self._order.turn()
        self.request = msgspec.structs.replace(self.request, turn_detection=turn_detection)
        self._shown = True
        self._on_way.listen(self._accept(MediaInput(self._seq + 1)), turn_detection)

    async def end(self) -> None:
        """No more media will come, so a reply that is held open may end. After a cancelled wait it is not said."""
        self._check_open()
        await self._order.turn()
        if not self._ended:
            self._ended = True
            if self.reply is not None:
                self.reply.held = False
            seq = self._accept(MediaEnd(self._seq + 1, not self._shown))
            if self._shown:
                self._on_way.flush(seq, ends=True)

    async def fork(
        self, again: SamplingParams | None = None, *, back_to: int | None = None, back_to_us: int | None = None
    ) -> Stream:
        """A copy of this stream as it is now: pages are shared, and neither sees what the other appends later.

        It waits until what was appended before is encoded, and other inputs wait for it. A reply that runs goes on in
        both: in the copy it is `copy.reply`, from its next token on. Of a file that is being sent, what is decoded is
        copied. OverloadError if no more streams may be open. After a cancelled wait there is no copy.

        again: the copy begins the reply to the prompt again, drawn with these. InputError if there is none to begin.
        back_to: the copy is as this stream was when this input, by its number, had gone in, and a question had been
            answered. back_to_us: the same for the newest place with no media later than this time, in microseconds. A
            reply that ran there is closed. InputError, which says what is held, for a place that is not held.
        """
        back = place_of(again, back_to, back_to_us)
        async with self._order.fork():
            return await self._engine.fork(self, again, back)

    async def snapshot(self, file: str | Path) -> None:
        """Write this stream, as it is now, to a file from which `Engine.restore` goes on. The stream itself goes on.

        It waits as `fork` does, and what a fork has is in the file, with a reply that runs. It holds what was said and
        shown: keep it as you would keep that. A file of that name is replaced. Raises InputError if the file cannot be
        written, OutOfMemoryError if host memory ran out. After a cancelled wait there may be a file, which is whole.
        """
        async with self._order.fork():
            snapshot = await self._snapshots.wait(self._engine.freeze(self.id, self.frozen()))
        await self._engine.save(snapshot, Path(file))

    async def transcript(self) -> list[events.TranscriptRow]:
        """What the KV cache holds of this stream, in order, rows moved out for others included. Safe to cancel."""
        self._check_open()
        ticket = next(self._tickets)
        self._engine.send(Transcribe(self.id, ticket))
        return await self._transcripts.wait(ticket)

    async def close(self) -> None:
        """End the stream and free what it holds. May be called again. After a cancelled wait it ends all the same."""
        if not self._closing:
            self._closing = True
            self._order.changed()
            self._engine.end_stream(self.id, "closed")
        await self._engine.closed(self.id)

    async def __anext__(self) -> events.Event:
        """The next event, for one reader; they end after `Closed`. A cancelled wait has taken nothing. Who has begun to
        read has to go on: after 512 unread tokens or 1,024 unread events nothing is computed for the stream, and after
        a minute it is closed ("slow reader"). Who reads no events has to read the reply instead."""
        event = await self._outbox.get()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, events.Token) and event.reply in self._replies:
            reply = self._replies[event.reply]
            reply.taken = max(reply.taken, event.index + 1)
        self._watch_reader()
        return event

    @property
    def credit_bytes(self) -> int:
        """How many bytes of media may be appended without waiting: 32 MiB, less what is on its way to the cache."""
        return self._on_way.credit_bytes

    @property
    def closed(self) -> bool:
        """Whether the stream has ended."""
        return self._outbox.closed

    def told(self, message: Tell) -> None:
        """News from the engine."""
        if message.opened is not None:
            self.format, self.why = message.opened
            settle(self._opened, None)
        if message.running is not None:
            id, seq, first = message.running
            begun = (event for event in message.events if isinstance(event, events.ReplyStarted))
            self._begin(id, seq, any(event.held for event in begun), first)
        for event in message.events:
            self._event(event)
        for ticket, rows in message.transcripts:
            self._transcripts.tell(ticket, rows)
        for snapshot in message.snapshots:
            self._snapshots.tell(snapshot.twin, snapshot)
        if message.resolved:
            self._on_way.arrived(message.resolved)
            self._order.changed()
            self._outbox.put(events.Credit(self._on_way.credit_bytes, self._on_way.credit_us))
        self._watch_reader()

    async def opened(self) -> None:
        """Wait until the stream is open. Raises what refused it."""
        await asyncio.shield(self._opened)

    def frozen(self, goes_back: bool = False) -> Frozen:
        """What is known of it here; of a copy that goes back, in which media may come."""
        return Frozen(self.request, self._seq, self._shown, self._ended and not goes_back)

    def next_seq(self) -> int:
        """The number that the next input will have."""
        return self._seq + 1

    def _event(self, event: events.Event) -> None:
        match event:
            case events.ReplyStarted(id, seq, held):
                self._begin(id, seq, held)
            case events.Resting(reply) if reply in self._replies:
                self._replies[reply].rests = True
            case events.Token(reply):
                if reply in self._replies and not self._replies[reply].put(event):
                    self._outbox.hold_back(event)
                    return
            case events.ReplyDone(reply, reason, tokens, text):
                self._outbox.settle(reply, tokens)
                if reply in self._replies:
                    error = self._fault if reason == "error" else None
                    self._replies.pop(reply).end(reason, tokens, text, error, event.since_us)
                if self.reply is not None and self.reply.id == reply:
                    self.reply = None
            case events.SpeechStarted(turn, seq):
                self._hear(turn, seq)
            case events.Error(code, message, seq, fatal):
                self._fault = error_of(code, message)
                self._fail(self._fault, seq, fatal)
            case events.Closed(reason):
                self._fail(StreamClosedError(f"the stream has ended: {reason}"), None, True)
        self._outbox.put(event)

    def _begin(self, id: int, seq: int, held: bool, first: int = 0) -> None:
        if id not in self._replies:
            self.reply = self._replies[id] = Reply(id, seq, self._watch_reader, held and not self._ended, first)
            if seq <= self._silent:
                self._hold(self.reply, 0)
            self._silent = 0
            if seq in self._asked:
                settle(self._asked.pop(seq), self.reply)

    def _fail(self, error: PenstockError, seq: int | None, fatal: bool) -> None:
        """Input `seq` has come to nothing; fatal: the stream has."""
        error.__cause__ = self._engine.failed
        if seq in self._asked and seq <= self._silent:
            self._silent = 0  # the interrupt was for this one
        for number in [number for number in self._asked if fatal or number == seq]:
            refuse(self._asked.pop(number), error)
        if not fatal:
            return
        refuse(self._opened, error)
        for answers in (self._transcripts, self._snapshots):
            answers.refuse(error)
        calm = isinstance(error, StreamClosedError) and self._closing
        for reply in self._replies.values():
            reply.end("interrupted" if calm else "error", error=None if calm else error)
            self._outbox.put(events.ReplyDone(reply.id, reply.reason or "", reply.count))
        self._replies.clear()
        self._lookback.clear()
        self.reply, self._closing = None, True
        self._order.changed()

    def _accept(self, input: Input) -> int:
        """Send the next input on."""
        self._seq = input.seq
        if self.reply is not None and input.event in BY_NAME[self.format].cuts:
            self._hold(self.reply, self.reply.taken)
        self._engine.send(Accept(self.id, input))
        return input.seq

    def _taken(self) -> tuple[int | None, int | None]:
        """The token up to which the client has taken the reply that runs, and its number."""
        return (None, None) if self.reply is None else (self.reply.taken - 1, self.reply.id)

    def _put(self, item: Item | Clip, size: int, arrived_us: int, asked: bool = True) -> int:
        self._shown = True
        seq = self._accept(MediaInput(self._seq + 1))
        self._on_way.take(seq, item, size, arrived_us, asked)
        return seq

    def _hold(self, reply: Reply, keep: int) -> None:
        """Tell no token of `reply` after its first `keep`, until it is known where it ends."""
        reply.hold(keep)
        self._outbox.hold(reply.id, keep)

    def _cut(self, at: int | None, until: int, turn: int | None = None) -> None:
        """End the running reply as `interrupt` does; `until` and `turn` as `Interrupt` has them."""
        if self.reply is None:
            self._engine.send(Interrupt(self.id, until, at=-1, turn=turn))
            return
        keep = self.reply.taken if at is None else max(0, at + 1)
        self.reply.held = False
        self._hold(self.reply, keep)
        self._engine.send(Interrupt(self.id, until, self.reply.id, keep - 1, turn))

    def _hear(self, turn: int, seq: int) -> None:
        """Somebody begins to speak in input `seq`: a question before it gets what was taken of its reply, no more."""
        turns = self.request.turn_detection
        if turns is not None and turns.interrupt and (self.reply is None or self.reply.seq <= seq):
            if self.reply is None:
                self._silent = max(self._silent, seq - 1)
            self._cut(None, seq, turn)

    def _watch_reader(self) -> None:
        self._watch.look(self.reply.unread if self.reply else 0)

    def _park(self, parked: bool) -> None:
        self._engine.send(Park(self.id, parked))
        self._engine.park(self.id, parked)

    def _check_media(self) -> None:
        if self._ended:
            raise InputError("the media of this stream has ended: expected no more, got one")

    def _check_open(self) -> None:
        if self._closing or self.closed:
            raise StreamClosedError("the stream has ended: expected no further call, got one") from self._engine.failed
        self._engine.check_alive()
