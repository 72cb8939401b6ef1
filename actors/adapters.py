"""The adapters of one engine by name: loaded and unloaded while it runs, and which stream wears which.

In: names and folders, streams that begin and end. Out: what a stream wears. Files are read and matrices moved beside
the event loop; a model gets an adapter between two steps, and loses it when no stream wears it any more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..errors import InputError

if TYPE_CHECKING:
    from ..engine.family import Loaded
    from ..engine.frozen import Frozen
    from ..engine.plan import Wears
    from ..engine.record import Recorder
    from ..engine.runner.gate import Gate
    from ..engine.runner.lora import Adapter, Adapters
    from .actor import Supervisor
    from .info import EngineInfo
    from .thread import WorkThread

_LONGEST = 200


class AdapterInfo(msgspec.Struct, frozen=True):
    """An adapter that is loaded.

    name: what requests call it.
    base: the model that it was trained for, as its folder says.
    rank: the largest rank of its matrices.
    layers: how many layers it changes.
    bytes: the memory that it takes.
    encodes: it changes the towers or the projector, so that media is encoded for its streams alone.
    """

    name: str
    base: str
    rank: int
    layers: int
    bytes: int
    encodes: bool


class Adapted(ABC):
    """An engine, as far as it has adapters."""

    info: EngineInfo
    _adapters: LoadedAdapters

    async def load_adapter(self, name: str, folder: str | Path) -> AdapterInfo:
        """Load an adapter that peft has saved, a LoRA: from now on requests may name it (docs/adapters.md). Streams
        that run are held up for one short step at most.

        name: what `Request.adapter` calls it; one that is free, and not the model's.
        folder: has `adapter_config.json` and `adapter_model.safetensors`.

        Raises InputError for an adapter that does not fit this model or asks for more than LoRA, with what was expected
        and what came, and StreamClosedError if the engine is closed or has failed. A cancelled call loads nothing.
        """
        self.check_alive()
        try:
            loaded = await self._adapters.load(name, Path(folder))
        except RuntimeError:  # the threads have ended under it
            self.check_alive()
            raise
        self._tell_adapters()
        return loaded

    async def unload_adapter(self, name: str) -> None:
        """Requests may no longer name this adapter, and its name is free. Streams that wear it go on with it; when the
        last of them has ended, its memory is free.

        It waits for nothing, so that nothing of it can be cancelled. Raises InputError if there is none of this name.
        """
        self._adapters.unload(name)
        self._tell_adapters()

    @abstractmethod
    def check_alive(self) -> None:
        """StreamClosedError where the engine has failed or is stopped."""

    def _tell_adapters(self) -> None:
        """`info` says which are loaded."""
        self.info = msgspec.structs.replace(self.info, adapters=self._adapters.infos)


class LoadedAdapters:
    """The adapters that requests may name, and those that open streams still wear."""

    def __init__(
        self,
        loaded: Loaded,
        worn: Adapters,
        gate: Gate,
        encoding: WorkThread,
        supervisor: Supervisor,
        recorder: Recorder | None,
    ) -> None:
        """`worn`: those of the language model. `encoding`: the thread that encodes. `recorder`: of the run."""
        self._loaded, self._worn, self._gate, self._encoding = loaded, worn, gate, encoding
        self._supervisor, self._recorder, self._stopped = supervisor, recorder, False
        self._named: dict[str, tuple[Adapter, AdapterInfo]] = {}
        self._loading: set[str] = set()
        self._streams: dict[int, Adapter] = {}

    @property
    def infos(self) -> tuple[AdapterInfo, ...]:
        """Those that requests may name."""
        return tuple(info for _, info in self._named.values())

    @property
    def nbytes(self) -> int:
        """The memory of all, with those that are unloaded and still worn."""
        return self._worn.nbytes

    async def load(self, name: str, folder: Path) -> AdapterInfo:
        """Requests may name it from now on. Raises InputError. A cancelled call loads nothing."""
        self._check(name)
        self._loading.add(name)
        try:
            adapter, info = await asyncio.to_thread(self._fitted, name, folder)
            try:
                await asyncio.wrap_future(self._gate.step(partial(self._add, adapter)))
            except BaseException:
                self._leave(adapter)
                raise
            self._note(adapter, folder)
            self._named[name] = adapter, info
            return info
        finally:
            self._loading.discard(name)

    def unload(self, name: str) -> None:
        """Requests may no longer name it. Raises InputError where there is none of this name."""
        if name not in self._named:
            raise InputError(self._unknown(name))
        self._leave(self._named.pop(name)[0])

    def worn(self, name: str | None) -> Wears | None:
        """What a stream wears that names this. Raises InputError."""
        if name is None:
            return None
        if name not in self._named:
            raise InputError(self._unknown(name))
        return self._named[name][0].wears

    def worn_by(self, stream: int) -> Wears | None:
        """What an open stream wears."""
        return self._streams[stream].wears if stream in self._streams else None

    def frozen(self, frozen: Frozen) -> Wears | None:
        """What a stream wears that goes on here. Raises InputError where its adapter is not here, or is another by that
        name."""
        wears = self.worn(frozen.request.adapter)
        got = "" if wears is None else wears.fingerprint
        if got != frozen.adapter:
            name = frozen.request.adapter
            raise InputError(f"restore: expected the adapter {name!r} with content {frozen.adapter}, got {got}")
        return wears

    def begin(self, stream: int, wears: Wears | None) -> None:
        """A stream is opened."""
        if wears is not None:
            self._streams[stream] = self._worn[wears.number]

    def end(self, stream: int) -> None:
        """A stream has ended."""
        adapter = self._streams.pop(stream, None)
        if adapter is not None:
            self._leave(adapter)

    def stop(self) -> None:
        """The engine stops: what is loaded is let go with it."""
        self._stopped = True

    def _check(self, name: str) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST or not name.isprintable() or name != name.strip():
            raise InputError(f"adapter: expected a name of 1 to {_LONGEST} characters to be read, got {name!r:.80}")
        model = self._loaded.family.data.model
        if name in (model, model.rstrip("/").rpartition("/")[2]):
            raise InputError(f"adapter: expected another name than that of the model, got {name!r}")
        if name in self._named or name in self._loading:
            raise InputError(f"adapter: expected a name that is free, got {name!r}: unload it first")

    def _note(self, adapter: Adapter, folder: Path) -> None:
        """A record of the run tells where it came from."""
        from ..engine.record import Fitted

        if self._recorder is not None:
            self._recorder.note(Fitted(adapter.number, str(folder.absolute()), adapter.fingerprint))

    def _unknown(self, name: str) -> str:
        known = ", ".join(map(repr, self._named)) or "none is loaded"
        return f"adapter: expected one that is loaded ({known}), got {name!r:.80}"

    def _fitted(self, name: str, folder: Path) -> tuple[Adapter, AdapterInfo]:
        from ..engine.loading.adapter import read_adapter
        from ..engine.loading.fitting import fitted

        file = read_adapter(folder)
        adapter = fitted(file, self._loaded)
        size = len(adapter.layers), adapter.nbytes
        return adapter, AdapterInfo(name, file.base, file.rank, *size, adapter.encodes)

    def _add(self, adapter: Adapter) -> None:
        from ..engine.loading.fitting import try_out

        try_out(adapter, self._loaded)
        self._worn.add(adapter)

    def _leave(self, adapter: Adapter) -> None:
        """The model loses an adapter that nobody can name and no stream wears."""
        if adapter in self._streams.values() or any(adapter is other for other, _ in self._named.values()):
            return
        if not self._stopped:
            self._supervisor.spawn("adapter.leaves", self._encoding.run(self._remove, adapter))

    def _remove(self, adapter: Adapter) -> None:
        """In the thread that encodes, so that nothing is encoded with it meanwhile; and between two steps."""
        self._gate.step(partial(self._worn.remove, adapter)).result()
