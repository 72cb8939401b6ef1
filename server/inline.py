"""Media of a request in the form that the wire has for it: whole files in base64, inside the message.

In: a client's request, whose media may be files, pictures, arrays and items. Out: the same request with content parts
of data: URLs. Pictures become PNG and samples WAV, of which nothing is lost. Knows no sockets.
"""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

import msgspec
import numpy as np

from ..codecs.limits import DEFAULT_LIMITS
from ..errors import InputError
from ..streams.item import AudioChunk, Embedding
from ..streams.requests.prompt import Media, Piece, gather, kind_of
from ..streams.requests.request import Request

_WAV = {"s16le": (1, 2), "f32le": (3, 4)}  # its number of the format, bytes a sample


def inline(request: Request) -> Request:
    """The request with all of its media inside. Reads files and encodes: it blocks.

    Raises InputError for what is no media, and for frames and samples that only a rate would make a file of.
    """
    content = gather(request, DEFAULT_LIMITS)
    parts = iter([_part(piece) for piece in content.media])
    if content.messages is None:
        return msgspec.structs.replace(request, media=list(parts))
    messages = [
        {**message, "content": [part if part.get("type") == "text" else next(parts) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in content.messages
    ]
    return msgspec.structs.replace(request, messages=messages)


def png(pixels: np.ndarray) -> bytes:
    """A picture `(h, w, 3)` uint8 as a file."""
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise InputError(f"image: expected (h, w, 3) uint8, got {pixels.shape} {pixels.dtype}")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def interleaved(chunk: AudioChunk) -> tuple[str, int, bytes | bytearray | memoryview]:
    """Encoding, number of channels and bytes of live samples."""
    data = chunk.data
    if not isinstance(data, np.ndarray):
        return chunk.encoding, chunk.channels, data
    if data.ndim != 2 or data.dtype != np.float32:
        raise InputError(f"sound: expected (channels, n) float32, got {data.shape} {data.dtype}")
    return "f32le", data.shape[0], data.T.astype("<f4").tobytes()


def _part(piece: Piece) -> dict[str, Any]:
    kind = kind_of(piece)
    if isinstance(piece, Embedding):
        return {"type": "embedding", "kind": kind, "embedding": _rows(piece)}
    return {"type": kind, kind: f"data:;base64,{base64.b64encode(_file(piece)).decode()}"}


def _rows(item: Embedding) -> dict[str, Any]:
    """Rows made elsewhere: a file as it is, an array as numbers with their type and shape."""
    told = {name: value for name in ("grid", "pts_us", "stop_us") if (value := getattr(item, name)) is not None}
    data = item.data
    if isinstance(data, np.ndarray):
        if data.dtype not in (np.float32, np.float16):
            raise InputError(f"embedding: expected float32 or float16, got {data.dtype}")
        told |= {"dtype": data.dtype.name, "shape": list(data.shape)}
        data = np.ascontiguousarray(data).tobytes()
    return {"data": base64.b64encode(data).decode(), **told}


def _file(piece: Piece) -> bytes:
    if isinstance(piece, AudioChunk):
        encoding, channels, samples = interleaved(piece)
        return _wav(encoding, channels, piece.rate, bytes(samples))
    if not isinstance(piece, Media):
        return bytes(piece.data)
    if piece.kind == "image":
        return png(piece.data)
    if piece.kind == "audio" and piece.rate:
        return _wav("f32le", 1, piece.rate, piece.data.astype("<f4").tobytes())
    expected = "a file, or (samples, rate)" if piece.kind == "audio" else "a file, or frames that a stream is shown"
    raise InputError(f"{piece.kind}: expected {expected} over the wire, got an array {piece.data.shape}")


def _wav(encoding: str, channels: int, rate: int, samples: bytes) -> bytes:
    if encoding not in _WAV:
        raise InputError(f"sound: expected {' or '.join(_WAV)}, got {encoding!r}")
    number, bytes_each = _WAV[encoding]
    frame = channels * bytes_each
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, number, channels, rate, rate * frame, frame, 8 * bytes_each)
    body = b"WAVE" + head + struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI", b"RIFF", len(body)) + body
