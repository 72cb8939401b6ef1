"""The encode actor: segments in, spans out. It announces what it has, and encodes what schedule grants, across
streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import assert_never

import msgspec
import numpy as np

from ..engine.command import Fork, Freeze, LaidOut, Open, Resolved, Spans, Thaw
from ..engine.runner.encoder import Encoder
from ..engine.runner.out_of_memory import is_out_of_memory, let_go
from ..engine.span import Span, Turn
from ..errors import EncoderAwayError, InputError, MediaError, OutOfMemoryError, PenstockError
from ..streams.event import Error
from ..streams.item import Embedding
from ..streams.segment import AudioSegment, DroppedSegment, EmbeddingSegment, Segment, TurnEnd, VideoSegment
from .absence import Absence, Held
from .actor import Actor
from .decode import segment_bytes
from .mailbox import Mailbox, MailboxClosed
from .messages import (
    Announce,
    Converse,
    DecodeMessage,
    Discard,
    Encoded,
    EncodeMessage,
    Failed,
    Forget,
    Grant,
    Notice,
    ScheduleMessage,
    Segments,
    Spent,
    TryAgain,
)
from .thread import WorkThread

log = logging.getLogger("penstock.actors")
Key = tuple[int, int, int]  # stream, seq, index


class Encode(Actor[EncodeMessage]):
    """Owns the towers and the segments that wait for them."""

    name = "encode"

    def __init__(
        self,
        encoder: Encoder,
        thread: WorkThread,
        mailbox: Mailbox[EncodeMessage],
        decode: Mailbox[DecodeMessage],
        schedule: Mailbox[ScheduleMessage],
        away_seconds: float = 0.0,
    ) -> None:
        """`away_seconds`: how long media waits for an encoder in another process that is away."""
        self._encoder = encoder
        self._absence = Absence(away_seconds)
        self._why_away = ""
        self._thread = thread
        self._open: set[int] = set()  # streams that have not ended
        self._waiting: dict[Key, Segment] = {}
        self._left: dict[tuple[int, int], int] = {}  # segments of an input that still wait
        self._last: set[tuple[int, int]] = set()  # inputs whose last segment has come
        self._behind: dict[Key, list[Span]] = {}  # what is no segment, behind one that waits
        self.mailbox = mailbox
        self._decode = decode
        self._schedule = schedule

    async def handle(self, message: EncodeMessage) -> None:
        match message:
            case Open(stream, _, wears):
                self._open.add(stream)
                self._encoder.wear(stream, wears)
            case Segments(stream):
                if stream in self._open:
                    await self._take(message)
            case Grant():
                await self._serve_or_hold(message)
            case Discard(keys, passes):
                for key in keys:
                    if key in self._waiting:
                        await self._discard(key, passes)
            case Converse():
                await self._serve_or_hold(message)
            case TryAgain():
                await self._try_again()
            case Fork(stream, twin):
                if stream in self._open:
                    self._open.add(twin)
                    self._encoder.fork(stream, twin)
            case Freeze(stream, _, frozen):
                frozen = msgspec.structs.replace(frozen, loudest=self._encoder.loudest(stream))
                self._schedule.put_control(msgspec.structs.replace(message, frozen=frozen))
            case Thaw(stream, frozen, _, wears):
                self._open.add(stream)
                self._encoder.wear(stream, wears)
                if frozen.loudest is not None:
                    self._encoder.heard(stream, frozen.loudest)
            case Forget(stream):
                self._forget(stream)
            case _:
                assert_never(message)

    @property
    def held(self) -> int:
        """Segments and prompts that wait for an encoder that is away."""
        return self._absence.held

    @property
    def streams(self) -> int:
        """Streams of which something is kept."""
        return len({*self._open, *(key[0] for key in (*self._waiting, *self._left, *self._last))})

    def stop(self) -> None:
        """Forget all streams; the actor no longer runs."""
        for stream in list(self._open):
            self._forget(stream)

    async def _take(self, message: Segments) -> None:
        stream, seq = message.stream, message.seq
        sizes = []
        self._left.setdefault((stream, seq), 0)
        pieces = [segment for segment in message.segments if not isinstance(segment, TurnEnd)]
        found = iter(await self._foreseen(pieces))
        for segment in message.segments:
            key = stream, seq, segment.index
            if isinstance(segment, TurnEnd):
                self._pass(key, [_turn(segment)])
                continue
            foreseen = next(found)
            if isinstance(foreseen, Exception):
                self._schedule.put_control(Failed(*key, *_told(foreseen)))
                if not isinstance(segment, DroppedSegment):
                    self._decode.put_control(Encoded(stream, segment_bytes(segment)))
            elif isinstance(foreseen, Span):
                self._pass(key, [foreseen])
            else:
                assert not isinstance(segment, DroppedSegment)
                self._waiting[key] = segment
                self._left[stream, seq] += 1
                sizes.append((segment.index, foreseen, segment.stop_us, _name(segment), segment.start_us))
        if message.last:
            self._last.add((stream, seq))
        if sizes:
            clip = any(getattr(segment, "clip_fps", None) is not None for segment in message.segments)
            self._schedule.put_control(Announce(stream, seq, sizes, message.arrived_us, clip))
        self._resolve(stream, seq)

    async def _foreseen(self, segments: list[Segment | DroppedSegment]) -> list[int | Span | Exception]:
        """How long each will be; in the thread, where the model's processor has to be called for it."""
        if self._encoder.knows(segments):
            return self._encoder.foreseen(segments)
        return await self._thread.run(self._encoder.foreseen, segments)

    def _pass(self, key: Key, spans: list[Span]) -> None:
        """What stands for dropped media, or for the end of a turn, goes on behind the segments before it."""
        before = [other for other in self._waiting if other[:2] == key[:2] and other < key]
        if before:
            self._behind.setdefault(max(before), []).extend(spans)
        elif spans:
            self._schedule.put_control(Spans(key[0], spans))

    async def _discard(self, key: Key, passes: bool) -> None:
        """A segment is let go of. What stands behind it stays, behind the segments before it."""
        segment, spans = self._waiting.pop(key), self._behind.pop(key, [])
        if passes and isinstance(segment, VideoSegment | AudioSegment):
            found = await self._foreseen([DroppedSegment(key[1], key[2], segment)])
            spans = [*(span for span in found if isinstance(span, Span)), *spans]
        self._pass(key, spans)
        self._done(key, segment)

    async def _serve_or_hold(self, message: Held) -> None:
        """Encode it; where the encoder is in another process that is away, it waits, but for a prompt without media."""
        if self._absence and _wants_towers(message):
            self._absence.wait(message)
        elif (left := await self._serve(message)) is not None:
            self._absence.wait(left)
            self._try_later()

    async def _serve(self, one: Held) -> Held | None:
        """Encode it; what is left of it where the encoder is away."""
        try:
            if isinstance(one, Converse):
                await self._converse(one)
                return None
            keys = [key for key in one.segments if key in self._waiting]
            if not keys:  # all were let go meanwhile: nobody was asked
                return None
            left = await self._encode(keys)
            if left:
                return Grant(left)
        except EncoderAwayError as error:
            self._away(error)
            return one
        if (away := self._absence.end()) is not None:
            log.info("the encoder is there again, after %.1f s", away)
        return None

    async def _try_again(self) -> None:
        while self._absence:
            left = await self._serve(self._absence.first)
            self._absence.leave(left)
            if left is None:
                continue
            for one in self._absence.over():
                self._give_up(one)
            if self._absence:
                self._try_later()
            return

    def _try_later(self) -> None:
        def tell() -> None:
            with contextlib.suppress(MailboxClosed):
                self.mailbox.put_control(TryAgain())

        asyncio.get_running_loop().call_later(self._absence.pause(), tell)

    def _away(self, error: EncoderAwayError) -> None:
        self._why_away = str(error)
        if self._absence.begin():
            log.warning("%s; media waits for it", error)

    def _give_up(self, one: Held) -> None:
        """The encoder was away for too long for these."""
        why = f"expected the encoder within the time that media waits for it, got none: {self._why_away}"
        if isinstance(one, Converse):
            if one.stream in self._open:
                self._schedule.put_control(Notice(one.stream, Error(EncoderAwayError.code, why, one.seq)))
                self._schedule.put_control(Resolved(one.stream, one.seq))
            return
        for key in one.segments:
            if key in self._waiting:
                self._schedule.put_control(Failed(*key, EncoderAwayError.code, why))
                self._done(key, self._waiting.pop(key))

    async def _encode(self, keys: list[Key]) -> list[Key]:
        """Encode these; those that are left where the encoder is away."""
        batch = [(key[0], self._waiting[key]) for key in keys]
        if not batch:
            return []
        spent: dict[int, float] = {}
        spans: list[Span | Exception]
        try:
            spans = [*await self._thread.run(self._encoder.encode, batch)]
        except EncoderAwayError:
            raise
        except Exception as error:  # a tower refused the batch: find whose segment it was
            if not isinstance(error, PenstockError):
                log.exception("encoding %d segments failed", len(batch))
            spans = [_without_traceback(error)]
        self._share(spent, [stream for stream, _ in batch])
        if len(spans) < len(batch):
            spans = await self._each(batch, spent)
        if spent:
            self._schedule.put_control(Spent([*spent.items()]))
        for key, span in zip(keys, spans, strict=False):
            if isinstance(span, Span):
                self._schedule.put_control(Spans(key[0], [span]))
            else:
                self._schedule.put_control(Failed(*key, *_told(span)))
            self._done(key, self._waiting.pop(key))
        return keys[len(spans) :]

    async def _each(self, batch: list[tuple[int, Segment]], spent: dict[int, float]) -> list[Span | Exception]:
        """What is made of each alone, up to the first for which the encoder was away."""
        found: list[Span | Exception] = []
        for entry in batch:
            one = await self._alone(*entry, spent)
            if isinstance(one, EncoderAwayError):
                self._away(one)
                break
            found.append(one)
        return found

    async def _alone(self, stream: int, segment: Segment, spent: dict[int, float]) -> Span | Exception:
        let_go()
        try:
            return (await self._thread.run(self._encoder.encode, [(stream, segment)]))[0]
        except Exception as error:
            return _without_traceback(error)
        finally:
            self._share(spent, [stream])

    def _share(self, spent: dict[int, float], streams: list[int]) -> None:
        """Add to each stream what the towers have spent for it; `streams`: of the segments, by their places."""
        for place, seconds in self._encoder.spent.items():
            spent[streams[place]] = spent.get(streams[place], 0.0) + seconds

    async def _converse(self, message: Converse) -> None:
        stream = message.stream
        if stream not in self._open:
            return
        try:
            prompt = await self._thread.run(self._encoder.prompt, message.content, stream)
            self._schedule.put_control(LaidOut(stream, message.seq, prompt))
        except EncoderAwayError:
            raise
        except PenstockError as error:
            self._schedule.put_control(Notice(stream, Error(error.code, str(error), message.seq)))
        except Exception as error:  # the model's processor says in its own words what it does not take
            code, text = _told(error, InputError.code)
            if code == InputError.code:
                text = f"expected what the model's own processor takes, got its refusal: {str(error) or text}"
            self._schedule.put_control(Notice(stream, Error(code, f"{message.content.name}: {text}", message.seq)))
        self._schedule.put_control(Spent([(stream, seconds) for seconds in self._encoder.spent.values()]))
        self._schedule.put_control(Resolved(stream, message.seq))

    def _done(self, key: Key, segment: Segment) -> None:
        stream, seq, _ = key
        self._decode.put_control(Encoded(stream, segment_bytes(segment)))
        if key in self._behind:
            self._schedule.put_control(Spans(stream, self._behind.pop(key)))
        self._left[stream, seq] -= 1
        self._resolve(stream, seq)

    def _resolve(self, stream: int, seq: int) -> None:
        if (stream, seq) in self._last and not self._left[stream, seq]:
            self._last.discard((stream, seq))
            del self._left[stream, seq]
            self._schedule.put_control(Resolved(stream, seq))

    def _forget(self, stream: int) -> None:
        self._open.discard(stream)
        self._encoder.forget(stream)
        for key in [key for key in self._waiting if key[0] == stream]:
            del self._waiting[key]
            self._behind.pop(key, None)
        for pair in [pair for pair in self._left if pair[0] == stream]:
            del self._left[pair]
        self._last = {pair for pair in self._last if pair[0] != stream}


def _wants_towers(message: Held) -> bool:
    """Whether there is something to encode: a prompt may have words alone, or rows that were made elsewhere."""
    return isinstance(message, Grant) or not all(isinstance(piece, Embedding) for piece in message.content.media)


def _name(segment: Segment) -> str:
    """What the segment is called: rows that were made elsewhere, as what they stand for."""
    if isinstance(segment, EmbeddingSegment):
        return f"{segment.modality.title()}Segment"
    return type(segment).__name__


def _turn(end: TurnEnd) -> Span:
    """The place at which a reply begins."""
    turn = Turn(end.turn, random.getrandbits(63))
    return Span(end.seq, end.index, "audio", np.zeros(0, np.int64), (0, 0, 0), 0, 0, None, end.stop_us, turn=turn)


def _without_traceback(error: Exception) -> Exception:
    """The error without the tensors that its traceback holds."""
    return error.with_traceback(None)


def _told(error: Exception, code: str = MediaError.code) -> tuple[str, str]:
    """Code and message for the client whose input failed."""
    if is_out_of_memory(error):
        return OutOfMemoryError.code, "memory ran out while it was encoded: send less at once, or smaller pictures"
    if isinstance(error, PenstockError):
        return error.code, str(error)
    return code, f"{type(error).__name__}: {error}"
