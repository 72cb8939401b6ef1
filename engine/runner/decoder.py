"""One plain decoder for all that have the shape of Llama's: norms, grouped heads with rotary positions, a gated MLP.

In: the decoder of a model of `transformers`, whose weights it takes. Out: hidden states. It computes what the library's
module computes, in fewer and larger operations: queries, keys and values are one linear layer, gate and up are one,
queries and keys are normed and turned together. What stands between linear layers and attention is computed by a
`Pointwise` (pointwise.py). Nothing waits for the device, so that a graph can record it. Whether it really computes the
same is tried at load (takeover.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ...errors import ModelError
from .angles import rotaries
from .attention import Step, attend
from .linears import Linear
from .pointwise import Norm, Pointwise, Turns

_NORMS = (
    *("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    *("self_attn.q_norm", "self_attn.k_norm"),
)


class Asked(NamedTuple):
    """How the library's layer asks for attention: its scale, how many rows back a row sees (None: all), and at what its
    scores are capped (0: nothing)."""

    scale: float
    window: int | None
    cap: float = 0.0


class GatedMlp:
    """down(act(gate(rows)) * up(rows))"""

    def __init__(self, mlp: Any) -> None:
        self._gate_up, self._down, self._act = Linear(mlp.gate_proj, mlp.up_proj), Linear(mlp.down_proj), mlp.act_fn
        self.linears = [self._gate_up, self._down]

    def __call__(self, rows: torch.Tensor, pointwise: Pointwise) -> torch.Tensor:
        return self._down(pointwise.gated(self._gate_up(rows), self._act))


class LibraryMlp:
    """Any other, experts for instance: `mlp` as it is, which takes and gives `(1, rows, width)`."""

    def __init__(self, mlp: Any) -> None:
        self._mlp = mlp
        self.linears: list[Linear] = []

    def __call__(self, rows: torch.Tensor, _: Pointwise) -> torch.Tensor:
        out = self._mlp(rows[None])
        return (out[0] if isinstance(out, tuple) else out)[0]


class Layer:
    """One layer. `norms` are its norms by the names of the library's modules. An MLP that is not gated runs as the
    library has it."""

    def __init__(self, number: int, module: Any, asked: Asked) -> None:
        attention, mlp = module.self_attn, module.mlp
        self.number, self.asked = number, asked
        self.norms = {name: _norm(part) for name in _NORMS if (part := _submodule(module, name)) is not None}
        self.before, self._after, self._before_mlp, self._after_mlp = self._places()
        self._dim = attention.head_dim
        self._queries = attention.q_proj.out_features // self._dim
        self._keys = attention.k_proj.out_features // self._dim
        self._turned_norm = self._norm_of_heads()
        self._qkv = Linear(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = Linear(attention.o_proj)
        self._mlp = GatedMlp(mlp) if hasattr(mlp, "gate_proj") else LibraryMlp(mlp)
        self.linears = [self._qkv, self._out, *self._mlp.linears]

    def __call__(
        self, hidden: torch.Tensor, rows: torch.Tensor, turns: Turns, step: Step, pointwise: Pointwise, following: Norm
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """hidden `(rows, width)`, and their norm by `before`; turns as `Rotary` gives them. Returns the hidden states
        that leave the layer, and their norm by `following`: a sum and its norm may be one kernel."""
        out = self._out(self._attended(rows, turns, step, pointwise))
        hidden, rows = pointwise.added(hidden, out, self._after, self._before_mlp)
        return pointwise.added(hidden, self._mlp(rows, pointwise), self._after_mlp, following)

    def _attended(self, rows: torch.Tensor, turns: Turns, step: Step, pointwise: Pointwise) -> torch.Tensor:
        heads = self._qkv(rows).view(len(rows), -1, self._dim)
        cache = step.keys[self.number], step.values[self.number], step.target
        queries, keys, values = pointwise.turned(heads, self._turned_norm, turns, *cache)
        out = attend(self.number, queries, keys, values, step, *self.asked)
        return out.reshape(len(rows), -1)

    def _places(self) -> tuple[Norm, Norm | None, Norm, Norm | None]:
        """The norms before and after attention, before and after the MLP. A layer of two has them before."""
        first, after = self.norms["input_layernorm"], self.norms["post_attention_layernorm"]
        before_mlp = self.norms.get("pre_feedforward_layernorm")
        if before_mlp is None:
            return first, None, after, None
        return first, after, before_mlp, self.norms["post_feedforward_layernorm"]

    def _norm_of_heads(self) -> Norm | None:
        """The norms of queries and keys as one, with the weight of each head."""
        query, key = self.norms.get("self_attn.q_norm"), self.norms.get("self_attn.k_norm")
        if query is None or key is None:
            return None
        if query.centred or query.weight.shape != (self._dim,) or query[2:] != key[2:]:
            raise ModelError("expected norms of queries and keys over each head, got others")
        weights = query.weight.expand(self._queries, -1), key.weight.expand(self._keys, -1)
        return query._replace(weight=torch.cat(weights))


class FastDecoder:
    """The decoder `text` of the library, in fewer operations. It knows positions below `known`, of as many `axes` as
    it has. `asked`: how each layer asks for attention. `pointwise`
    may be exchanged."""

    def __init__(self, text: Any, axes: int, known: int, asked: list[Asked]) -> None:
        self.text = text
        self.layers = [Layer(number, module, asked[number]) for number, module in enumerate(text.layers)]
        self.norm = _norm(text.norm)
        self.pointwise = Pointwise()
        self._rotaries = rotaries(text, axes, known)

    @property
    def linears(self) -> list[Linear]:
        """All linear layers that it runs itself."""
        return [linear for layer in self.layers for linear in layer.linears]

    def turns(self, positions: torch.Tensor, dtype: torch.dtype) -> list[Turns]:
        """Of each layer, for positions `(3, rows)`."""
        kinds = {id(one): one for one in self._rotaries}
        made = {kind: one(positions, dtype) for kind, one in kinds.items()}
        return [made[id(one)] for one in self._rotaries]

    def __call__(
        self, embeds: torch.Tensor, positions: torch.Tensor, step: Step, deep: list[torch.Tensor]
    ) -> torch.Tensor:
        """Hidden states after the last norm, `(rows, width)`, of embeds `(rows, width)` at positions `(3, rows)`.
        `deep` are added after the first layers, each `(rows, width)`."""
        hidden, rows = embeds, self.pointwise.normed(embeds, self.layers[0].before)
        for layer, turns in zip(self.layers, self.turns(positions, embeds.dtype), strict=True):
            hidden, rows = layer(hidden, rows, turns, step, self.pointwise, self.following(layer.number))
            if layer.number < len(deep):
                hidden = self.deepened(layer.number, hidden, deep)
                rows = self.pointwise.normed(hidden, self.following(layer.number))
        return rows

    def following(self, number: int) -> Norm:
        """The norm through which goes what leaves layer `number`."""
        return self.norm if number + 1 == len(self.layers) else self.layers[number + 1].before

    def deepened(self, number: int, hidden: torch.Tensor, deep: list[torch.Tensor]) -> torch.Tensor:
        """What leaves layer `number`, with what is added there."""
        return hidden + deep[number] if number < len(deep) else hidden


def _submodule(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part, None)
    return module


def _norm(module: Any) -> Norm:
    """A norm of the library, by what its module gives for a row of ones, whose norm they are."""
    eps = next((getattr(module, name) for name in ("variance_epsilon", "eps") if hasattr(module, name)), None)
    weight = getattr(module, "weight", None)
    if eps is None or weight is None or weight.dim() != 1:
        raise ModelError(f"expected a norm with a weight and an eps, got {type(module).__name__}")
    weight = weight.detach()
    if isinstance(module, torch.nn.LayerNorm):
        return Norm(weight, None if module.bias is None else module.bias.detach(), eps, centred=True)
    gives = module(torch.ones_like(weight)).float()
    from_one = 1 + weight.float()
    if float((gives - from_one).abs().mean()) < float((gives - weight.float()).abs().mean()):
        return Norm(from_one, None, eps, wide=True)
    return Norm(weight, None, eps)
