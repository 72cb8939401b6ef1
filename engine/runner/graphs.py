"""Steps as graphs: the decoder's whole pass is one launch.

Graphs are recorded when the engine starts: for steps in which every stream feeds one token, and for steps that append a
few rows. There is one for each of some sizes, and smaller batches are padded. Whatever a pass reads and writes lies in
buffers that stay where they are. A padding row writes to a page that no stream has, and sees that one row.
What is recorded may not depend on a value: a decoder that asks for one while it runs is not recorded, and goes on
without. Embeddings of media are laid out before the launch; where a tower gives some for deeper layers as well, the
step is not launched as a graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..config import EngineConfig
from ..plan import Feed
from .attention import OPERATOR, Backend, Chunk, Part, Reach, Step, number, write_and_attend
from .batch import StepRows, batched
from .cache import Cache
from .upload import upload

log = logging.getLogger("penstock.engine")

Work = Callable[[], torch.Tensor]
# Records what a call launches; gives what launches it once more, and the tensor that it writes each time.
Record = Callable[[Work], tuple[Callable[[], None], torch.Tensor]]
_WARM = 2  # runs before the recording: kernels are compiled and workspaces are made in these
# Steps that append: the fewest rows of a recording, and the most. Beyond that starting kernels costs little.
_LEAST, APPENDED = 16, 256
# Sizes above are multiples of this step, since there more rows cost more time.
_FINE, _FINE_STEP = 64, 32


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


class Owner(Protocol):
    """Whose cache a pass works on. The last of the tables' rows, and the last page, belong to no stream."""

    backend: Backend
    group: int
    windows: set[int | Chunk]
    chunks: dict[int, Chunk]
    cache: Cache


# Ids of rows, their embeddings where they are not words, positions `(3, rows)` and the step's attention, to hidden
# states `(rows, hidden)`.
Forward = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, Step], torch.Tensor]


class _Graph:
    """One size of batch: its buffers, and what launches its pass. `embeds`: its rows are not given as ids but as
    embeddings, which lie in this buffer."""

    def __init__(self, size: int, owner: Owner, forward: Forward, embeds: torch.Tensor | None = None) -> None:
        self._size, self._owner, self._forward, self._embeds = size, owner, forward, embeds
        # Ids, three positions, slots, lengths and places, one column a row.
        self._inputs = torch.zeros((7, size), dtype=torch.int64, device=owner.cache.device)
        self._spare = np.array([0, 0, 0, 0, len(owner.cache.tables) - 1, 1, 0], dtype=np.int64)
        rows = np.arange(size) if embeds is None else np.array([0])
        slots, lengths = self._inputs[4:6].int()
        part = Part(owner.cache.tables, slots, lengths, runs=torch.from_numpy(np.stack([rows, [*rows[1:], size]], 1)))
        self._part = owner.backend.prepare(part, None, owner.group)
        self._write(np.empty((7, 0), dtype=np.int64))

    def fill(self, batch: StepRows, embeds: torch.Tensor | None = None) -> bool:
        """The rows of the next launch, padded. False where they are more than was recorded for."""
        padding = [[len(batch), self._size]] if len(batch) < self._size else []
        runs = self._part._replace(runs=torch.from_numpy(np.array([*batch.runs, *padding])))
        if self._embeds is not None and not self._owner.backend.refill(self._part.made, runs, self._owner.group):
            return False
        self._write(np.stack([batch.ids, *batch.positions, batch.slots, batch.ends, batch.places]))
        if self._embeds is not None and embeds is not None:
            self._embeds[: len(embeds)] = embeds
        return True

    def _write(self, columns: np.ndarray) -> None:
        padding = np.repeat(self._spare[:, None], self._size - columns.shape[1], axis=1)
        inputs = torch.from_numpy(np.concatenate([columns, padding], 1))
        self._inputs.copy_(upload(inputs, self._inputs.device), non_blocking=True)

    def work(self) -> torch.Tensor:
        """The pass over what the buffers hold: hidden states `(size, hidden)`."""
        ids, positions, slots, lengths, places = self._inputs.split((1, 3, 1, 1, 1))
        owner, cache = self._owner, self._owner.cache
        everything = self._part._replace(slots=slots[0].int(), lengths=lengths[0].int())
        parts: dict[Reach, list[Part]] = {None: [everything]}
        for window in owner.windows:
            place = places[0].int()
            back = place // window.rows * window.rows if isinstance(window, Chunk) else place + 1 - window
            parts[window] = [everything._replace(firsts=back.clamp(min=0))]
        made = number(owner.backend), cache.keys, cache.values, cache.rows(slots[0], places[0])
        step = Step(*made, parts, shared=cache.shared, chunks=owner.chunks)
        return self._forward(ids[0], self._embeds, positions, step)


class Graphs:
    """The recorded passes of one decoder: of steps in which each of up to `slots` streams feeds one token, and of steps
    that append, up to `most` rows in all. A stream that no longer holds all of its rows is in none of them."""

    def __init__(self, owner: Owner, forward: Forward, record: Record, slots: int, most: int) -> None:
        self._owner, self._forward, self._record, self._slots, self._most = owner, forward, record, slots, most
        self._tokens: dict[int, _Recorded] = {}
        self._appends: dict[int, _Recorded] = {}

    @property
    def sizes(self) -> tuple[list[int], list[int]]:
        """Of the batches that are recorded: tokens, and rows of steps that append."""
        return sorted(self._tokens), sorted(self._appends)

    @torch.inference_mode()
    def record(self, embed: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Record every size, the largest first: the others then find room in what it took. A decoder that cannot be
        recorded is left as it is, and the log says so. `embed` makes embeddings of ids."""
        device = self._owner.cache.device
        for size in _sizes(1, self._slots):
            if not self._add(self._tokens, size, None):
                return
        for size in _sizes(_LEAST, self._most):
            if not self._add(self._appends, size, embed(torch.zeros(size, dtype=torch.int64, device=device))):
                return

    def _add(self, graphs: dict[int, _Recorded], size: int, embeds: torch.Tensor | None) -> bool:
        graph = _Graph(size, self._owner, self._forward, embeds)
        try:
            with _Reads():
                graph.work()
            graphs[size] = _Recorded(graph, *self._record(graph.work))
        except RuntimeError as error:  # an Unrecordable, or what the device says
            log.warning("steps of up to %d rows are not recorded as graphs: %s", size, error)
            return False
        return True

    def tokens(self, feeds: list[Feed]) -> torch.Tensor | None:
        """Hidden states `(rows, hidden)` of a step in which every stream feeds one token, until the next call; None for
        any other step, and where nothing is recorded."""
        recorded = self._tokens.get(padded(len(feeds)))
        if recorded is None or not all(_is_token(feed) for feed in feeds):
            return None
        return recorded.run(batched(feeds))

    def appended(self, batch: StepRows, embeds: torch.Tensor) -> torch.Tensor | None:
        """The same for a step of these rows, whose embeddings are `(rows, hidden)`; None where it is larger than what
        is recorded."""
        recorded = self._appends.get(padded(max(_LEAST, len(batch))))
        return None if recorded is None else recorded.run(batch, embeds)


class _Recorded(NamedTuple):
    """A graph, what launches it, and the hidden states that it writes each time."""

    graph: _Graph
    launch: Callable[[], None]
    hidden: torch.Tensor

    def run(self, batch: StepRows, embeds: torch.Tensor | None = None) -> torch.Tensor | None:
        if not self.graph.fill(batch, embeds):
            return None
        self.launch()
        return self.hidden[: len(batch)]


def padded(rows: int) -> int:
    """The size that is recorded for so many rows: the next power of two, of many the next multiple of 32. Of a few rows
    each costs next to nothing, since a pass over the weights takes its time for one; of many it costs its share."""
    return 1 << (rows - 1).bit_length() if rows <= _FINE else -(-rows // _FINE_STEP) * _FINE_STEP


def _sizes(least: int, most: int) -> list[int]:
    """All sizes for `least` to `most` rows, the largest first."""
    return sorted({padded(rows) for rows in range(least, most + 1)}, reverse=True)


def is_recorded(config: EngineConfig, device: str) -> bool:
    """Whether passes are recorded on a device of this name, such as "cuda:0"."""
    return device.startswith("cuda") and config.cuda_graphs is not False and config.backend != "reference"


def _is_token(feed: Feed) -> bool:
    whole = not feed.begin and not feed.fronts
    return whole and len(feed.rows) == 1 and len(feed.rows[0]) == 1 and feed.rows[0].stored is None
