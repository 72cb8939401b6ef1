"""Adapters of low rank (LoRA, arXiv 2106.09685) over layers that stay as they are, several in one batch.

In: adapters, and which rows of a pass wear which. Out: what linear layers give to those rows beside their own. Layers
of the fast decoder ask here by themselves, others by a hook while an engine has an adapter that changes them. Nothing
is merged, so weights may be packed or quantised, and rows that wear nothing are not touched. It knows no files.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch

from ..plan import Feed, Wears
from .upload import upload

P = ParamSpec("P")
R = TypeVar("R")

_WORN: ContextVar[Worn | None] = ContextVar("worn", default=None)
_NUMBERS = itertools.count(1)  # of all engines of a process, which may share one loaded model
_HELD: WeakKeyDictionary[Any, _Held] = WeakKeyDictionary()
_LOCK = threading.Lock()


class Lora(NamedTuple):
    """Of one layer: rows `(n, in)` get `rows @ down.T @ up.T` more. down `(r, in)`; up `(out, r)`, scaled already."""

    down: torch.Tensor
    up: torch.Tensor


class Adapter:
    """What an adapter does to each of the layers that it changes. `fingerprint`: of its content. `encodes`: some of the
    layers are not the decoder's, so media is encoded with it, too."""

    def __init__(self, fingerprint: str, layers: dict[Any, Lora], encodes: bool) -> None:
        self.number = next(_NUMBERS)
        self.fingerprint, self.layers, self.encodes = fingerprint, layers, encodes

    @property
    def wears(self) -> Wears:
        """What a stream with it wears."""
        return Wears(self.number, self.fingerprint)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for pair in self.layers.values() for part in pair)


class Worn:
    """Which rows of a pass wear which adapter: places of rows, `(n,)` int64; None: all."""

    def __init__(self, groups: list[tuple[Adapter, torch.Tensor | None]]) -> None:
        self._groups = groups

    def added(self, layers: Sequence[Any], rows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """`out`, which `layers` have made of `rows`, one behind the other, with what the adapters give: for each layer
        two products over the rows that wear an adapter."""
        stop = 0
        for layer in layers:
            start, stop = stop, stop + layer.out_features
            for adapter, places in self._groups:
                pair = adapter.layers.get(layer)
                if pair is None:
                    continue
                part, own = out[..., start:stop], rows if places is None else rows.index_select(-2, places)
                more = (own.to(pair.down.dtype) @ pair.down.T @ pair.up.T).to(out.dtype)
                if places is None:
                    part += more
                else:
                    part.index_add_(part.dim() - 2, places, more)
        return out


class Adapters:
    """The adapters of one engine, by number. One thread adds and takes away; any may ask."""

    def __init__(self) -> None:
        self._adapters: dict[int, Adapter] = {}

    def __contains__(self, adapter: Adapter) -> bool:
        return adapter.number in self._adapters

    def __getitem__(self, number: int) -> Adapter:
        return self._adapters[number]

    def get(self, number: int) -> Adapter | None:
        """The adapter of this number; None where it has been removed."""
        return self._adapters.get(number)

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        return sum(adapter.nbytes for adapter in self._adapters.values())

    def add(self, adapter: Adapter) -> None:
        """From now on feeds may name it. Not to be called while a pass runs."""
        self._adapters[adapter.number] = adapter
        _hold(adapter.layers)

    def remove(self, adapter: Adapter) -> None:
        """No feed names it any more. Not to be called while a pass runs."""
        if self._adapters.pop(adapter.number, None) is not None:
            _let_go(adapter.layers)

    def clear(self) -> None:
        """None is left."""
        for adapter in list(self._adapters.values()):
            self.remove(adapter)

    def worn(self, feeds: Sequence[Feed], device: torch.device) -> Worn | None:
        """Which rows of a step wear which; None where none wears any."""
        if not any(feed.adapter for feed in feeds):
            return None
        places: dict[int, list[torch.Tensor]] = {}
        stop = 0
        for feed in feeds:
            start, stop = stop, stop + sum(len(run) for run in feed.rows)
            places.setdefault(feed.adapter, []).append(torch.arange(start, stop))
        if len(places) == 1:
            return Worn([(self[number], None) for number in places])
        places.pop(0, None)
        return Worn([(self[number], upload(torch.cat(parts), device)) for number, parts in places.items()])


@contextmanager
def wearing(worn: Worn | None) -> Iterator[None]:
    """Inside, and in this thread and greenlet only, layers give their rows what they wear."""
    before = _WORN.set(worn)
    try:
        yield
    finally:
        _WORN.reset(before)


def worn_now() -> Worn | None:
    """What is worn here. Nothing in a pass that is compiled: one with adapters is not."""
    return None if torch.compiler.is_compiling() else _WORN.get()


def carried(work: Callable[P, R]) -> Callable[P, R]:
    """`work` with what is worn here, in whatever thread it is called."""
    worn = _WORN.get()
    if worn is None:
        return work

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with wearing(worn):
            return work(*args, **kwargs)

    return call


class _Held:
    """How many adapters change a layer, and the hook by which it asks for them."""

    def __init__(self, layer: Any) -> None:
        self.count = 0
        self.hook = layer.register_forward_hook(_give)


def _give(layer: Any, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor | None:
    worn = _WORN.get()
    return None if worn is None else worn.added((layer,), given[0], out)


def _hold(layers: Iterable[Any]) -> None:
    with _LOCK:
        for layer in layers:
            held = _HELD.get(layer)
            if held is None:
                held = _HELD[layer] = _Held(layer)
            held.count += 1


def _let_go(layers: Iterable[Any]) -> None:
    with _LOCK:
        for layer in layers:
            held = _HELD[layer]
            held.count -= 1
            if not held.count:
                held.hook.remove()
                del _HELD[layer]
