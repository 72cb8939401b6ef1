"""The span store: embeddings of media stay where the towers made them, until nobody names them any more.

An entry is counted: once for each time that it was handed out as part of a span or prompt, and once while the encoder's
cache has it. The scheduler says in its plans which counts to take back. Threads that encode and that run steps share
a store.

On a device other than the CPU an entry goes to host memory beside the step that has fed it: from then on it is kept
only for the case that its rows are fed once more.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count

import msgspec
import torch

from ..embeddings import Embeddings, EncodedPrompt, EncodedSpan
from ..span import Prompt, Rows, Span, Stored
from .upload import to_host, upload


class SpanStore:
    """Entries by number. `own`: those of the model itself, -1, -2, ... in order."""

    def __init__(self, own: Iterable[torch.Tensor] = ()) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._entries = {-1 - place: Embeddings(rows) for place, rows in enumerate(own)}
        self._counts: Counter[int] = Counter()

    @property
    def ids(self) -> set[int]:
        """Of the entries that somebody names; the model's own are left out."""
        with self._lock:
            return set(self._counts)

    def put(self, embeds: Embeddings) -> Stored:
        """A new entry, counted once. What it is cut from is not kept."""
        embeds = Embeddings(_alone(embeds.rows), None if embeds.deep is None else _alone(embeds.deep))
        id = next(self._numbers)
        self.add(id, embeds)
        return Stored(id, 0, len(embeds.rows), embeds.row_bytes)

    def add(self, id: int, embeds: Embeddings) -> None:
        """An entry under a number of its own, as a record has it; counted once more where it is there."""
        with self._lock:
            self._entries.setdefault(id, embeds)
            self._counts[id] += 1

    def again(self, stored: Stored) -> None:
        """An entry that is there is handed out once more."""
        with self._lock:
            assert stored.id in self._entries, f"entry {stored.id} is gone"
            self._counts[stored.id] += 1

    def span(self, encoded: EncodedSpan) -> Span:
        """The span with its embeddings stored."""
        return msgspec.structs.replace(encoded.span, stored=self.put(encoded.embeds))

    def prompt(self, encoded: EncodedPrompt) -> Prompt:
        """The prompt with its embeddings stored, an entry for each run of media."""
        pairs = zip(encoded.rows, encoded.embeds, strict=True)
        return Prompt(
            [run if part is None else msgspec.structs.replace(run, stored=self.put(part)) for run, part in pairs],
            encoded.looks,
        )

    def get(self, stored: Stored) -> Embeddings:
        """The rows that are named. KeyError where the entry is gone."""
        entry = self._entries[stored.id]
        return entry if stored.stop - stored.start == len(entry.rows) else entry.part(slice(stored.start, stored.stop))

    def read(self, stored: Stored) -> Embeddings:
        """The rows that are named, in host memory. Waits for the device, for callers that do not queue work on it."""
        found = self.get(stored)
        if found.rows.is_cuda or found.rows.is_pinned():
            torch.cuda.synchronize()
        return found.to(torch.device("cpu"))

    def whole(self, id: int) -> Embeddings:
        """All rows of an entry, in host memory."""
        return self.read(Stored(id, 0, len(self._entries[id].rows), 0))

    def release(self, counts: Iterable[tuple[int, int]]) -> None:
        """Take back so many counts of each entry; one that has none left is let go."""
        with self._lock:
            for id, times in counts:
                self._counts[id] -= times
                if self._counts[id] <= 0:
                    del self._counts[id], self._entries[id]

    def fed(self, rows: Iterable[Stored]) -> None:
        """These rows are in the cache: entries whose last row is among them leave the device. Nothing waits for it."""
        for stored in rows:
            entry = self._entries.get(stored.id) if stored.id >= 0 else None
            if entry is not None and entry.rows.device.type != "cpu" and stored.stop == len(entry.rows):
                host = Embeddings(to_host(entry.rows), None if entry.deep is None else to_host(entry.deep))
                with self._lock:
                    if stored.id in self._counts:
                        self._entries[stored.id] = host


def laid_out(store: SpanStore, runs: Sequence[Rows], embeds: torch.Tensor) -> torch.Tensor | None:
    """Write the embeddings that the runs of a step name into `embeds` `(rows, hidden)`. Returns what is added after the
    decoder's first layers, `(k, rows, hidden)`, None where nothing is."""
    deep, start = None, 0
    for run in runs:
        stop = start + len(run)
        if run.stored is not None:
            part = store.get(run.stored)
            embeds[start:stop] = upload(part.rows, embeds.device)
            if part.deep is not None:
                if deep is None:
                    deep = embeds.new_zeros(len(part.deep), *embeds.shape)
                deep[:, start:stop] = upload(part.deep, embeds.device)
        start = stop
    return deep


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in memory that nothing else shares."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
