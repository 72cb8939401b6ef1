"""Frozen streams to files and back, beside the event loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, error_of

if TYPE_CHECKING:
    from ..engine.frozen import Snapshot


class Snapshots:
    """The files of one engine, whose model has this `fingerprint`; `kv_dtype` as in `EngineConfig`."""

    def __init__(self, fingerprint: str, page_tokens: int, kv_dtype: str) -> None:
        self._fingerprint, self._kv_dtype = fingerprint, kv_dtype
        self._page_tokens = page_tokens

    async def write(self, path: Path, snapshot: Snapshot) -> None:
        """Raises why the stream could not be copied, and InputError where there can be no file."""
        from ..engine.snapshot import write

        if snapshot.lost is not None:
            raise error_of(snapshot.lost.code, snapshot.lost.message)
        await asyncio.to_thread(write, path, snapshot, self._known(), self._kv_dtype)

    async def read(self, path: Path) -> Snapshot:
        """Raises InputError for a file that does not fit."""
        from ..engine.snapshot import read

        return await asyncio.to_thread(read, path, self._known(), self._page_tokens, self._kv_dtype)

    def _known(self) -> str:
        if not self._fingerprint:
            raise InputError("snapshot: expected a model that `Engine.load` has loaded, got one without a fingerprint")
        return self._fingerprint
