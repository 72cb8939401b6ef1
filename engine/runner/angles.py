"""Positions as angles: how far queries and keys turn, and how far they turn on where rows count as standing elsewhere.

In: the rotary module of a decoder of `transformers`, and positions. Out: cosines and sines, turned queries. Positions
grow as long as a stream lives, so angles are taken in float64 (arXiv 2104.09864).
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from ...errors import ModelError
from .attention import Turn
from .pointwise import Turns


class Rotary(NamedTuple):
    """Positions as angles: frequencies `(n / 2,)` for the first n numbers of a head, the axis of positions that each
    follows, and a factor. Positions below `known`, which the model has, give angles as the library takes them, in
    float32; those behind them, which only a stream with a window comes to, are exact."""

    frequencies: torch.Tensor
    axes: torch.Tensor
    factor: float
    known: int

    def __call__(self, positions: torch.Tensor, dtype: torch.dtype) -> Turns:
        """Those of rows at positions `(axes, rows)`."""
        angles = self._angles(positions[self.axes]).t()
        cos, sin = ((turn(angles) * self.factor).to(positions.device, dtype) for turn in (torch.cos, torch.sin))
        return torch.cat([cos, cos], 1)[:, None], torch.cat([-sin, sin], 1)[:, None]

    def _angles(self, positions: torch.Tensor) -> torch.Tensor:
        """In float64, of positions `(n / 2, rows)`; on the host where the device has no float64."""
        if positions.device.type == "mps":
            return self._replace(frequencies=self.frequencies.cpu())._angles(positions.cpu())
        frequencies = self.frequencies[:, None]
        library = (positions.float() * frequencies).double()
        return torch.where(positions.abs() < self.known, library, positions.double() * frequencies.double())


def rotary(module: Any, kind: str, axes: int, dim: int, known: int) -> Rotary:
    """The library's rotary positions for layers of this kind ("" where all are the same). Which axis a frequency
    follows shows where the others stand still."""
    prefix, named = (f"{kind}_", [kind]) if kind else ("", [])
    frequencies = getattr(module, f"{prefix}inv_freq").float()
    if len(frequencies) > dim // 2:
        raise ModelError(f"expected rotary positions over {dim} numbers of a head at most, got {2 * len(frequencies)}")
    follows = torch.zeros(len(frequencies), dtype=torch.long, device=frequencies.device)
    for axis in range(1, axes):
        places = torch.zeros((axes, 1, 1), dtype=torch.long, device=frequencies.device)
        places[axis] = 1
        moved = module(frequencies[None, None], places, *named)[1][..., : len(frequencies)]
        follows[moved.flatten() != 0] = axis
    return Rotary(frequencies, follows, float(getattr(module, f"{prefix}attention_scaling")), known)


def rotaries(text: Any, axes: int, known: int) -> list[Rotary]:
    """Of each layer of the library's decoder `text`, which knows positions below `known`: some have other frequencies
    for layers of another kind."""
    kinds = getattr(text.config, "layer_types", None) or [""] * len(text.layers)
    apart = {kind for kind in kinds if hasattr(text.rotary_emb, f"{kind}_inv_freq")}  # else one for all
    named = [kind if kind in apart else "" for kind in kinds]
    dims = {kind: _turned_numbers(layer.self_attn) for kind, layer in zip(named, text.layers, strict=True)}
    made = {kind: rotary(text.rotary_emb, kind, axes, dims[kind], known) for kind in sorted(dims)}
    return [made[kind] for kind in named]


def _turned_numbers(attention: Any) -> int:
    """How many numbers of a head may turn; some say how many do."""
    return getattr(attention, "qk_rope_head_dim", None) or attention.head_dim


class Turning:
    """How far rows turn in each layer. `halves`: number i of a head turns together with number i + n / 2 of the n that
    turn, as in Llama; else numbers 2 i and 2 i + 1 do. `last`: the last n of a head turn, as in DeepSeek's, else the
    first."""

    def __init__(self, layers: list[Rotary], halves: bool, last: bool = False) -> None:
        kinds = {id(one): one for one in layers}
        # The factor is in queries and keys already.
        self._kinds = {kind: one._replace(factor=1.0, known=0) for kind, one in kinds.items()}
        self._layers, self._halves, self._last = [id(one) for one in layers], halves, last

    def __call__(self, steps: torch.Tensor) -> list[Turn]:
        """What turns `(rows, heads, dim)` on by so many positions `(rows,)`, on all axes, in each layer."""
        turns = {kind: self._turns(one, steps) for kind, one in self._kinds.items()}
        return [partial(self._turned, turns[kind]) for kind in self._layers]

    def _turns(self, one: Rotary, steps: torch.Tensor) -> Turns:
        cos, sin = one(steps[None].expand(3, -1), torch.float32)
        if self._halves:
            return cos, sin
        half = cos.shape[-1] // 2
        sines = torch.stack([sin[..., :half], sin[..., half:]], -1).flatten(-2)
        return cos[..., :half].repeat_interleave(2, -1), sines

    def _turned(self, turns: Turns, rows: torch.Tensor) -> torch.Tensor:
        cos, sin = turns
        if self._last and cos.shape[-1] < rows.shape[-1]:
            still, moved = rows.split((rows.shape[-1] - cos.shape[-1], cos.shape[-1]), -1)
            return torch.cat([still, self._moved(turns, moved)], -1)
        moved = self._moved(turns, rows[..., : cos.shape[-1]])
        return moved if moved.shape == rows.shape else torch.cat([moved, rows[..., cos.shape[-1] :]], -1)

    def _moved(self, turns: Turns, rows: torch.Tensor) -> torch.Tensor:
        cos, sin = turns
        moved = rows.float()
        if self._halves:
            others = moved.roll(cos.shape[-1] // 2, -1)
        else:
            others = moved.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return torch.addcmul(moved * cos, others, sin).to(rows.dtype)


class InFloat64(TorchFunctionMode):
    """Leaves float64 as it is where a module of the library would have float32: some compute in that whatever they are
    given."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        narrows = func in (torch.Tensor.to, torch.Tensor.float) and args[0].dtype == torch.float64
        return args[0] if narrows and result.dtype == torch.float32 else result


class LongRotary(torch.nn.Module):
    """The rotary module of the library, for a decoder that runs as the library has it: exact for rows at positions from
    `known` on, which only a stream with a window comes to."""

    def __init__(self, module: Any, known: int) -> None:
        super().__init__()
        self.library, self._exact, self._known = module, (copy.deepcopy(module).double(),), known

    def __getattr__(self, name: str) -> Any:
        """What decoders ask of their rotary module is the library's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("library"), name)

    def forward(self, x: torch.Tensor, position_ids: torch.Tensor, *named: Any, **others: Any) -> Any:
        """What the library's gives, called as it is: x `(1, n, hidden)`, positions `(1, n)` or `(3, 1, n)`."""
        given = self.library(x, position_ids, *named, **others)
        far = position_ids >= self._known
        if far.device.type == "cpu" and not far.any():
            return given
        with InFloat64():
            exact = self._exact[0](x.double(), position_ids.double(), *named, **others)
        far = (far.any(0) if far.dim() == 3 else far)[..., None]
        return tuple(torch.where(far, one.to(other.dtype), other) for one, other in zip(exact, given, strict=True))
