"""Layers that keep one state of all rows (a convolution's last rows, a recurrence), in a step of many streams.

The library's layer takes one sequence and a cache with its state. Here it is called for each stream's rows alone, with
a cache that holds what the stream's state was; streams with as many rows go together. States lie in entries; which are
read and written is in the plan (`StateUse`). An entry that is read is not written in the same step, so a step that
failed can be done again.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from ...errors import ModelError
from ..plan import STATES, Feed, Plan, StateMove, StateUse
from .lora import Adapters, Worn, wearing
from .out_of_memory import moved
from .shapes import WITH_STATES
from .upload import to_host, upload

# The tensors that one layer keeps, each by its kind and its number among them.
Kept = dict[tuple[str, int], torch.Tensor]


class SameLength(NamedTuple):
    """Pieces of streams that are as long as one another and wear the same: their rows in the step `(pieces, length)`,
    the entries before them `(pieces,)`, and those after them, of all but the pieces that end in none."""

    worn: Worn | None
    rows: torch.Tensor
    begins: torch.Tensor
    ending: torch.Tensor
    ends: torch.Tensor


class StatesStep(NamedTuple):
    """What layers with states need of a step: pieces in rounds, as a piece may begin where another has ended."""

    rounds: list[list[SameLength]]
    pools: dict[int, Kept]

    def mixed(self, mixer: Mixer, hidden: torch.Tensor) -> torch.Tensor:
        """What a layer makes of all rows of the step, `(1, rows, hidden)`; the states go where the plan has it."""
        pool, out = self.pools[mixer.layer], torch.empty_like(hidden)
        for together in (one for many in self.rounds for one in many):
            cache = OneLayer({name: tensor[together.begins] for name, tensor in pool.items()})
            with wearing(together.worn):  # its rows are not those of the step any more
                out[0, together.rows] = mixer.run(hidden[0, together.rows], cache)
            for name, tensor in cache.kept.items():
                pool[name].index_copy_(0, together.ends, tensor[together.ending].to(pool[name].dtype))
        return out


class OneLayer:
    """A layer's part of the library's cache, for some sequences: `kept` `(sequences, ...)` each. The layer writes into
    the tensors or exchanges them."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept

    def get_conv_state(self, _: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.kept.get(("conv", state_idx))

    def get_recurrent_state(self, _: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.kept.get(("recurrent", state_idx))

    def update_conv_state(
        self, conv_states: torch.Tensor, _: int, state_idx: int = 0, conv_kernel_size: int | None = None, **__: Any
    ) -> torch.Tensor:
        """The rows `(sequences, width, rows)` behind those that were kept; the last of them are kept."""
        before = self.kept.get(("conv", state_idx))
        size = conv_kernel_size or (conv_states.shape[-1] if before is None else before.shape[-1])
        if before is None:
            before = conv_states.new_zeros(*conv_states.shape[:-1], size)
        whole = torch.cat([before, conv_states], dim=-1)
        self.kept["conv", state_idx] = whole[..., -size:]
        return whole

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> torch.Tensor:
        self.kept["recurrent", state_idx] = recurrent_states
        return recurrent_states

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        return bool(self.kept)

    def is_recording_past(self, _: int) -> bool:
        return False


class Mixer:
    """Stands for the `forward` of a layer with a state. In a step of ours, named by `step`, it takes all streams' rows;
    else it is the library's."""

    def __init__(self, layer: int, forward: Callable[..., Any], cache: str) -> None:
        self.layer, self._forward, self._cache = layer, forward, cache

    def __call__(self, hidden_states: torch.Tensor, *args: Any, step: Any = None, **kwargs: Any) -> Any:
        if step is None:
            return self._forward(hidden_states, *args, **kwargs)
        assert step.states is not None
        return step.states.mixed(self, hidden_states)

    def run(self, rows: torch.Tensor, cache: OneLayer) -> torch.Tensor:
        """The library's layer over rows `(sequences, rows, hidden)`."""
        return self._forward(rows, **{self._cache: cache})


class States:
    """The states of a decoder's layers for `slots` streams. ModelError where a layer is of a kind that is not known."""

    def __init__(self, text: Any, config: Any, slots: int) -> None:
        weight = text.get_input_embeddings().weight
        self._device = weight.device
        entries = slots * STATES + 1  # the last are zeros: what a sequence begins with
        self._none = entries - 1
        self.pools: dict[int, Kept] = {
            layer: {name: tensor.new_zeros(entries, *tensor.shape[1:]) for name, tensor in kept.items()}
            for layer, kept in _first_states(text, config).items()
        }
        self._host: dict[int, list[dict[int, Kept]]] = {}

    @property
    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for pool in self.pools.values() for tensor in pool.values()]

    def move(self, plan: Plan) -> list[int]:
        """What is done before the forward pass; returns the streams whose states are lost, as memory ran out."""
        lost = [move.stream for move in plan.states if not moved(self._move, move)]
        for stream in plan.drops:
            self._host.pop(stream, None)
        return lost

    def _move(self, move: StateMove) -> None:
        if move.sources is None:
            self._bring(self._host.pop(move.stream, []), move.targets or [])
        elif move.targets is None:
            self._host[move.stream] = [self._taken(entry) for entry in move.sources]
        else:
            for tensor in self._tensors:
                for source, target in zip(move.sources, move.targets, strict=True):
                    tensor[target] = tensor[source]

    def on_host(self, stream: int) -> list[dict[int, Kept]]:
        """What a stream has in host memory, in order."""
        return self._host.get(stream, [])

    def bring(self, stream: int, states: list[dict[int, Kept]]) -> None:
        """A stream that goes on here has these in host memory, before the first plan that names it."""
        self._host[stream] = states

    def _taken(self, entry: int) -> dict[int, Kept]:
        return {
            layer: {name: to_host(tensor[entry].clone()) for name, tensor in pool.items()}
            for layer, pool in self.pools.items()
        }

    def _bring(self, states: list[dict[int, Kept]], entries: list[int]) -> None:
        for entry, state in zip(entries, states, strict=bool(states)):
            for layer, pool in self.pools.items():
                for name, tensor in pool.items():
                    tensor[entry] = upload(state[layer][name], self._device)

    def step(self, feeds: list[Feed], adapters: Adapters) -> StatesStep:
        """What the feeds of a step read and write."""
        rounds: list[dict[tuple[int, int], list[tuple[int, int, int | None]]]] = []
        start = 0
        for feed in feeds:
            count = sum(len(run) for run in feed.rows)
            for number, (first, stop, begin, end) in enumerate(_pieces(feed.states or StateUse(None, ()), count)):
                if number == len(rounds):
                    rounds.append(defaultdict(list))
                piece = start + first, self._none if begin is None else begin, end
                rounds[number][stop - first, feed.adapter].append(piece)
            start += count
        worn = {number: Worn([(adapters[number], None)]) for number in {feed.adapter for feed in feeds} if number}
        made = [
            [self._together(worn.get(adapter), length, pieces) for (length, adapter), pieces in many.items()]
            for many in rounds
        ]
        return StatesStep(made, self.pools)

    def _together(self, worn: Worn | None, length: int, pieces: list[tuple[int, int, int | None]]) -> SameLength:
        rows = torch.tensor([first for first, _, _ in pieces])[:, None] + torch.arange(length)
        ending = [place for place, (_, _, end) in enumerate(pieces) if end is not None]
        ends = [end for _, _, end in pieces if end is not None]
        numbers = torch.tensor([begin for _, begin, _ in pieces]), torch.tensor(ending, dtype=torch.long)
        made = rows, *numbers, torch.tensor(ends, dtype=torch.long)
        return SameLength(worn, *(upload(tensor, self._device) for tensor in made))


def _first_states(text: Any, config: Any) -> dict[int, Kept]:
    """What the layers of a decoder keep after two rows, by layer."""
    weight, kept = text.get_input_embeddings().weight, {}
    for mixer in mixers(text, config):
        cache = OneLayer({})
        with torch.inference_mode():
            mixer.run(torch.zeros(1, 2, weight.shape[1], dtype=weight.dtype, device=weight.device), cache)
        kept[mixer.layer] = cache.kept
    return kept


def state_bytes(text: Any, config: Any) -> tuple[int, int]:
    """What one state takes in all layers, and what it takes in the largest of them."""
    layers = [sum(one.nbytes for one in kept.values()) for kept in _first_states(text, config).values()]
    return sum(layers), max(layers)


def _pieces(use: StateUse, count: int) -> Iterator[tuple[int, int, int | None, int | None]]:
    """The rows between two states of a feed of `count` rows, and the entries of both."""
    first, begin = 0, use.begin
    for stop, end in use.ends or ((count, None),):
        yield first, stop, begin, end
        first, begin = stop, end


def mixers(text: Any, config: Any) -> list[Mixer]:
    """The layers of a decoder that keep a state, each behind a `Mixer` from now on. ModelError where the configuration
    names more than are found."""
    kinds = getattr(config, "layer_types", None) or ()
    wanted = {layer for layer, kind in enumerate(kinds) if kind in WITH_STATES}
    found: dict[int, Mixer] = {}
    for module in text.modules():
        layer = getattr(module, "layer_idx", None)
        if layer not in wanted or not hasattr(module, "conv_kernel_size"):
            continue
        if layer in found:
            raise ModelError(f"layer {layer}: expected one part that keeps a state, got more")
        if not isinstance(module.forward, Mixer):
            takes = inspect.signature(module.forward).parameters
            [cache] = [name for name in ("cache_params", "past_key_values") if name in takes] or [""]
            module.forward = Mixer(layer, module.forward, cache)
        found[layer] = module.forward
    if found.keys() != wanted:
        missing = sorted(wanted - found.keys())
        raise ModelError(f"layers {missing} of {kinds[missing[0]]}: expected a part that keeps a state, got none")
    return [found[layer] for layer in sorted(found)]
