"""A run as a file: what the scheduler was asked, step by step, with what each step gave; and the run once more.

A record holds ids, embeddings and sampling, so what clients said and showed can be made out from it. Its file is a
line that names the format, then frames: a length in four bytes and an entry as msgpack.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import msgspec
import torch

from ..errors import InputError, PenstockError
from .config import EngineConfig
from .encoding import decoder, encode
from .family import Loaded
from .loading.adapter import read_adapter
from .loading.fitting import fitted
from .loading.open import load
from .runner.backends import make_backend
from .runner.drafter import attach
from .runner.language import LanguageModel
from .scheduling.journal import Again, Entry, Holds, made, replay
from .scheduling.scheduler import Scheduler, SchedulerConfig

log = logging.getLogger("penstock.engine")

_FORMAT = b"penstock record 2\n"


class Fitted(msgspec.Struct, frozen=True, tag="adapter"):
    """The adapter in `folder` was loaded: from now on a stream may wear it, by its number."""

    number: int
    folder: str
    fingerprint: str


class Header(msgspec.Struct, frozen=True):
    """What a run was made with. `model`: a folder, or an id with its revision."""

    model: str
    config: EngineConfig
    sizes: SchedulerConfig
    backend: str
    dtype: str
    device: str
    threads: int
    versions: dict[str, str]


class Recorder:
    """Writes a new file in a folder, each entry at once. Where that fails, as on a full disk, it says so in the log and
    the engine goes on without a record."""

    def __init__(self, folder: str, header: Header, spans: Holds) -> None:
        """`spans`: the store in which the embeddings are that entries name. Raises InputError where no file can be made
        there."""
        self._spans = spans
        name = f"penstock-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.record"
        self.path = Path(folder) / name
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] | None = self.path.open("xb", buffering=0)
        except OSError as error:
            raise InputError(f"record: expected a folder that can be written, got {folder}: {error}") from error
        self._write(_FORMAT)
        self._put(header)

    def note(self, entry: Entry | Fitted) -> None:
        if self._file is None:
            return
        named = [] if isinstance(entry, Fitted) else made(entry, self._spans)
        for one in (*named, entry):
            self._put(one)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _put(self, entry: Header | Entry | Fitted) -> None:
        if self._file is None:
            return
        data = encode(entry)
        self._write(len(data).to_bytes(4) + data)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        try:
            if self._file.write(data) != len(data):
                raise OSError("the disk is full")
        except OSError as error:
            log.error("%s: the record ends here, the engine goes on: %s", self.path, error)
            self.close()


class Record:
    """A record to be read. `torn`: its last entry is not whole, as where its process was killed."""

    def __init__(self, path: str | Path) -> None:
        """Raises InputError for a file that is not there or is no record."""
        self.path = Path(path)
        self.torn = False
        try:
            with self.path.open("rb") as file:
                first = file.readline(64)
                frame = self._frame(file)
                self._begin = file.tell()
        except OSError as error:
            raise InputError(f"{path}: expected a record, got {error}") from error
        if first != _FORMAT or frame is None:
            raise InputError(f"{path}: expected a file that begins with {_FORMAT!r} and a header, got {first[:32]!r}")
        self.header: Header = self._decoded(decoder(Header), frame)

    def __iter__(self) -> Iterator[Entry | Fitted]:
        read = decoder(Entry | Fitted)
        with self.path.open("rb") as file:
            file.seek(self._begin)
            while (frame := self._frame(file)) is not None:
                yield self._decoded(read, frame)

    def _frame(self, file: IO[bytes]) -> bytes | None:
        """The next frame; None at the end."""
        size = file.read(4)
        data = file.read(int.from_bytes(size))
        if size and (len(size) < 4 or len(data) < int.from_bytes(size)):
            self.torn = True
            return None
        return data if size else None

    def _decoded(self, read: msgspec.msgpack.Decoder[Any], frame: bytes) -> Any:
        try:
            return read.decode(frame)
        except msgspec.DecodeError as error:
            raise InputError(f"{self.path}: expected an entry of this version's records, got {error}") from error


def header(loaded: Loaded, config: EngineConfig, sizes: SchedulerConfig) -> Header:
    """What a run of this model is made with."""
    versions = {name: metadata.version(name) for name in ("penstock", "torch", "transformers")}
    return Header(
        model=loaded.family.data.model,
        config=config,
        sizes=sizes,
        backend=type(make_backend(config, loaded.device.type)).__name__,
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=str(loaded.device),
        threads=torch.get_num_threads(),
        versions=versions | {"python": platform.python_version()},
    )


def repeat(record: Record, model: str | None = None) -> Iterator[Again]:
    """Load the record's model, or `model` in its place, and do what it holds once more, entry by entry.

    Raises ModelError where the model cannot be loaded, PenstockError where the run cannot go on as it did or one of its
    adapters is not where it was.
    """
    was = record.header
    config = msgspec.structs.replace(was.config, device=was.device, dtype=was.dtype, threads=was.threads, record=None)
    name = model or was.model
    path, revision = (name, "") if Path(name).exists() else name.partition("@")[::2]
    loaded = load(path, config, revision or None)
    backend = make_backend(config, loaded.device.type)
    if type(backend).__name__ != was.backend:
        raise PenstockError(f"replay: expected the backend {was.backend}, got {type(backend).__name__}")
    sizes = was.sizes
    language = LanguageModel(loaded, sizes.pages, sizes.page_tokens, sizes.slots, backend, kv_dtype=config.kv_dtype)
    if loaded.draft is not None:
        attach(loaded.draft, language)
    yield from replay(_worn(record, loaded, language), Scheduler(loaded.family, sizes), language)


def _worn(record: Record, loaded: Loaded, language: LanguageModel) -> Iterator[Entry]:
    """The entries of the scheduler; the language model gets the adapters of the others."""
    for entry in record:
        if isinstance(entry, Fitted):
            _adapt(loaded, language, entry)
        else:
            yield entry


def _adapt(loaded: Loaded, language: LanguageModel, was: Fitted) -> None:
    """Give the language model an adapter that the run had, under its number. PenstockError where its folder is gone or
    has another one now."""
    try:
        adapter = fitted(read_adapter(was.folder), loaded)
    except InputError as error:
        raise PenstockError(f"replay: expected the adapter in {was.folder}, got: {error}") from error
    if adapter.fingerprint != was.fingerprint:
        raise PenstockError(f"replay: expected the adapter that was in {was.folder} then, got another one there")
    adapter.number = was.number
    language.adapters.add(adapter)
