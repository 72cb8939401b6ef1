"""The public `Engine`: loads a checkpoint, wires the four actors, hands out streams. One event loop; no wire formats."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ..codecs.errors import InputError, PenstockError, StreamClosedError
from ..codecs.limits import MediaLimits
from ..engine.config import EngineConfig
from ..streams.event import Closed, Error
from ..streams.request import Request, SamplingParams

if TYPE_CHECKING:
    from ..engine.family import Loaded
    from .mailbox import Observer
    from .stream import Stream

_PARKED_SECONDS = 60.0


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine serves."""

    model: str
    family: str
    modalities: tuple[str, ...]
    formats: tuple[str, ...]
    live_trained: bool
    max_positions: int
    kv_tokens: int
    device: str
    dtype: str


class Engine:
    """A model that is being served. Made by `Engine.load`; close it when done, or use it as an async context manager."""

    def __init__(
        self,
        loaded: Loaded,
        config: EngineConfig,
        limits: MediaLimits | None = None,
        observer: Observer | None = None,
        parked_seconds: float = _PARKED_SECONDS,
    ) -> None:
        """Start the actors; call inside a running event loop. `observer` is told of every message (`penstock trace`)."""
        from .wiring import Wiring

        data = loaded.family.data
        self.info = EngineInfo(
            model=data.model,
            family=data.name,
            modalities=loaded.family.modalities,
            formats=("turns", "live", "interrupt"),
            live_trained=data.live_trained,
            max_positions=data.max_positions,
            kv_tokens=config.kv_tokens,
            device=config.device,
            dtype=config.dtype,
        )
        self.ready = False
        self.failed: BaseException | None = None
        self._parked_seconds = parked_seconds
        self._streams: dict[int, Stream] = {}
        self._ids = itertools.count(1)
        self._ends: dict[int, asyncio.Future[None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._wiring = Wiring(loaded, config, limits or MediaLimits(), observer, self._told, self._broken)
        self.decode = self._wiring.decode.mailbox
        self._schedule = self._wiring.schedule.mailbox
        self._stopped = False

    @classmethod
    async def load(
        cls, model: str | Path | None = None, *, config: EngineConfig | None = None, limits: MediaLimits | None = None
    ) -> Self:
        """Load a checkpoint and warm it up.

        model: a folder, or an id that `transformers` finds; None: a small model with random weights, built on the spot, whose
        words mean nothing. Raises ModelError that says why it cannot be served. A cancelled load leaves nothing behind.
        """
        from ..engine.core import load

        config = config or EngineConfig()
        loaded = await asyncio.to_thread(load, model, config)
        engine = cls(loaded, config, limits)
        try:
            await engine.warm_up()
        except BaseException:
            await engine.close()
            raise
        return engine

    async def warm_up(self) -> None:
        """One short reply, so that what compiles or allocates at first use does so now."""
        stream = await self._open(Request(params=SamplingParams(max_tokens=2)))
        async with stream:
            await (await stream.ask("Hello.")).text()
        self.ready = True

    async def stream(self, request: Request | None = None) -> Stream:
        """Open a stream. With `messages` in the request a reply starts at once (`stream.prompted()`).

        Raises InputError where the request does not fit the model. A cancelled call leaves no stream open.
        """
        return await self._open(request or Request())

    async def generate(self, request: Request, params: SamplingParams | None = None) -> str:
        """One reply to the request's messages, whole. Equal to `transformers.generate` on the same conversation."""
        if not request.messages:
            raise InputError("generate: expected a request with messages, got none")
        if params is not None:
            request = msgspec.structs.replace(request, params=params)
        async with await self.stream(request) as stream:
            return await (await stream.prompted()).text()

    async def close(self) -> None:
        """End all streams, stop the actors and their threads. May be called again."""
        if self._stopped:
            return
        self._stopped = True
        self.ready = False
        for id in list(self._streams):
            self.end_stream(id, "engine stopped")
        if self.failed is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await asyncio.gather(*self._ends.values())
        await self._wiring.stop()
        self._end_all("engine stopped", None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def statistics(self) -> dict[str, Any]:
        """Numbers for health pages: streams, pages, steps, mailboxes."""
        return self._wiring.statistics()

    def check(self) -> None:
        """The conservation law of pages; call when nothing is running. Raises PenstockError."""
        self._wiring.schedule.check()

    # What streams ask of their engine.

    def send(self, message: Any) -> None:
        """A control message to schedule."""
        if self.failed is None:
            self._schedule.put_control(message)

    def check_alive(self) -> None:
        if self.failed is not None:
            raise StreamClosedError(f"the engine has failed: {self.failed}")
        if self._stopped:
            raise StreamClosedError("the engine is stopped")

    async def fork(self, stream: Stream) -> Stream:
        twin = await self._open(stream.request, fork_of=stream)
        return twin

    def end_stream(self, id: int, reason: str) -> None:
        from .messages import Close, Forget

        if id in self._streams and self.failed is None:
            self._ends.setdefault(id, asyncio.get_running_loop().create_future())
            self.decode.put_control(Forget(id))
            self._schedule.put_control(Close(id, reason))

    async def closed(self, id: int) -> None:
        """Wait until the end of a stream has been told."""
        if id in self._ends:
            await asyncio.shield(self._ends[id])

    def parked(self, id: int) -> None:
        loop = asyncio.get_running_loop()
        self._timers[id] = loop.call_later(self._parked_seconds, self.end_stream, id, "slow reader")

    def unparked(self, id: int) -> None:
        timer = self._timers.pop(id, None)
        if timer is not None:
            timer.cancel()

    async def _open(self, request: Request, fork_of: Stream | None = None) -> Stream:
        from .messages import Accept, Converse, Fork, Open
        from .stream import Stream

        request.check()
        self.check_alive()
        self._fits(request)
        id = next(self._ids)
        prompted = request.messages is not None and fork_of is None
        stream = self._streams[id] = Stream(self, id, request, prompted)
        if fork_of is not None:
            message = Fork(fork_of.id, id, fork_of.next_seq())
            self.decode.put_control(message)
            self._schedule.put_control(message)
        else:
            self.decode.put_control(Open(id, request))
            self._schedule.put_control(Open(id, request))
        if prompted:
            assert request.messages is not None
            self._schedule.put_control(Accept(id, 1, "prompt", params=request.params, done=False))
            self.decode.put_now(Converse(id, 1, plain_messages(request.messages), request))
        try:
            await stream.opened()
        except asyncio.CancelledError:
            self.end_stream(id, "closed")
            raise
        except PenstockError as error:
            raise InputError(str(error)) from None
        return stream

    def _fits(self, request: Request) -> None:
        if request.audio_in_video and "unit" not in self.info.modalities:
            raise InputError(f"audio_in_video: {self.info.family} does not take sound inside video")
        if request.audio_in_video and request.video_fps is not None and request.video_fps < 1:
            raise InputError(f"audio_in_video: expected at least 1 frame a second, got {request.video_fps}")

    def _told(self, message: Any) -> None:
        stream = self._streams.get(message.stream)
        if stream is None:
            return
        stream.told(message)
        if stream.closed:
            self._gone(message.stream)

    def _gone(self, id: int) -> None:
        self._streams.pop(id, None)
        self.unparked(id)
        end = self._ends.pop(id, None)
        if end is not None and not end.done():
            end.set_result(None)

    def _broken(self, name: str, error: BaseException) -> None:
        """An actor has failed: every stream ends with an error, and nothing more is accepted."""
        if self.failed is None:
            self.failed = error
            self.ready = False
            self._end_all("error", Error("internal", f"the engine has failed in {name}: {error}", fatal=True))

    def _end_all(self, reason: str, error: Error | None) -> None:
        from .messages import Tell

        for id, stream in list(self._streams.items()):
            stream.told(Tell(id, [*([error] if error else []), Closed(reason)]))
            self._gone(id)


def plain_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages as plain data: PIL images as arrays `(h, w, 3)` uint8, sequences of frames as one array."""
    import numpy as np
    from PIL.Image import Image as Picture

    def plain(value: Any) -> Any:
        if isinstance(value, Picture):
            return np.asarray(value.convert("RGB"))
        if isinstance(value, list | tuple) and value and isinstance(value[0], Picture | np.ndarray):
            return np.stack([plain(entry) for entry in value])
        return value

    plained = []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            content = [{name: plain(value) for name, value in part.items()} for part in content]
        plained.append({**message, "content": content})
    return plained
