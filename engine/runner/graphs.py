"""Decode steps as graphs: where every stream feeds one token, the decoder's whole pass is one launch.

A graph is recorded for each size of batch when the engine starts, and smaller batches are padded to the next power of
two. Whatever a pass reads and writes lies in buffers that stay where they are. A padding row writes to a page that no
stream has, and sees that one row. What is recorded may not depend on a value: a decoder that asks for one while it runs
is not recorded, and goes on without.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..plan import Feed
from .attention import OPERATOR, Backend, Part, Step, number, write_and_attend
from .upload import upload

log = logging.getLogger("penstock.engine")

Work = Callable[[], torch.Tensor]
# Records what a call launches; gives what launches it once more, and the tensor that it writes each time.
Record = Callable[[Work], tuple[Callable[[], None], torch.Tensor]]
_WARM = 2  # runs before the recording: kernels are compiled and workspaces are made in these


class Unrecordable(RuntimeError):
    """A pass asks for a value while it runs."""


class _Reads(TorchDispatchMode):
    """Raises Unrecordable where the host would wait for the device: once a recording has failed on a device, its
    allocator and its streams cannot be trusted any more, so that has to be known before."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.prim.device.default:  # in inference mode operators that consist of others come whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if func.overloadpacket in _READS or (func.overloadpacket in _PICKS and _has_mask(args[1])):
            raise Unrecordable(f"{func} waits for a value")
        result = func(*args, **kwargs)
        if func.overloadpacket is aten._to_copy and args[0].is_cuda != result.is_cuda:
            raise Unrecordable(f"{func} moves values between host and device")
        return result


@torch.library.register_torch_dispatch(OPERATOR, _Reads)
def _(mode: _Reads, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """What a backend does is looked at too."""
    with mode:
        return write_and_attend(*args, **kwargs)


aten = torch.ops.aten
_READS = (aten._local_scalar_dense, aten.nonzero, aten.equal, aten._unique2, aten.unique_dim, aten.bincount)
_PICKS = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten.masked_select)


def _has_mask(indices: Any) -> bool:
    given = indices if isinstance(indices, list | tuple) else [indices]
    return any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in given)


class CudaRecorder:
    """Records with `torch.cuda.CUDAGraph`; all that it records shares one pool of memory. Other threads may go on to
    use the device meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, work: Work) -> tuple[Callable[[], None], torch.Tensor]:
        with torch.cuda.device(self._device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                out = work()
        return graph.replay, out


class Cache(Protocol):
    """The cache that a pass works on. The last of the tables' rows, and the last page, belong to no stream."""

    backend: Backend
    page_tokens: int
    group: int
    windows: set[int]
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    tables: torch.Tensor


class _Graph:
    """One size of batch: its buffers, and what launches its pass."""

    def __init__(self, size: int, cache: Cache, forward: Callable[[torch.Tensor, torch.Tensor, Step], torch.Tensor]):
        self._size, self._cache, self._forward = size, cache, forward
        # Ids, three positions, slots and lengths, one column a row.
        self._inputs = torch.zeros((6, size), dtype=torch.int64, device=cache.tables.device)
        self._spare = np.array([0, 0, 0, 0, len(cache.tables) - 1, 1], dtype=np.int64)
        rows = np.arange(size)
        slots, lengths = self._inputs[4:].int()
        part = Part(cache.tables, slots, lengths, runs=torch.from_numpy(np.stack([rows, rows + 1], 1)))
        self._part = cache.backend.prepare(part, None, cache.group)

    def fill(self, feeds: list[Feed]) -> None:
        """The rows of the next launch, padded."""
        columns = np.repeat(self._spare[:, None], self._size, axis=1)
        for column, feed in enumerate(feeds):
            (rows,) = feed.rows
            columns[:, column] = [rows.ids[0], *rows.positions[:, 0], feed.slot, feed.first + 1]
        self._inputs.copy_(upload(torch.from_numpy(columns), self._inputs.device), non_blocking=True)

    def work(self) -> torch.Tensor:
        """The pass over what the buffers hold: hidden states `(size, hidden)`."""
        ids, positions, slots, lengths = self._inputs.split((1, 3, 1, 1))
        slots, lengths = slots[0].int(), lengths[0].int()
        places = self._inputs[5] - 1
        pages = self._cache.tables[self._inputs[4], places // self._cache.page_tokens].long()
        target = pages * self._cache.page_tokens + places % self._cache.page_tokens

        everything = self._part._replace(slots=slots, lengths=lengths)
        parts: dict[int | None, list[Part]] = {None: [everything]}
        for window in self._cache.windows:
            parts[window] = [everything._replace(firsts=(lengths - window).clamp(min=0))]
        cache = self._cache
        step = Step(number(cache.backend), cache.keys, cache.values, target, parts)
        return self._forward(ids[0], positions, step)


class Graphs:
    """The recorded passes of one decoder. `forward(ids, positions, step)` gives hidden states `(rows, hidden)`."""

    def __init__(
        self, cache: Cache, forward: Callable[[torch.Tensor, torch.Tensor, Step], torch.Tensor], record: Record
    ) -> None:
        self._cache, self._forward, self._record = cache, forward, record
        self._graphs: dict[int, tuple[_Graph, Callable[[], None], torch.Tensor]] = {}

    @property
    def sizes(self) -> list[int]:
        """Of the batches that are recorded."""
        return sorted(self._graphs)

    @torch.inference_mode()
    def record(self) -> None:
        """Record every size up to that of all slots, the largest first: the others then find room in what it took.
        A decoder that cannot be recorded is left as it is, and the log says so."""
        most = len(self._cache.tables) - 1
        for size in sorted({1 << power for power in range((most - 1).bit_length() + 1)}, reverse=True):
            graph = _Graph(size, self._cache, self._forward)
            graph.fill([])
            try:
                with _Reads():
                    graph.work()
            except Unrecordable as error:
                log.warning("decode steps are not recorded as graphs: %s", error)
                return
            self._graphs[size] = (graph, *self._record(graph.work))

    def run(self, feeds: list[Feed]) -> torch.Tensor | None:
        """Hidden states `(rows, hidden)` of a step in which every stream feeds one token, until the next call; None for
        any other step, and where nothing is recorded."""
        size = 1 << (len(feeds) - 1).bit_length()
        if size not in self._graphs or not all(_is_token(feed) for feed in feeds):
            return None
        graph, launch, hidden = self._graphs[size]
        graph.fill(feeds)
        launch()
        return hidden[: len(feeds)]


def _is_token(feed: Feed) -> bool:
    return len(feed.rows) == 1 and len(feed.rows[0]) == 1 and feed.rows[0].stored is None
