"""The decode actor: items in, segments out. Each stream has a lane of its own, so that a slow file holds up nobody
else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

import msgspec

from ..codecs.decoders import Decoders
from ..engine.command import Close, Fork, Freeze, Open, Resolved, Thaw
from ..engine.runner.threads import compute_alone
from ..errors import PenstockError, code_of
from ..streams.audio import SECOND_US
from ..streams.event import Dropped, Error, Held, MediaDecoded
from ..streams.item import AudioChunk, Image, VideoFrame
from ..streams.listening.detectors import Hearing
from ..streams.requests.request import Request
from ..streams.requests.whole import decoded
from ..streams.segment import AudioSegment, DroppedSegment, EmbeddingSegment, MediaSpec, Sifted, TurnEnd, UnitSegment
from ..streams.sieve import Demand
from ..streams.timeline import Output
from . import clock
from .actor import Actor, Supervisor
from .copies import lost
from .frozen_intake import freeze, thaw
from .inputs import item_bytes
from .intake import Intake
from .mailbox import Mailbox, MailboxClosed
from .messages import (
    Converse,
    DecodeMessage,
    Encoded,
    EncodeMessage,
    Flush,
    Forget,
    Hear,
    Notice,
    ScheduleMessage,
    Segments,
    Take,
)

log = logging.getLogger("penstock.actors")

# Segments of one stream that may wait to be encoded; frames and samples of a live source that may wait to be decoded.
_AHEAD_BYTES = 64 << 20
_LATEST_FRAMES = 8
# Media of a live source that waits longer than this, decoded or not, says that the machine does not keep up.
_WAITS_LONG_US = 1_000_000
_LATEST_SOUND_BYTES = 1 << 20


def segment_bytes(segment: Sifted) -> int:
    """Bytes of pixels and samples that a segment holds."""
    if isinstance(segment, DroppedSegment | TurnEnd):
        return 0
    if isinstance(segment, EmbeddingSegment):
        return segment.rows.nbytes + (0 if segment.deep is None else segment.deep.nbytes)
    if isinstance(segment, AudioSegment):
        return segment.samples.nbytes + (0 if segment.power is None else segment.power.nbytes)
    audio = segment.audio if isinstance(segment, UnitSegment) else None
    return segment.pixels.nbytes + (0 if audio is None else audio.samples.nbytes)


class _Lane:
    """One stream's work, done in order by one task at a time."""

    def __init__(self, request: Request, intake: Intake) -> None:
        self.request = request
        self.intake = intake
        self.work: deque[Take | Flush | Hear | Converse] = deque()
        self.running = False
        self.ended = False
        self.ahead_bytes = 0
        self.ahead: deque[int] = deque()  # when each segment that waits to be encoded was handed in
        self.room = asyncio.Event()
        self.held = Held(0, 0)

    def demand(self, take: Take, now_us: int) -> Demand:
        """What asks for the media of this input. A camera has its lower rate before anything of it is lost; files wait,
        and lose nothing."""
        if self.request.policy == "latest" and now_us - min((take.arrived_us, *self.ahead)) > _WAITS_LONG_US:
            return Demand.LOADED
        return Demand.ASKED if take.asked else Demand.IDLE


class Decode(Actor[DecodeMessage]):
    """Turns items into segments; owns the decoders and timelines of all streams."""

    name = "decode"

    def __init__(
        self,
        spec: MediaSpec,
        decoders: Decoders,
        supervisor: Supervisor,
        threads: int,
        mailbox: Mailbox[DecodeMessage],
        encode: Mailbox[EncodeMessage],
        schedule: Mailbox[ScheduleMessage],
        hearing: Hearing,
    ) -> None:
        self._spec = spec
        self._hearing = hearing
        self._decoders = decoders
        self._supervisor = supervisor
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="penstock-decode", initializer=compute_alone)
        # A whole prompt may be a long film: one thread is left to others.
        self._prompts = asyncio.Semaphore(threads - 1)
        self._lanes: dict[int, _Lane] = {}
        self._ending: set[_Lane] = set()  # of streams that have ended, still at work
        self.mailbox = mailbox
        self._encode = encode
        self._schedule = schedule

    async def handle(self, message: DecodeMessage) -> None:
        match message:
            case Open(stream, request):
                what = self._spec, request, self._decoders, self._hearing
                await self._open(stream, message, lambda: Intake(*what))
            case Thaw(stream, frozen):
                what = self._spec, frozen.request, self._decoders, self._hearing
                await self._open(stream, message, lambda: thaw(frozen.media, *what))
            case Freeze(stream):
                if stream in self._lanes:
                    await self._freeze(message, self._lanes[stream].intake)
            case Fork(stream, twin, back=back):
                if stream in self._lanes:
                    parent = self._lanes[stream]
                    intake = parent.intake.fork() if back is None else parent.intake.fresh()
                    self._lanes[twin] = _Lane(parent.request, intake)
                self._encode.put_control(message)
            case Forget(stream):
                self._forget(stream)
                self._encode.put_control(message)
            case Encoded(stream, size):
                if stream in self._lanes:
                    lane = self._lanes[stream]
                    lane.ahead_bytes -= size
                    lane.ahead.popleft()
                    lane.room.set()
            case Take() | Flush() | Hear() | Converse():
                if message.stream in self._lanes:
                    self._put(message.stream, self._lanes[message.stream], message)
            case _:
                assert_never(message)

    @property
    def streams(self) -> int:
        """Streams whose decoders are kept."""
        return len(self._lanes) + len(self._ending)

    def stop(self) -> None:
        """Close all decoders; the actor and its lanes no longer run."""
        self._decoders.close()  # first, so that no thread waits for a worker
        self._pool.shutdown(wait=True, cancel_futures=True)
        for lane in (*self._lanes.values(), *self._ending):
            lane.intake.close()
        self._lanes.clear()
        self._ending.clear()

    async def _freeze(self, command: Freeze, intake: Intake) -> None:
        """What is held of a stream goes along with its copy. Nothing of it is being decoded."""
        try:
            frozen = msgspec.structs.replace(command.frozen, media=await self._call(freeze, intake))
            self._encode.put_control(msgspec.structs.replace(command, frozen=frozen))
        except Exception as error:  # whatever it is, the stream itself goes on
            log.exception("copying what is held of stream %d failed", command.stream)
            self._schedule.put_control(lost(command, error))

    async def _open(self, stream: int, message: Open | Thaw, make: Callable[[], Intake]) -> None:
        request = message.request if isinstance(message, Open) else message.frozen.request
        try:
            self._lanes[stream] = _Lane(request, make() if isinstance(message, Open) else await self._call(make))
        except Exception as error:
            if not isinstance(error, PenstockError):  # ours, not the client's: its stream ends, the others go on
                log.exception("opening stream %d failed", stream)
            self._schedule.put_control(Notice(stream, Error(code_of(error), str(error), fatal=True)))
            self._schedule.put_control(Close(stream, "error"))
            return
        self._encode.put_control(message)

    def _put(self, stream: int, lane: _Lane, work: Take | Flush | Hear | Converse) -> None:
        lane.work.append(work)
        if lane.request.policy == "latest":
            self._drop_oldest(stream, lane)
        if not lane.running:
            lane.running = True
            self._supervisor.spawn(f"decode.{stream}", self._work(stream, lane))

    def _drop_oldest(self, stream: int, lane: _Lane) -> None:
        """A live source that is ahead of us: its oldest that is not decoded yet goes, and the client is told."""
        takes = [work for work in lane.work if isinstance(work, Take)]
        frames = [take for take in takes if isinstance(take.item, VideoFrame)]
        chunks = [(take, item_bytes(take.item)) for take in takes if isinstance(take.item, AudioChunk)]
        gone = frames[: max(0, len(frames) - _LATEST_FRAMES)]
        excess = sum(size for _, size in chunks) - _LATEST_SOUND_BYTES
        for take, size in chunks[:-1]:
            if excess <= 0:
                break
            excess -= size
            gone.append(take)
        for take in gone:
            assert isinstance(take.item, VideoFrame | AudioChunk)
            lane.work.remove(take)
            modality, pts = "video" if isinstance(take.item, VideoFrame) else "audio", take.item.pts_us
            self._schedule.put_control(Notice(stream, Dropped(take.seq, modality, 1, pts, pts, "latest")))
            self._schedule.put_control(Resolved(stream, take.seq))

    def _forget(self, stream: int) -> None:
        lane = self._lanes.pop(stream, None)
        if lane is not None:
            lane.ended = True
            lane.work.clear()
            lane.room.set()
            self._ending.add(lane)
            if not lane.running:
                self._supervisor.spawn(f"decode.{stream}", self._end(lane))

    async def _work(self, stream: int, lane: _Lane) -> None:
        with contextlib.suppress(MailboxClosed):
            while lane.work:
                work = lane.work.popleft()
                await self._decode(stream, lane, work)
        lane.running = False
        if lane.ended:
            await self._end(lane)

    async def _end(self, lane: _Lane) -> None:
        """Close a lane's decoders, beside the event loop: one may have to wait for its process."""
        await self._call(lane.intake.close)
        self._ending.discard(lane)

    async def _decode(self, stream: int, lane: _Lane, work: Take | Flush | Hear | Converse) -> None:
        """Send on what an input gives; what is wrong with it is an event, and what was good before that stays."""
        try:
            if isinstance(work, Converse):
                async with self._prompts:
                    content = await self._call(decoded, work.content, self._decoders, self._spec)
                if sounds := content.by_kind()["audio"]:
                    own = self._spec.audio_rate
                    sound_us = sum(len(sound.data) * SECOND_US // (sound.rate or own) for sound in sounds)
                    self._schedule.put_control(Notice(stream, MediaDecoded(work.seq, sound_us)))
                await self._encode.put(msgspec.structs.replace(work, content=content))
                return
            await self._segments(stream, lane, work)
        except MailboxClosed:
            raise
        except PenstockError as error:
            self._schedule.put_control(Notice(stream, Error(error.code, str(error), work.seq)))
        except Exception as error:  # ours, not the client's: its stream ends, the others go on
            log.exception("decoding input %d of stream %d failed", work.seq, stream)
            text = f"decoding failed: {type(error).__name__}: {error}"
            self._schedule.put_control(Notice(stream, Error("internal", text, work.seq, fatal=True)))
            self._schedule.put_control(Close(stream, "error"))
            lane.work.clear()
            return
        await self._encode.put(Segments(stream, work.seq, [], True))

    async def _segments(self, stream: int, lane: _Lane, work: Take | Flush | Hear) -> None:
        if isinstance(work, Flush):
            await self._send(stream, lane, work, await self._call(lane.intake.flush, work.seq, work.ends))
            return
        if isinstance(work, Hear):
            await self._send(stream, lane, work, await self._call(lane.intake.listen, work.seq, work.turns))
            return
        outputs = lane.intake.take(work.seq, work.item, lane.demand(work, clock.now_us()))
        if isinstance(work.item, Image | VideoFrame | AudioChunk):  # one output, for which one call is enough
            for output in await self._call(list, outputs):
                await self._send(stream, lane, work, output)
            return
        while (output := await self._call(_next, outputs)) is not None:
            await self._send(stream, lane, work, output)
            if lane.ended:
                await self._call(outputs.close)
                return

    async def _send(self, stream: int, lane: _Lane, work: Take | Flush | Hear, output: Output) -> None:
        for event in (*output.speech, *output.dropped):
            self._schedule.put_control(Notice(stream, event))
        if output.held != lane.held:
            lane.held = output.held
            self._schedule.put_control(Notice(stream, output.held))
        for segment in output.pieces:
            size = segment_bytes(segment)
            while lane.ahead_bytes and lane.ahead_bytes + size > _AHEAD_BYTES and not lane.ended:
                lane.room.clear()
                await lane.room.wait()
            if lane.ended:
                return
            if not isinstance(segment, DroppedSegment | TurnEnd):
                lane.ahead_bytes += size
                lane.ahead.append(work.arrived_us)
            await self._encode.put(Segments(stream, work.seq, [segment], False, work.arrived_us), size)

    async def _call(self, work, *arguments):
        """Run in the decode pool. A cancelled wait leaves the thread to finish what it began."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _next(outputs: Iterator[Output]) -> Output | None:
    return next(outputs, None)
