"""Streams that have slid, as plain `transformers` layers compute them: no pages, no code of the engine.

In: a model that `transformers` loaded, rows with their positions, and what is held after each slide. Out: logits.

A stream is a list of rows that grows for ever, on a clock that grows for ever. After a slide it holds three segments
in this order: pinned rows, rows of the memory, and the window, which is every row from `begin` on. A new row attends to
all held rows before it; in a layer with a window, to the newest of these by their order, itself among them. Values are
as they were first computed. So are keys, but turned once by how much higher their row counts now than where it was
laid. Nothing that is held is ever computed again.

The decoder's own layers run one by one. Only the rotary angles, the masks and the cache come from here.
"""

from __future__ import annotations

from collections.abc import Sequence as Row
from typing import Any

import torch

_CAP = "final_logit_softcapping"
Places = Row[tuple[int, int]]  # (row, the position it stands at)


class Held:
    """One stream over `model`. Positions below `known` get the library's own angles (a float32 product); those from
    `known` on get float64 angles."""

    def __init__(self, model: Any, known: int) -> None:
        self.model = model
        self.known = known
        self.inner = getattr(model.model, "language_model", getattr(model.model, "text_model", model.model))
        self.kinds: list[str] = list(getattr(self.inner.config, "layer_types", None) or [""] * len(self.inner.layers))
        self.kinds = self.kinds[: len(self.inner.layers)]
        self.positions = torch.zeros(3, 0, dtype=torch.long)  # where every row was laid, also those not held
        self.keys: list[torch.Tensor] = []  # by layer, (1, heads, rows, size): of every row, as first computed
        self.values: list[torch.Tensor] = []
        self.front: list[tuple[int, int]] = []  # pinned rows and the memory's: (row, how far its key is turned)
        self.begin = 0  # where the window begins

    @property
    def now(self) -> int:
        """How many rows were laid."""
        return self.positions.shape[1]

    @property
    def held(self) -> list[int]:
        """The rows that a new row sees, in their order."""
        return [row for row, _ in self.front] + list(range(self.begin, self.now))

    @torch.no_grad()
    def feed(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        atomic: bool = False,
        deep: Row[torch.Tensor] | None = None,
        ids: Row[int] = (),
    ) -> torch.Tensor:
        """Lay rows `(n, hidden)` at `positions` `(3, n)`; logits `(n, vocabulary)`.

        A model whose rows stand on one axis reads the first. `atomic`: the rows see one another, as Gemma's images do.
        `deep`: what is added behind each of the first layers, `(n, hidden)` each. `ids` of the rows, for a model whose
        layers embed words for themselves.
        """
        if positions.shape != (3, len(embeds)):
            raise ValueError(f"positions: expected {(3, len(embeds))}, got {tuple(positions.shape)}")
        rotary = {kind: self._rotary(kind, embeds, positions) for kind in set(self.kinds)}
        masks = {kind: self._mask(kind, embeds, atomic) for kind in set(self.kinds)}
        cache = _Cache(self)
        own = self._by_layer(embeds, ids)
        states = embeds[None]
        for number, (layer, kind) in enumerate(zip(self.inner.layers, self.kinds, strict=True)):
            states = layer(
                states,
                position_embeddings=rotary[kind],
                attention_mask=masks[kind],
                past_key_values=cache,
                **({} if own is None else {"per_layer_input": own[0][:, :, number], "shared_kv_states": own[1]}),
            )
            if deep is not None and number < len(deep):
                states = states + deep[number]
        self.keys, self.values = cache.keys, cache.values
        self.positions = torch.cat([self.positions, positions], dim=1)
        logits, cap = self.model.lm_head(self.inner.norm(states))[0], self.inner.config.to_dict().get(_CAP)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def slide(
        self,
        pinned: Places = (),
        lift_pinned: int = 0,
        memory: Places = (),
        lift_memory: int = 0,
        begin: int = 0,
    ) -> None:
        """From now on the stream holds the pinned rows, the memory's and those from `begin` on.

        Each row of `pinned` and `memory` comes with its own position, before the segment's lift. A row that was laid at
        three different positions is known by the first; the others keep their distance to it. Both lifts are the
        whole of what is added to these positions, not what this slide adds to the last one's.
        """
        rows = [row for row, _ in (*pinned, *memory)]
        if not self.begin <= begin <= self.now:
            raise ValueError(f"begin: expected {self.begin} to {self.now}, got {begin}")
        if len(set(rows)) < len(rows) or not set(rows) <= set(self.held) - set(range(begin, self.now)):
            raise ValueError(f"rows before the window: expected some of those held, once each, got {rows}")
        laid = self.positions[0].tolist()
        lifted = [(pinned, lift_pinned), (memory, lift_memory)]
        self.front = [(row, position + lift - laid[row]) for segment, lift in lifted for row, position in segment]
        self.begin = begin

    def truncate(self, row: int) -> None:
        """Forget the rows from `row` on, all of the window; the next row that is laid is `row`."""
        if not self.begin <= row <= self.now:
            raise ValueError(f"row: expected {self.begin} to {self.now}, got {row}")
        self.positions = self.positions[:, :row]
        self.keys = [keys[:, :, :row] for keys in self.keys]
        self.values = [values[:, :, :row] for values in self.values]

    def copy(self) -> Held:
        """A stream that goes on by itself from here."""
        other = Held(self.model, self.known)
        other.positions, other.front, other.begin = self.positions, list(self.front), self.begin
        other.keys, other.values = list(self.keys), list(self.values)
        return other

    def _by_layer(self, embeds: torch.Tensor, ids: Row[int]) -> tuple[torch.Tensor, dict[str, Any]] | None:
        """What each layer of Gemma 4 takes beside: its own part of the words, where media is padding, and the keys that
        layers share. None for another model."""
        config = self.inner.config
        if not hasattr(config, "hidden_size_per_layer_input"):
            return None
        if not config.hidden_size_per_layer_input:
            return embeds.new_zeros(1, 1, len(self.inner.layers)), {}
        media = [getattr(self.model.config, f"{kind}_token_id") for kind in ("image", "video", "audio")]
        words = [config.pad_token_id if id in media else id for id in ids]
        own = self.inner.get_per_layer_inputs(torch.tensor([words]), None)
        return self.inner.project_per_layer_inputs(embeds[None], own), {}

    def _frequencies(self, kind: str) -> torch.Tensor:
        """The float32 frequency of each pair that is turned; Gemma 3 has two bases, by kind of layer."""
        rotary = self.inner.rotary_emb
        return getattr(rotary, f"{kind}_inv_freq") if hasattr(rotary, f"{kind}_inv_freq") else rotary.inv_freq

    def _library(self, kind: str, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines `(1, n, size)` by the library's own code."""
        rotary = self.inner.rotary_emb
        if "mrope_section" in (self.inner.config.rope_parameters or {}):
            return rotary(embeds[None], positions[:, None])
        if hasattr(rotary, f"{kind}_inv_freq"):
            return rotary(embeds[None], positions[:1], kind)
        return rotary(embeds[None], positions[:1])

    def _rotary(self, kind: str, embeds: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, but float64 angles where a position is `known` or more. Which axis turns a pair is read off three
        rows that each stand at 1 on one axis and at 0 on the others."""
        known = self._library(kind, embeds, positions.clamp(max=self.known - 1))
        frequencies = self._frequencies(kind).double()
        ones = self._library(kind, embeds[:1].float(), torch.eye(3, dtype=torch.long))[1][0]
        axes = ones[:, : len(frequencies)].abs().argmax(0)
        places = positions[axes].T.repeat(1, 2)  # (n, size)
        angles = places.double() * frequencies.repeat(2)
        names = "attention_scaling", f"{kind}_attention_scaling"
        factor = next(getattr(self.inner.rotary_emb, name) for name in names if hasattr(self.inner.rotary_emb, name))
        beyond = [(wave * factor).to(embeds.dtype)[None] for wave in (angles.cos(), angles.sin())]
        cos, sin = (torch.where(places < self.known, a, b) for a, b in zip(known, beyond, strict=True))
        return cos, sin

    def _mask(self, kind: str, embeds: torch.Tensor, atomic: bool) -> torch.Tensor:
        """`(1, 1, n, held + n)`, 0 where a row sees and the lowest number where it does not."""
        before, count = len(self.held), len(embeds)
        rows, seen = torch.arange(before, before + count)[:, None], torch.arange(before + count)
        whole = getattr(self.inner.config, "use_bidirectional_attention", None) == "vision" and kind[0] == "f"
        sees = (seen <= rows) | (atomic and not whole)
        if kind == "sliding_attention":
            sees = sees & (seen > rows - self.inner.config.sliding_window)
        mask = torch.zeros(sees.shape, dtype=embeds.dtype)
        return mask.masked_fill(~sees, torch.finfo(embeds.dtype).min)[None, None]

    def _turned(self, kind: str, keys: torch.Tensor) -> torch.Tensor:
        """The held rows of a layer's `keys`, turned by its whole shift. Keys have the attention factor already."""
        keys = keys[:, :, self.held]
        shifts = torch.tensor([shift for _, shift in self.front] + [0] * (self.now - self.begin))
        frequencies = self._frequencies(kind).double()
        angles = shifts.double()[:, None] * frequencies
        left, right = keys[..., : 2 * len(frequencies)].double().chunk(2, dim=-1)
        cos, sin = angles.cos(), angles.sin()
        turned = torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(keys.dtype)
        return torch.cat([turned, keys[..., 2 * len(frequencies) :]], dim=-1)


class _Cache:
    """What a layer of the library takes for its cache, during one forward: it is given the new rows' keys and values,
    keeps them behind the stream's, and returns those of all rows that are seen. A decoder of DeepSeek's keeps a latent
    row of both and a part of the keys, which alone turns."""

    def __init__(self, stream: Held) -> None:
        self.stream = stream
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        stream = self.stream
        if not stream.now:
            self.keys.append(keys)
            self.values.append(values)
            return keys, values
        self.keys.append(torch.cat([stream.keys[layer], keys], dim=2))
        self.values.append(torch.cat([stream.values[layer], values], dim=2))
        held = [stream.keys[layer], stream.values[layer]]
        turning = 1 if hasattr(stream.inner.config, "qk_rope_head_dim") else 0
        held[1 - turning] = held[1 - turning][:, :, stream.held]
        held[turning] = stream._turned(stream.kinds[layer], held[turning])
        return torch.cat([held[0], keys], dim=2), torch.cat([held[1], values], dim=2)
