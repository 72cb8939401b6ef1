"""How the memory of a device is shared out: weights, the largest step, the encoder, and what is left for the KV cache.
In: a loaded checkpoint and the configuration. Out: a `Memory`, whose pages the cache takes; or ModelError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...errors import InputError, ModelError
from ...streams.requests.options import check_options, sized, sizes_pieces
from ..config import EngineConfig
from ..family import Loaded
from ..plan import STATES
from ..runner.attention import Backend
from ..runner.graphs import is_recorded
from ..runner.narrow import kv_type
from ..runner.out_of_memory import NoRoom, let_go
from ..runner.shapes import layer_shapes, row_bytes
from ..runner.states import state_bytes
from . import compute
from .compute import amount
from .inner import inner
from .worst import worst_case

# Of what is left. Beside other programs, and beside what the host keeps for streams, a CPU's share is smaller.
_FRACTIONS = {"cuda": 0.9}
_FRACTION = 0.5
# Off CUDA the cache takes no more than this on its own account: four streams of 8k tokens.
_MOST_TOKENS = 32_768
# With fewer a conversation of one picture and a few words does not fit.
_LEAST_TOKENS = 1024
# Streams of which as many rows may wait to be fed as the encoder makes at once.
_WAITING = 16
# Of what is left, the states of streams take this at most, where layers keep any; and while a step runs, it has so many
# copies of one layer's.
_STATES_SHARE, _COPIES = 0.5, 3
# How near a bound on pixels that is advised comes to the largest that fits.
_NEAR = 1 / 16


class Room(msgspec.Struct, frozen=True):
    """A device and what is free on it beside the weights; None: nothing says so."""

    device: str
    free: int | None


class Memory(msgspec.Struct, frozen=True):
    """Bytes on one device, and the cache's pages. `step_bytes` and `encoder_bytes` come and go. kv_dtype: as asked for;
    kv_gain: how many times as many rows this makes as the model's own type does. Where layers keep a state of all rows
    (class G), each of `streams` has `state_bytes` for its own, and no more streams may be open."""

    weight_bytes: int
    step_bytes: int
    encoder_bytes: int
    token_bytes: int
    page_tokens: int
    pages: int
    kv_dtype: str = "auto"
    kv_gain: float = 1.0
    state_bytes: int = 0
    streams: int = 0

    @property
    def tokens(self) -> int:
        return self.pages * self.page_tokens

    @property
    def kv_bytes(self) -> int:
        return self.tokens * self.token_bytes

    @property
    def states_bytes(self) -> int:
        """Of all streams."""
        return self.streams * self.state_bytes


def plan_memory(loaded: Loaded, config: EngineConfig, backend: Backend, room: Room | None = None) -> Memory:
    """Share out the memory of the device that the checkpoint is on, or `room` for one whose weights were not read.
    ModelError where the KV cache that was asked for, or any, does not fit, with what may be tried: a bound on pixels
    with which it fits and one such picture goes into the cache."""
    try:
        return _shared(loaded, config, backend, room)
    except NoRoom as error:
        refusal = str(error)

    def fits(most: int, rows: int) -> bool:
        let_go()  # what the attempt before it had
        smaller = msgspec.structs.replace(config, processor={**config.processor, "max_pixels": most})
        try:
            check_options(smaller.processor, loaded.family.spec)
            return _shared(loaded, smaller, backend, room).tokens >= rows + _LEAST_TOKENS
        except (InputError, ModelError):
            return False

    most = _most_pixels(loaded, config, fits)
    advice = [f"--processor max_pixels={most}"] if most else []
    advice += [] if config.quantize else ["--quantize int8"]
    raise ModelError(f"{refusal}; try {', '.join(advice)}{' or ' if advice else ''}a smaller model")


def _most_pixels(loaded: Loaded, config: EngineConfig, fits: Callable[[int, int], bool]) -> int:
    """About the largest bound on pixels that `fits`, given with the rows of such a picture; found by halves. 0 where
    there is none, or where the model's processor has no such option."""
    spec = loaded.family.spec
    now = sized(spec, config.processor)
    rules = [rule for rule in (now.image, now.video) if rule is not None]
    if not rules or not sizes_pieces(spec):
        return 0
    row = rules[0].factor ** 2
    high = max(rule.largest for rule in rules) // row
    low = high // 2
    while low and not fits(low * row, low):
        high, low = low, low // 2
    while high - low > max(1, low * _NEAR) and low:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * row, middle) else (low, middle)
    return low * row


def _shared(loaded: Loaded, config: EngineConfig, backend: Backend, room: Room | None) -> Memory:
    """As `plan_memory`. NoRoom where a step, the encoder and the least cache do not fit."""
    device = str(loaded.device) if room is None else room.device
    step, encoder = worst_case(loaded, config, backend)
    if device.startswith("cuda"):
        encoder += config.encoder_cache_bytes + _waiting_bytes(loaded, config)  # what was fed lies on the host
    if is_recorded(config, device):
        step *= 2  # what is recorded keeps its own, at most as much
    page_tokens = config.page_tokens or backend.page_tokens
    own, token = _row_bytes(loaded, config)
    free = compute.free_bytes(device) if room is None else room.free
    states, streams, beside = _states(loaded, config, free, step + encoder)
    step, free = step + beside, free and free - streams * states
    if config.kv_gib is not None:
        tokens = int(config.kv_gib * 2**30) // token
    else:
        tokens = config.kv_tokens or _fitting(free, step + encoder, token, device, config)
    pages = tokens // page_tokens
    if pages < 1:
        raise ModelError(f"KV cache: expected at least {page_tokens} tokens, one page, got {tokens}; try more --kv-gib")
    if free is not None and pages * page_tokens * token > free:
        raise ModelError(
            f"needs {amount(pages * page_tokens * token)} for a KV cache of {tokens} tokens, {amount(free)} free on "
            f"{device} beside the weights; try less --kv-gib"
        )
    kept = config.kv_dtype, own / token
    return Memory(weight_bytes(loaded), step, encoder, token, page_tokens, pages, *kept, states, streams)


def _row_bytes(loaded: Loaded, config: EngineConfig) -> tuple[int, int]:
    """Bytes of a row of KV cache in the model's type of number, and as it is kept, with those of the draft model."""
    shapes, kept = layer_shapes(loaded.config), kv_type(config.kv_dtype, loaded.dtype)
    draft = 0 if loaded.draft is None else row_bytes(layer_shapes(loaded.draft.config), loaded.draft.dtype)
    own, narrow = row_bytes(shapes, loaded.dtype) + draft, row_bytes(shapes, kept) + draft
    return own or 1, narrow or 1  # where there are states alone


def _states(loaded: Loaded, config: EngineConfig, free: int | None, worst: int) -> tuple[int, int, int]:
    """Of a model whose layers keep states: what those of one stream take, for how many streams there is room in their
    share of what is left, and what a step takes for theirs in the largest layer: before it, after it and as rows."""
    if not loaded.family.data.stateful:
        return 0, 0, 0
    state, largest = state_bytes(loaded.text, loaded.config)
    one, step = STATES * state, _COPIES * largest
    if free is None:
        return one, config.slots, config.slots * step
    room = int(max(0, free - worst) * _STATES_SHARE)
    streams = min(config.slots, room // (one + step))
    if streams < 1:
        raise NoRoom(
            f"needs {amount(worst)} for a step and the encoder, and {amount(one + step)} for the states of one stream "
            f"in {_STATES_SHARE:.0%} of the rest, {amount(free)} free beside the weights"
        )
    return one, streams, streams * step


def _waiting_bytes(loaded: Loaded, config: EngineConfig) -> int:
    """Embeddings that wait on the device to be fed."""
    width = loaded.text.get_input_embeddings().weight.shape[1]
    return min(_WAITING, config.slots) * config.encoder_tokens * width * loaded.dtype.itemsize


def host_pages(config: EngineConfig, memory: Memory, device: str) -> int:
    """How many pages may be moved to the host's memory: of what is free there, beside a cache that lies there too, at
    most half. What does not fit is fed again later. For CUDA the memory is pinned, and torch takes up to twice of it:
    powers of two."""
    free = compute.free_bytes("cpu")
    if free is None:
        return config.host_pages
    room = free // 2 if device == "cuda" else free - memory.kv_bytes
    return min(config.host_pages, max(0, room // 2 // (memory.page_tokens * memory.token_bytes)))


def _fitting(free: int | None, worst: int, token: int, device: str, config: EngineConfig) -> int:
    """Tokens of KV cache in `memory_fraction` of what `free` bytes leave beside the worst case."""
    cuda, fraction = device.startswith("cuda"), config.memory_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise ModelError(f"memory_fraction: expected more than 0 and at most 1, got {fraction:g}")
    if free is None:
        return _MOST_TOKENS
    share = fraction or _FRACTIONS.get(device.partition(":")[0], _FRACTION)
    room = int(max(0, free - worst) * share)
    if room < _LEAST_TOKENS * token:
        raise NoRoom(
            f"needs {amount(worst)} for a step and the encoder, and {amount(_LEAST_TOKENS * token)} for a KV cache of "
            f"{_LEAST_TOKENS} tokens in {share:.0%} of the rest, {amount(free)} free on {device} beside the weights"
        )
    return room // token if cuda or fraction else min(_MOST_TOKENS, room // token)


def weight_bytes(loaded: Loaded) -> int:
    """Bytes of all tensors of the decoder, the output layer and the towers, with those of the draft model; those that
    are shared count once. A weight that was packed lies in the fast decoder alone, and is as large as it was."""
    whole: Any = getattr(loaded.towers, "model", None)  # families keep the whole model there; else its blocks are known
    modules = [loaded.text, loaded.head, *loaded.towers.blocks, *([whole] if whole is not None else [])]
    tensors = {  # without numbers they lie nowhere, and are shared as objects
        tensor.data_ptr() or id(tensor): tensor.nbytes
        for module in modules
        for whole_tensor in (*module.parameters(), *module.buffers())
        for tensor in inner(whole_tensor)
    }
    linears = [] if loaded.fast is None else loaded.fast.linears
    packed = sum(linear.packed_bytes for linear in linears)
    draft = 0 if loaded.draft is None else weight_bytes(loaded.draft)
    return sum(tensors.values()) + packed + getattr(loaded.head, "packed_bytes", 0) + draft
