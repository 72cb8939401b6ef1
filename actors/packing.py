"""Messages as bytes and back: msgpack by `msgspec`, structs by their names, arrays and tensors as raw buffers.

The actors of an engine live in one process and need none of it. Tests run every message of an engine through it, so
that nothing in a message ties them to that process.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch

from ..engine import plan, span
from ..engine.conversation import state
from ..streams import event, item, prompt, request, segment
from . import messages

_KIND = "$"
_TYPES: dict[str, type[msgspec.Struct]] = {
    kind.__name__: kind
    for module in (event, item, prompt, request, segment, span, plan, state, messages)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder()


def pack(message: msgspec.Struct) -> bytes:
    """A message as msgpack. Raises TypeError where it holds something that is not data."""
    return _ENCODER.encode(_plain(message))


def unpack(data: bytes) -> Any:
    """The message again; arrays and tensors share the memory of a copy of `data` that may be written."""
    return _rich(_DECODER.decode(data))


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case bytearray() | memoryview():
            return bytes(value)
        case msgspec.Struct():
            fields = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
            return {_KIND: type(value).__name__, **fields}
        case np.ndarray() if not value.dtype.hasobject:
            return {_KIND: "array", "dtype": value.dtype.str, "shape": value.shape, "data": value.tobytes()}
        case torch.Tensor():
            bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            kind = str(value.dtype).removeprefix("torch.")
            return {_KIND: "tensor", "dtype": kind, "shape": list(value.shape), "data": bits.numpy().tobytes()}
        case tuple():
            return {_KIND: "tuple", "of": [_plain(entry) for entry in value]}
        case list():
            return [_plain(entry) for entry in value]
        case dict():
            return {_KIND: "dict", "of": [[_plain(key), _plain(entry)] for key, entry in value.items()]}
    raise TypeError(f"a message holds a {type(value).__name__}: expected data")


def _rich(value: Any) -> Any:
    if isinstance(value, list):
        return [_rich(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    match value[_KIND]:
        case "array":
            return np.ndarray(value["shape"], value["dtype"], bytearray(value["data"]))
        case "tensor":
            dtype = getattr(torch, value["dtype"])
            if not value["data"]:
                return torch.empty(value["shape"], dtype=dtype)
            return torch.frombuffer(bytearray(value["data"]), dtype=dtype).view(value["shape"])
        case "tuple":
            return tuple(_rich(entry) for entry in value["of"])
        case "dict":
            return {_rich(key): _rich(entry) for key, entry in value["of"]}
        case name:
            return _TYPES[name](**{field: _rich(entry) for field, entry in value.items() if field != _KIND})
