"""Messages and records as bytes and back: msgpack by `msgspec`, with arrays and tensors as raw buffers.

The actors of an engine live in one process and need none of it. A record of a run is written with it, and tests send
every message of an engine through it, so that nothing in a message ties them to one process.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch

_ARRAY, _TENSOR = 1, 2  # codes of msgpack extensions


def encode(value: Any) -> bytes:
    """Structs as msgpack. Raises TypeError where one holds something that is no data."""
    return _ENCODER.encode(value)


def decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Reads what `encode` has written of this type, a union of structs for instance. Arrays and tensors are copies that
    may be written. Raises msgspec.ValidationError for bytes that are something else."""
    return msgspec.msgpack.Decoder(kind, dec_hook=_as, ext_hook=_read)


def _write(value: Any) -> msgspec.msgpack.Ext:
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        header, data = (value.dtype.str, value.shape), value.tobytes()
        return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode((header, data)))
    if isinstance(value, torch.Tensor):
        bits = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        header = (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        return msgspec.msgpack.Ext(_TENSOR, msgspec.msgpack.encode((header, bits.numpy().tobytes())))
    raise TypeError(f"expected data, got a {type(value).__name__}")


def _read(code: int, data: memoryview) -> np.ndarray | torch.Tensor:
    (name, shape), content = msgspec.msgpack.decode(data, type=tuple[tuple[str, tuple[int, ...]], bytes])
    if code == _ARRAY:
        return np.ndarray(shape, name, bytearray(content))
    dtype = getattr(torch, name)
    return torch.frombuffer(bytearray(content), dtype=dtype).view(shape) if content else torch.empty(shape, dtype=dtype)


def _as(kind: type, value: Any) -> Any:
    """A field of a type that msgspec does not know, which `_read` has made already."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_write)
