"""An adapter is fitted to a loaded model: its layers are found in the decoder, the projector and the towers. In: what
its folder has, and the model. Out: an `Adapter`, or InputError. It reads no files.

Names are those of the model that was trained. They may be the library's older ones, or those of a whole Omni.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ..families.absent import AbsentTowers
from ..family import Loaded
from ..plan import Draw, Feed, Plan, TableEdit
from ..runner.language import LanguageModel
from ..runner.lora import Adapter, Lora
from ..span import Rows
from . import compute
from .adapter import AdapterFile, AdapterPart
from .compute import amount

_ROWS, _PAGE = 13, 4  # of the trial: no experts of a layer see all of so many rows
_DECODER = "language_model."


def fitted(file: AdapterFile, loaded: Loaded) -> Adapter:
    """The adapter on the model's device, in its type of number. Raises InputError where a layer is not there or has
    another shape, and where there is no room."""
    layers = {name: _found(name, file, loaded) for name in file.layers}
    for name, layer in layers.items():
        part = file.layers[name]
        got, expected = (part.up.shape[0], part.down.shape[1]), (layer.out_features, layer.in_features)
        if got != expected:
            raise InputError(
                f"adapter: {name}: expected matrices for a layer of {expected[1]} to {expected[0]}, got {got[1]} to "
                f"{got[0]}: {_bases(file, loaded)}"
            )
    if len({id(layer) for layer in layers.values()}) < len(layers):
        raise InputError("adapter: expected one pair of matrices a layer, got several under different names")
    _check_room(file, loaded)
    decoder = set(loaded.text.modules())
    beyond = [name for name, layer in layers.items() if layer not in decoder]
    if beyond and isinstance(loaded.towers, AbsentTowers):
        raise InputError(f"adapter: expected layers of the decoder, since media is encoded elsewhere, got {beyond[0]}")
    pairs = {layer: _pair(file.layers[name], loaded) for name, layer in layers.items()}
    return Adapter(file.fingerprint, pairs, bool(beyond))


def try_out(adapter: Adapter, loaded: Loaded) -> None:
    """A few rows through the decoder with this adapter. Raises InputError where one of its layers is not run over all
    of them, as the layers of experts are not, and where what comes out is not finite."""
    language = LanguageModel(loaded, -(-_ROWS // _PAGE), _PAGE, slots=1)
    fused = [] if language.fast is None else language.fast.linears  # each over all rows
    inside = set(loaded.text.modules()) - {layer for linear in fused for layer in linear.layers}
    if language.crossing is not None:  # which media runs through, and none of these rows
        inside -= language.crossing.reads
    layers = {name: layer for name, layer in loaded.text.named_modules() if layer in inside and layer in adapter.layers}
    runs: dict[Any, list[int]] = defaultdict(list)

    def run(layer: Any, given: tuple[torch.Tensor, ...], out: Any) -> None:
        if not isinstance(out, torch.Tensor):
            name = next(name for name, one in layers.items() if one is layer)
            raise InputError(f"adapter: {name}: expected a layer that gives rows, got a {type(out).__name__}")
        runs[layer].append(given[0].numel() // layer.in_features if given else 0)

    hooks = [layer.register_forward_hook(run) for layer in layers.values()]
    language.adapters.add(adapter)
    try:
        result = language.run(_plan(loaded, adapter))
    finally:
        language.adapters.remove(adapter)
        for hook in hooks:
            hook.remove()
    for name, layer in layers.items():
        if set(runs[layer]) != {_ROWS}:
            raise InputError(
                f"adapter: {name}: expected a layer that all of {_ROWS} rows run through, got {runs[layer]}"
            )
    if result.failed or result.poisoned:
        raise InputError("adapter: expected finite numbers from the model with it, got others")


def _plan(loaded: Loaded, adapter: Adapter) -> Plan:
    words = loaded.text.get_input_embeddings().weight.shape[0]
    ids = np.linspace(0, words - 1, _ROWS).astype(np.int64)
    rows = Rows(ids, np.arange(_ROWS)[None].repeat(3, 0))
    pages = list(range(-(-_ROWS // _PAGE)))
    return Plan(0, [], [], [TableEdit(0, 0, pages)], [], [], [Feed(1, 0, 0, [rows], Draw(), adapter=adapter.number)])


def _found(name: str, file: AdapterFile, loaded: Loaded) -> Any:
    """The layer of this name. Raises InputError where there is none, or none that is linear."""
    towers = loaded.towers.family_towers if isinstance(loaded.towers, AbsentTowers) else loaded.towers
    root = getattr(towers, "whole", None) or getattr(towers, "model", None) or loaded.text
    named = dict(root.named_modules())
    layer = next((named[way] for way in _ways(name, loaded) if way in named), None)
    if layer is None or layer is loaded.head:
        raise InputError(
            f"adapter: expected layers of the decoder, the projector and the towers of this model, got {name}: "
            f"{_bases(file, loaded)}"
        )
    # One of the latter is run by what it is a part of, which reads its weight and does not call it.
    inner = isinstance(layer, torch.nn.modules.linear.NonDynamicallyQuantizableLinear)
    if not isinstance(getattr(layer, "in_features", None), int) or inner:
        raise InputError(f"adapter: {name}: expected a linear layer, got {type(layer).__name__}")
    return layer


def _ways(name: str, loaded: Loaded) -> Iterator[str]:
    """What a layer of this name may be called here, the likeliest first."""
    name = name.removeprefix("thinker.")
    first = f"{getattr(loaded.text, 'base_model_prefix', '') or 'model'}."
    yield from (name, f"{first}{name}", name.removeprefix(first))
    inside = name.removeprefix(_DECODER).removeprefix(first)  # of a decoder that was a model of its own
    yield from (f"{_DECODER}{inside}", f"{first}{_DECODER}{inside}")


def _bases(file: AdapterFile, loaded: Loaded) -> str:
    """What it was trained for, and what this is: names without the way to them."""
    base, model = (name.rstrip("/").rpartition("/")[2] for name in (file.base, loaded.family.data.model))
    return f"it was trained for {base[:80]!r}, this is {model!r}"


def _check_room(file: AdapterFile, loaded: Loaded) -> None:
    count = sum(part.down.numel() + part.up.numel() for part in file.layers.values())
    needed, free = count * loaded.dtype.itemsize, compute.free_bytes(str(loaded.device))
    if free is not None and needed > free:
        raise InputError(f"adapter: needs {amount(needed)}, {amount(free)} free on {loaded.device}")


def _pair(part: AdapterPart, loaded: Loaded) -> Lora:
    scaled = part.up.float() * part.scale
    return Lora(part.down.to(loaded.device, loaded.dtype), scaled.to(loaded.device, loaded.dtype))
