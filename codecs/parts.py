"""The front door of encoded bytes. Comes in: the bytes of one source in any cuts; goes out: pieces for one demuxer, cut
into parts where a file ends and the next one begins.

It knows where the formats' files begin. It opens nothing, and knows no times.
"""

from __future__ import annotations

from typing import Protocol

from ..errors import DamagedError
from .adts import Adts
from .boxes import Boxes
from .limits import MediaLimits
from .marks import Marked, drop_tag
from .piece import Piece
from .sniff import OPENED, first_bytes, frame, joined, sniff, unopened
from .transport import Transport
from .wave import Wave

_MARK_BYTES = 12
_ZEROS = bytes(16)
_CUT_SHORT = (b"\x1aE\xdf\xa3", b"G")  # how Matroska and MPEG-TS begin, whose marks are longer


class _Cutter(Protocol):
    def take(self, held: bytearray) -> list[Piece]:
        """The pieces that are complete at the front of `held`, which are removed from it."""
        ...

    def finish(self, held: bytearray) -> list[Piece]:
        """The rest; there are no more bytes."""
        ...


class Parts:
    """`name` is FFmpeg's name of the demuxer, None until it is known. Leading ID3 tags and zeros are dropped.

    A part begins where the format says that a file begins: a second EBML header, a second index of an MP4, another map
    of an MPEG-TS program, a chained Ogg, a WAV, FLAC or MP3 after another.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self.name: str | None = None
        self._limits = limits
        self._held = bytearray()
        self._skip = 0
        self._cutter: _Cutter | None = None

    def feed(self, data: bytes) -> list[Piece]:
        """Take the next bytes; give those that the demuxer may read now. FormatError where the format is not opened.

        Where only what comes after is wrong, the error comes with the next call.
        """
        self._held += data
        if self._cutter is None:
            self._open()
        return [] if self._cutter is None else self._cutter.take(self._held)

    def finish(self) -> list[Piece]:
        """The bytes that were held back, without half boxes. DamagedError where the format is not known by the end."""
        if self._cutter is not None:
            return self._cutter.take(self._held) + self._cutter.finish(self._held)
        if len(self._held) >= _MARK_BYTES and not self._held.startswith(_CUT_SHORT):
            raise unopened(self._held)
        raise DamagedError(f"media: expected {OPENED}, got {len(self._held)} bytes {first_bytes(self._held)}")

    def _open(self) -> None:
        size = -1
        while size != len(self._held):
            size = len(self._held)
            self._skip = drop_tag(self._held, self._skip)
            if self._held.startswith(_ZEROS):
                self._held = self._held.lstrip(b"\0")
        self.name = sniff(self._held)
        if self.name in ("mp3", "aac") and not frame(self._held, 0)[0]:
            found = joined(self._held)
            if found is not None:
                self.name = found[1]
                del self._held[: found[0]]
        if self.name is not None:
            self._cutter = _cutter(self.name, self._limits)


def _cutter(name: str, limits: MediaLimits) -> _Cutter:
    if name == "mov":
        return Boxes(limits)
    if name == "mpegts":
        return Transport()
    if name == "aac":
        return Adts()
    return Wave(limits) if name == "wav" else Marked(name)
