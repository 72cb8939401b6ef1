"""Linear layers of a decoder as they are fastest: those that read the same rows as one, and on a CPU in bfloat16 with
weights in oneDNN's own order. In: layers of torch. Out: one layer for each pass over the rows.

A weight is held once. Of layers that were made one, each keeps a view of its part. The weight of a layer that was
packed is released: the layer is left with an empty one and can no longer run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from ...errors import ModelError
from .lora import worn_now

_TRIALS = 5
# Rows of steps by which is decided whether a weight is packed: one stream that decodes, many, and a picture.
_ROWS = (1, 32, 64)


class Packed(torch.nn.Module):
    """A `torch.nn.Linear` in bfloat16 whose weight lies in the order in which oneDNN reads it."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.packed_bytes = linear.weight.nbytes

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, self._weight, self.bias, "none", [], "")


class Linear:
    """Layers that read the same rows as one: their outputs back to back. Each of `layers` keeps a view of its part of
    the weight. ModelError where they are not torch's own linear layers, all with biases or none."""

    def __init__(self, *layers: Any) -> None:
        for layer in layers:
            if not is_plain(layer):
                raise ModelError(f"expected plain linear layers, got {type(layer).__name__}")
        if len({layer.bias is None for layer in layers}) > 1:
            raise ModelError("expected biases on all layers that read the same rows or on none, got some")
        self.layers = layers
        self._whole: torch.nn.Module = layers[0] if len(layers) == 1 else _fused(layers)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """The layers' outputs, with what rows get that wear an adapter: here, and not by the layers' hooks."""
        out, worn = self._whole.forward(rows), worn_now()
        return out if worn is None else worn.added(self.layers, rows, out)

    def pack(self, packing: Packing) -> None:
        """Have the weight in oneDNN's order, where that is faster. The weights of the layers are then released."""
        self._whole = packing(self._whole, *self.layers)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the weight where it is packed."""
        return getattr(self._whole, "packed_bytes", 0)


@torch.no_grad()
def _fused(layers: tuple[torch.nn.Linear, ...]) -> torch.nn.Linear:
    first, widths = layers[0], [layer.out_features for layer in layers]
    whole = torch.nn.Linear(first.in_features, sum(widths), first.bias is not None, device="meta")
    for name in ("weight", "bias") if first.bias is not None else ("weight",):
        joined = torch.cat([getattr(layer, name) for layer in layers])
        setattr(whole, name, torch.nn.Parameter(joined, requires_grad=False))
        for layer, part in zip(layers, joined.split(widths), strict=True):
            setattr(layer, name, torch.nn.Parameter(part, requires_grad=False))
    return whole


class Packing:
    """Packs layers where that is faster on this machine: measured once for each shape, in milliseconds."""

    def __init__(self) -> None:
        self._gains: dict[tuple[int, int], bool] = {}

    @torch.inference_mode()
    def __call__(self, linear: Any, *parts: Any) -> Any:
        """`linear` packed, or as it is. Where it is packed, its weight is released, and so are those of its `parts`."""
        if not is_plain(linear) or not _packable(linear):
            return linear
        shape = (linear.in_features, linear.out_features)
        if not self._gains.get(shape, True):
            return linear
        packed = Packed(linear)
        if shape not in self._gains:
            self._gains[shape] = _same(linear, packed) and _gains(linear, packed)
            if not self._gains[shape]:
                return linear
        for layer in (linear, *parts):
            layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)
        return packed


def _packable(linear: torch.nn.Linear) -> bool:
    weight = linear.weight
    return weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and torch.backends.mkldnn.is_available()


def _same(linear: torch.nn.Linear, packed: Packed) -> bool:
    """Whether a packed layer gives the same numbers, but for one rounding."""
    rows = torch.linspace(-1, 1, 2 * linear.in_features).view(2, -1).bfloat16()
    return torch.allclose(packed(rows).float(), linear(rows).float(), rtol=2**-7, atol=1e-3)


def _gains(linear: torch.nn.Linear, packed: Packed) -> bool:
    """Whether a packed layer is faster, summed over few rows and many (`_ROWS`): by the time that one thread computes,
    so that it matters little what else the machine does; the best of some runs that alternate."""
    threads, saved = torch.get_num_threads(), 0.0
    torch.set_num_threads(1)
    try:
        for count in _ROWS:
            rows = torch.ones(count, linear.in_features, dtype=torch.bfloat16)
            times = [(_seconds(linear, rows), _seconds(packed, rows)) for _ in range(_TRIALS)]
            plain, fast = (min(column) for column in zip(*times, strict=True))
            saved += (plain - fast) / plain
    finally:
        torch.set_num_threads(threads)
    return saved > 0


def _seconds(layer: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> float:
    start = time.thread_time()
    layer(rows)
    return time.thread_time() - start


def is_plain(layer: object) -> bool:
    """Whether a layer is torch's own linear layer and nothing more: no adapter, no hooks, weights that are floats and
    no quantised tensor that passes for them."""
    if type(layer) is not torch.nn.Linear or "forward" in vars(layer):
        return False
    hooked = layer._forward_hooks or layer._forward_pre_hooks
    return not hooked and type(layer.weight) is torch.nn.Parameter and layer.weight.is_floating_point()
