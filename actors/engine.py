"""The public `Engine`: loads a checkpoint, wires the four actors, gives streams. One event loop, no wire formats."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..codecs.limits import MediaLimits
from ..engine.command import Accept, Back, Close, Fork, Freeze, Open, PromptInput, Thaw
from ..engine.config import FITTING, EngineConfig
from ..errors import StreamClosedError
from ..streams.event import Closed, Error
from ..streams.item import AudioChunk
from ..streams.requests.options import check_options, with_defaults
from ..streams.requests.prompt import Content, check_counts, check_most, gather
from ..streams.requests.request import Request, SamplingParams
from . import oneshot
from .adapters import Adapted
from .info import EngineInfo, info_of
from .inputs import check_fits
from .messages import Bring, Converse, Forget, Tell
from .snapshots import Snapshots
from .stream import Stream

if TYPE_CHECKING:
    from ..engine.family import Loaded
    from ..engine.frozen import Frozen, Snapshot
    from ..engine.loading.memory import Memory
    from .mailbox import Observer

log = logging.getLogger("penstock.actors")

# What everyone is told who uses a failed engine. What ended it is in the log, and in process also the `__cause__`.
FAILED = "the engine has failed"
_PARKED_SECONDS = 60.0
# How long `close` waits for the streams to be told, which takes one step.
_CLOSE_SECONDS = 10.0

# Of all engines of a process: towers keep state by stream, and one loaded model may serve several engines.
_IDS = itertools.count(1)
# What a model hears first that takes a prompt with a sound and nothing else.
_A_SOUND = {"role": "user", "content": [{"type": "audio", "audio": AudioChunk(bytes(6400), 16_000)}]}
# Embeddings that come with a stream have numbers that no encoder gives.
_BASES = itertools.count(1 << 40, 1 << 40)


class Engine(Adapted):
    """A model that is served. `Engine.load` makes one.

    Close it in the end, or use it as an async context manager: `async with await Engine.load() as engine`. Use it in
    the event loop that made it.

    info: what it serves (`EngineInfo`).
    ready: it has been warmed up and takes requests.
    failed: the error that ended it, or `None` while it works. Every stream of an engine that has failed is closed.
    """

    def __init__(
        self,
        loaded: Loaded,
        config: EngineConfig,
        limits: MediaLimits | None = None,
        observer: Observer | None = None,
        parked_seconds: float = _PARKED_SECONDS,
        memory: Memory | None = None,
    ) -> None:
        """Start the actors; call inside a running event loop.

        `observer` is told of every message (`penstock trace`): mailbox, lane, message. A stream whose client does not
        read for `parked_seconds` is closed. `memory` as `engine.core.fit` shares it out; None: it is done here, which
        on CUDA takes a moment. Raises ModelError where the KV cache does not fit, InputError for options of the
        processor that the model does not have.
        """
        from ..engine.core import fit
        from .wiring import Wiring

        check_options(config.processor, loaded.family.spec)
        check_most(config.limits_per_request)
        memory = memory or fit(loaded, config)
        self.info: EngineInfo = info_of(loaded, config, memory)
        self.ready = self._halted = False  # halted: the mailboxes are closed
        self.failed: BaseException | None = None
        self._broke = asyncio.Event()
        self._parked_seconds = parked_seconds
        self._config, self._spec, self._limits = config, loaded.family.spec, limits or MediaLimits()
        self._snapshots = Snapshots(loaded.fingerprint, memory.page_tokens, config.kv_dtype)
        self._streams: dict[int, Stream] = {}
        self._ends: dict[int, asyncio.Future[None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        wiring = self._wiring = Wiring(loaded, config, self._limits, observer, self._told, self._broken, memory)
        self.decode, self.keeping, self.compiling = wiring.decode.mailbox, wiring.keeping, wiring.compiling
        self._adapters = wiring.adapters
        self._schedule, self._generate = wiring.schedule.mailbox, wiring.generate.mailbox
        self._stopping: asyncio.Task[None] | None = None

    @classmethod
    async def load(
        cls,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        config: EngineConfig | None = None,
        limits: MediaLimits | None = None,
        observer: Observer | None = None,
    ) -> Self:
        """Load a checkpoint and warm it up.

        model: a folder, or an id on the Hub, which is downloaded if the Hub's cache does not have it. `None`: Brook,
            which comes with Penstock and knows coloured shapes, beeps and a few spoken words.
        revision: a branch, tag or commit of an id.
        config: `None` takes the device, the type of number and the size of the cache that fit (docs/memory.md).
        limits: how large media from a client may be. `None` takes the defaults of `MediaLimits`.
        observer: is called with each message between the actors: mailbox, lane, message (`penstock trace`).

        Raises ModelError if the checkpoint cannot be served, with the reason, and InputError for an option in `config`
        that the model does not have. A cancelled load leaves no engine: a download ends at its next piece, and files
        that are complete stay in the Hub's cache.
        """
        from ..engine.core import fit
        from ..engine.loading.open import load
        from .remote import with_encoder

        config = config or FITTING
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        # A thread that ends, and torch's pool of threads for it: the cores are for those of the thread that steps.
        thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-load")
        try:
            loaded = await loop.run_in_executor(thread, load, model, config, revision, stop)
            if config.encoder is not None:
                loaded = await loop.run_in_executor(thread, with_encoder, loaded, config)
            memory = await loop.run_in_executor(thread, fit, loaded, config)
        except asyncio.CancelledError:
            stop.set()
            raise
        finally:
            thread.shutdown(wait=False)
        engine = cls(loaded, config, limits, observer, memory=memory)
        try:
            await engine.warm_up()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def warm_up(self) -> None:
        """One short reply, so that what compiles or allocates at first use does so now."""
        params = SamplingParams(max_tokens=2)
        if self.info.one_shot:
            async with await self._open(Request(messages=[_A_SOUND], params=params)) as stream:
                await (await stream.prompted()).text()
        else:
            async with await self._open(Request(format="turns", params=params)) as stream:
                await (await stream.ask("Hello.")).text()
        self.ready = True

    async def stream(self, request: Request | None = None) -> Stream:
        """Open a stream. With `messages`, `prompt` or `prompt_ids` a reply starts at once (`stream.prompted()`).

        request: `None` is `Request()`.

        Raises InputError if the request does not fit the model, OverloadError if no more streams may be open and for a
        live stream that this machine would not keep up with, ContextOverflowError for a prompt that is too long,
        LimitError for a file that is too large, StreamClosedError if the engine is closed or has failed. A cancelled
        call leaves no stream open.
        """
        return await self._open(request or Request())

    async def restore(self, file: str | Path) -> Stream:
        """Go on with a stream that `Stream.snapshot` has written, in this engine or in one of another process.

        A reply that ran goes on as `stream.reply`, from its next token on: the same tokens follow as would have in the
        stream itself. The model has to be the same, with its adapter and its type of number, and so do the version of
        Penstock and `page_tokens`.

        file: read only files that you have written, or that come from someone whom you trust.

        Raises InputError for a file that is not there, is damaged or does not fit, and OverloadError as `stream` does.
        A cancelled call leaves no stream open.
        """
        self.check_alive()
        snapshot = await self._snapshots.read(Path(file))
        await self.compiling.compile(snapshot.frozen.structured)
        self.check_alive()
        wears = self._adapters.frozen(snapshot.frozen)
        stream, base = Stream(self, next(_IDS), snapshot.frozen.request, snapshot.frozen), next(_BASES)
        self._streams[stream.id] = stream
        self._adapters.begin(stream.id, wears)
        first = Thaw(stream.id, snapshot.frozen, base, wears)
        self._generate.put_control(Bring(stream.id, snapshot, base))
        self.decode.put_control(first)
        self._schedule.put_control(first)
        return await self._begun(stream)

    async def generate(self, request: Request, params: SamplingParams | None = None) -> str:
        """The text of one reply to the request's prompt, when it is complete.

        Greedy and without penalties it equals `transformers.generate` on the same prompt and media. Many checkpoints
        ask for a drawn reply: `SamplingParams(temperature=0)` makes it greedy.

        params: how the reply is drawn. `None`: as `request.params` say.

        Raises as `stream` does, InputError for a request without a prompt, MediaError for media that cannot be used.
        After a cancelled call nothing of it is left.
        """
        return await oneshot.generate(self, request, params)

    async def generate_all(self, request: Request, n: int, params: SamplingParams | None = None) -> list[str]:
        """The texts of `n` replies to the request's prompt. It is computed once, and its rows of KV cache are shared.

        n: how many, at least 1.
        params: how they are drawn. Reply i has the seed plus i, as `generate` would draw it with that seed. Without a
            seed the replies differ at each call.

        Raises as `generate` does, and InputError if fewer than `n` streams can be opened. After a cancelled call
        nothing of it is left.
        """
        return await oneshot.generate_all(self, request, n, params)

    async def until_failed(self) -> BaseException:
        """Wait until the engine fails, and return the error that ended it. It raises nothing. A cancelled wait changes
        nothing."""
        await self._broke.wait()
        assert self.failed is not None
        return self.failed

    async def close(self) -> None:
        """End all streams, and stop the actors and their threads. It may be called again and raises nothing.

        Streams get the event `Closed` with the reason "engine stopped". If the call is cancelled, the engine ends all
        the same.
        """
        if self._stopping is None:
            self.ready = False
            for id in list(self._streams):
                self.end_stream(id, "engine stopped")
            self._stopping = self._wiring.spawn("engine.close", self._stop())
        await asyncio.shield(self._stopping)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def statistics(self) -> dict[str, Any]:
        """Numbers as plain data: streams, pages, steps, mailboxes, and how timely media is (docs/deployment.md)."""
        return self._wiring.statistics()

    def check(self) -> None:
        """Raise PenstockError if free and held pages are not all pages. Call it when nothing is running."""
        self._wiring.schedule.check()

    # What streams ask of their engine.

    def send(self, message: Any) -> None:
        """A control message to schedule; lost where the engine has failed or is stopped."""
        if self._runs:
            self._schedule.put_control(message)

    def check_alive(self) -> None:
        """StreamClosedError where the engine has failed, with what ended it as its `__cause__`, or is stopped."""
        if self.failed is not None:
            raise StreamClosedError(FAILED) from self.failed
        if self._stopping is not None:
            raise StreamClosedError("the engine is stopped")

    async def fork(self, stream: Stream, again: SamplingParams | None, back: Back | None) -> Stream:
        """A twin of a stream of which nothing is in decode or encode."""
        if again is not None:
            await self.compiling.check(again)
        return await self._open(stream.request, stream, again, back)

    def freeze(self, id: int, frozen: Frozen) -> int:
        """Copy a stream of which nothing is in decode or encode. Returns the number under which the copy comes."""
        twin = next(_IDS)
        self.decode.put_control(Freeze(id, twin, frozen))
        return twin

    async def save(self, snapshot: Snapshot, path: Path) -> None:
        """Write the copy to a file. Raises InputError where that cannot be."""
        await self._snapshots.write(path, snapshot)

    def end_stream(self, id: int, reason: str) -> None:
        """Close a stream; `closed` waits for it."""
        if id in self._streams and self._runs:
            self._ends.setdefault(id, asyncio.get_running_loop().create_future())
            self._schedule.put_control(Close(id, reason))

    async def closed(self, id: int) -> None:
        """Wait until the end of a stream has been told."""
        if id in self._ends:
            await asyncio.shield(self._ends[id])

    def park(self, id: int, parked: bool) -> None:
        """The client of a stream has stopped reading, or reads again: time runs, or does not."""
        timer = self._timers.pop(id, None)
        if timer is not None:
            timer.cancel()
        if parked:
            later = asyncio.get_running_loop().call_later
            self._timers[id] = later(self._parked_seconds, self.end_stream, id, "slow reader")

    async def _open(
        self,
        request: Request,
        twin_of: Stream | None = None,
        again: SamplingParams | None = None,
        back: Back | None = None,
    ) -> Stream:
        request.check()
        await self.compiling.check(request.params)
        request = with_defaults(request, self._config.processor, self._spec)
        check_fits(request, self.info, self._spec)
        content = await self._gathered(request) if request.starts else None
        self.check_alive()
        wears = self._adapters.worn(request.adapter) if twin_of is None else self._adapters.worn_by(twin_of.id)
        plain = msgspec.structs.replace(request, messages=None, prompt=None, prompt_ids=None, media=[])
        id = next(_IDS)
        prompt = 1 if content is not None or again is not None else None
        begun = twin_of.frozen(goes_back=True) if twin_of is not None and back is not None else twin_of
        stream = self._streams[id] = Stream(self, id, plain, begun, prompt)
        self._adapters.begin(id, wears)
        seeded = again and again.seeded()
        first = Open(id, plain, wears) if twin_of is None else Fork(twin_of.id, id, twin_of.next_seq(), seeded, back)
        self.decode.put_control(first)
        self._schedule.put_control(first)
        if content is not None and prompt is not None:
            self._schedule.put_control(Accept(id, PromptInput(prompt, request.params.seeded())))
            self.decode.put_now(Converse(id, prompt, content))
        return await self._begun(stream)

    async def _begun(self, stream: Stream) -> Stream:
        try:
            await stream.opened()
        except asyncio.CancelledError:
            self.end_stream(stream.id, "closed")
            raise
        return stream

    async def _gathered(self, request: Request) -> Content:
        """The request's prompt and media as plain data. Files are read beside the event loop, and decoded later."""
        self.check_alive()
        content = await asyncio.to_thread(gather, request, self._limits)
        check_counts(content, self._config.limits_per_request)
        return content

    async def _stop(self) -> None:
        if self.failed is None and self._ends:
            await asyncio.wait(list(self._ends.values()), timeout=_CLOSE_SECONDS)
        self._halted = True
        await self._wiring.stop()
        self._end_all("engine stopped", None)

    @property
    def _runs(self) -> bool:
        """The actors still take messages."""
        return self.failed is None and not self._halted

    def _told(self, message: Any) -> None:
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        stream.told(message)
        if stream.closed:
            self._gone(message.stream)

    def _gone(self, id: int) -> None:
        """A stream has been told its end: nothing more is asked for it, and decode and encode may forget it."""
        self._streams.pop(id, None)
        self._adapters.end(id)
        self.park(id, False)
        if not self._halted:
            self.decode.put_control(Forget(id))
        end = self._ends.pop(id, None)
        if end is not None and not end.done():
            end.set_result(None)

    def _broken(self, name: str, error: BaseException) -> None:
        """An actor has failed: every stream ends with an error, and nothing more is accepted."""
        if self.failed is None:
            self.failed = self._wiring.failure or error
            self.ready = False
            log.error("the engine has failed in %s: no stream can go on", name)
            self._end_all("error", Error("internal", FAILED, fatal=True))
            self._broke.set()

    def _end_all(self, reason: str, error: Error | None) -> None:
        for id, stream in list(self._streams.items()):
            stream.told(Tell(id, [*([error] if error else []), Closed(reason)]))
            self._gone(id)
