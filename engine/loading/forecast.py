"""How a checkpoint would share out the memory of a device, computed without its weights.

In: a checkpoint's name, a configuration. Out: a `Forecast`; or ModelError, as loading it would raise. The model is made
by the code that loads it, on torch's "meta" device, where tensors have shapes and no numbers. What only running it can
show is not found: a trial at load may still refuse it, and on CUDA the largest step is estimated here and measured
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch

from ...errors import InputError, ModelError
from ...streams.requests.options import check_options
from ..config import EngineConfig
from ..family import Loaded
from ..runner.attention import Backend, ReferenceBackend
from ..runner.backends import make_backend
from ..runner.rotary import decoder_config
from . import compute
from .adapter import read_adapter
from .checkpoint import Checkpoint
from .draft import with_draft
from .fitting import fitted
from .memory import Memory, Room, plan_memory, weight_bytes
from .open import known, language_alone, make_small, opened
from .placement import DTYPES, Placement, check_room, place
from .quantised import stays_quantised
from .weights import Weights, read


class Forecast(msgspec.Struct, frozen=True):
    """free_bytes: what is free on the device before the model is loaded; None: nothing says so. why: why this device
    and this dtype, empty where they were asked for. tried: whether a trial at load decides if it is served. Of the
    memory's weights `draft_bytes` are the draft model's. adapter_bytes: of all adapters, which get what is left.
    """

    model: str
    family: str
    device: str
    dtype: str
    why: str
    tried: bool
    free_bytes: int | None
    memory: Memory
    draft_bytes: int = 0
    adapter_bytes: int = 0

    @property
    def left_bytes(self) -> int | None:
        """What nobody has; below 0 where a cache of the size that was asked for leaves too little for the rest."""
        shares = self.memory
        used = shares.weight_bytes + shares.step_bytes + shares.encoder_bytes + shares.kv_bytes + shares.states_bytes
        return None if self.free_bytes is None else self.free_bytes - used - self.adapter_bytes


def forecast(
    path: str | Path | None,
    config: EngineConfig,
    revision: str | None = None,
    elsewhere: int | None = None,
    adapters: Sequence[Path] = (),
) -> Forecast:
    """The memory of the checkpoint at `path`, named as `open.load` has it: on this machine, or on a device that is not
    here, on which `elsewhere` bytes are free. With its draft model, where `speculative` names one, and with the
    adapters in these folders. Raises ModelError, and InputError for an adapter that does not fit.
    """
    found, loaded = opened(path, config, lambda checkpoint, config: _forecast(checkpoint, config, elsewhere), revision)
    taken = sum(fitted(read_adapter(folder), loaded).nbytes for folder in adapters)
    return msgspec.structs.replace(found, adapter_bytes=taken)


def _forecast(checkpoint: Checkpoint, config: EngineConfig, elsewhere: int | None) -> tuple[Forecast, Loaded]:
    checkpoint.check_weights()
    named, load_family = known(checkpoint, here=elsewhere is None)
    stored = _stored(named, config)

    def made(dtype: str) -> Loaded:
        where = checkpoint.folder, getattr(torch, dtype), torch.device("meta")
        return language_alone(load_family, *where) if config.language_only else load_family(*where)

    first = next((dtype for dtype in (config.dtype, stored) if dtype in DTYPES), "float32")
    loaded = made(first)
    weights = _quantised(checkpoint, named, elsewhere is None) or Weights(
        weight_bytes(loaded) // getattr(torch, first).itemsize, 0, stored
    )
    placement = place(config, weights, here=elsewhere is None)
    check_room(weights, placement, elsewhere)
    if placement.dtype != first:
        loaded = made(placement.dtype)
    make_small(loaded, config)
    try:
        check_options(config.processor, loaded.family.spec)
    except InputError as error:
        raise ModelError(str(error)) from error
    free = compute.free_bytes(placement.device) if elsewhere is None else elsewhere
    held = weights.bytes_in(placement.dtype) if weights.fixed_bytes else weight_bytes(loaded)
    loaded, drafted = _drafted(loaded, config, placement, elsewhere is None)
    held += drafted
    room = Room(placement.device, None if free is None else max(0, free - held))
    memory = plan_memory(loaded, config, _backend(config, placement, elsewhere is None), room)
    memory = msgspec.structs.replace(memory, weight_bytes=held)
    where = (placement.device, placement.dtype, placement.why)
    found = Forecast(checkpoint.name, loaded.family.data.name, *where, _tried(named, loaded), free, memory, drafted)
    return found, loaded


def _drafted(loaded: Loaded, config: EngineConfig, placement: Placement, here: bool) -> tuple[Loaded, int]:
    """The model with its draft model, where `speculative` names one, and the bytes of its weights."""
    held = 0

    def made(checkpoint: Checkpoint, like: EngineConfig) -> Loaded:
        nonlocal held
        checkpoint.check_weights()
        named, load_family = known(checkpoint, here)
        draft = load_family(checkpoint.folder, getattr(torch, placement.dtype), torch.device("meta"))
        make_small(draft, like)
        quantised = _quantised(checkpoint, named, here)
        held = weight_bytes(draft) if quantised is None else quantised.bytes_in(placement.dtype)
        return draft

    return with_draft(loaded, config, lambda name, like: opened(name, like, made)), held


def _quantised(checkpoint: Checkpoint, named: Any, here: bool) -> Weights | None:
    """What a quantised checkpoint holds, by the headers of its files; None where it is in floats when it is loaded."""
    if not stays_quantised(named, here):
        return None
    files = checkpoint.local_weights()
    if not files:
        raise ModelError(
            "expected weights that are not quantised, got quantization_config and no files of it: only these say how "
            "large such weights are"
        )
    return read(files)


def _stored(named: Any, config: EngineConfig) -> str:
    """The type of number in which the weights are stored, by the configuration."""
    parts = (named, getattr(named, "thinker_config", None), decoder_config(named))
    said = (getattr(part, "dtype", None) for part in parts)
    found = [dtype for dtype in said if dtype is not None]
    if not found and config.dtype == "auto":
        raise ModelError("expected dtype in its config.json, got none; say --dtype")
    return str(found[0]).removeprefix("torch.") if found else config.dtype


def _backend(config: EngineConfig, placement: Placement, here: bool) -> Backend:
    """Attention of a card that is not here is not at hand. Its pages have as many rows as the reference's."""
    kind = placement.device.partition(":")[0]
    return make_backend(config, kind) if here or kind == "cpu" else ReferenceBackend()


def _tried(named: Any, loaded: Loaded) -> bool:
    from ..families import is_tried
    from ..families.tried import TriedTowers

    return is_tried(named.model_type) or isinstance(loaded.towers, TriedTowers)
