"""Cuts WAV files in a row. Comes in: bytes; goes out: pieces, a new part where a file begins. Knows no samples."""

from __future__ import annotations

from ..errors import DamagedError, LimitError
from .limits import MediaLimits
from .piece import Piece

_MOST_HEADER_BYTES = 1 << 20
_STREAMED = 0x7FFF0000  # from this size on, and at 0, a header was written before the size was known
_MARK_BYTES = 16  # RIFF, a size, WAVE, fmt
_CHUNKS = tuple(
    b"LIST|id3 |ID3 |bext|cue |smpl|inst|fact|JUNK|junk|PAD |FLLR|iXML|axml|_PMX|PEAK|chna|cart|DISP|acid".split(b"|")
)
_FIRST = (b"WAVEfmt ", b"WAVEJUNK", b"WAVEbext", b"WAVELIST")


class Wave:
    """A part is a header and its samples, up to the next header. Chunks of other kinds after the samples are dropped.

    Bytes after the stated end that are no such chunk are samples: a recorder wrote the header before it knew the size.
    The demuxer is to read up to the end of the part and to ignore the stated size.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._header = True
        self._left: int | None = None  # of the stated samples; None: up to the next header
        self._odd = False
        self._skip = 0

    def take(self, held: bytearray) -> list[Piece]:
        """The pieces that are complete at the front of `held`, which are removed from it."""
        pieces: list[Piece] = []
        while True:
            if self._header:
                size = self._header_bytes(held)
                if size is None:
                    return pieces
                pieces.append(Piece(bytes(held[:size]), starts="wav"))
                del held[:size]
                self._header = False
            elif self._skip:
                step = min(self._skip, len(held))
                del held[:step]
                self._skip -= step
                if self._skip:
                    return pieces
            elif self._left == 0:
                if len(held) < _MARK_BYTES:
                    return pieces
                self._behind(held)
            elif not self._samples(held, pieces):
                return pieces

    def finish(self, held: bytearray) -> list[Piece]:
        """The rest; there are no more bytes."""
        if self._header:
            raise DamagedError("WAV: expected a whole header, got the end of the file")
        rest = bytes(held)
        held.clear()
        behind = self._left == 0 and (self._skip or not any(rest) or rest[self._odd :][:4] in _CHUNKS)
        return [] if not rest or behind else [Piece(rest)]

    def _samples(self, held: bytearray, pieces: list[Piece]) -> bool:
        """Pass samples on; True where something else follows them."""
        most = len(held) if self._left is None else min(self._left, len(held))
        at = _next_header(held)
        stop = min(most, at)
        if stop:
            pieces.append(Piece(bytes(held[:stop])))
            del held[:stop]
        if self._left is not None:
            self._left -= stop
        if at == stop and len(held) >= _MARK_BYTES and _is_header(held):
            self._header = True
            return True
        return self._left == 0

    def _behind(self, held: bytearray) -> None:
        """What stands after the stated end: the next file, a chunk, or more samples."""
        if self._odd and held[0] == 0:
            del held[:1]
        self._odd = False
        if _is_header(held):
            self._header = True
        elif bytes(held[:4]) in _CHUNKS:
            size = int.from_bytes(held[4:8], "little")
            self._skip, self._odd = 8 + size, size % 2 == 1
        else:
            self._left = None

    def _header_bytes(self, held: bytearray) -> int | None:
        """Bytes up to the samples; None where more are needed. Checks the rate and the channels that it states."""
        at = 12
        while len(held) >= at + 8:
            name, size = bytes(held[at : at + 4]), int.from_bytes(held[at + 4 : at + 8], "little")
            if name == b"data":
                self._left = None if size == 0 or size >= _STREAMED else size
                self._odd = size % 2 == 1
                return at + 8
            if name == b"fmt ":
                if len(held) < at + 16:
                    return None
                channels = int.from_bytes(held[at + 10 : at + 12], "little")
                rate = int.from_bytes(held[at + 12 : at + 16], "little")
                self._limits.check_sound(rate, channels, "sound")  # FFmpeg keeps the rate in 31 bits, the file in 32
            at += 8 + size + size % 2
            if at > _MOST_HEADER_BYTES:
                raise LimitError(f"WAV: expected at most {_MOST_HEADER_BYTES} bytes in front of its samples, got {at}")
        return None


def _is_header(data: bytearray) -> bool:
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"


def _next_header(data: bytearray) -> int:
    """Where the next file's header begins, or may begin with what the data ends with; else the end."""
    at = data.find(b"RIFF")
    while at >= 0:
        if len(data) < at + _MARK_BYTES or data[at + 8 : at + 16] in _FIRST:
            return at
        at = data.find(b"RIFF", at + 1)
    return next((len(data) - size for size in (3, 2, 1) if data.endswith(b"RIFF"[:size])), len(data))
