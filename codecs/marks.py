"""Cuts Matroska, Ogg, FLAC and MP3 at the marks with which a file begins. Comes in: bytes of files in a row; goes
out: pieces, a new part where a file begins. Knows nothing of what is inside.
"""

from __future__ import annotations

from collections.abc import Callable

from .piece import Piece
from .sniff import frame

_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18\x53\x80\x67"
_EBML_BYTES = 1100
_PAGE = b"OggS\0"
_FLAC = b"fLaC\0\0\0\x22"
_TAG_BYTES = 10
_MP3_FIRST_BYTES = 4096  # its demuxer looks for the second frame's header within its first read
_INFO_AT = (36, 21, 13)  # where "Xing" or "Info" stands in a first MP3 frame, after side information of zeros

# Where the next file begins in these bytes, from this place on, and whether that is sure; else the place from which
# more bytes are needed to tell.
_Find = Callable[[bytearray, int], tuple[int, bool]]


class Marked:
    """`name`: the demuxer. ID3 tags between MP3 files are dropped."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._find: _Find = {"matroska": _matroska, "ogg": self._ogg, "flac": _flac, "mp3": _mp3}[name]
        self._first_bytes = _MP3_FIRST_BYTES if name == "mp3" else 1
        self._starts = True
        self._skip = 0
        self._body = False  # a page of Ogg that does not begin a track has come

    def take(self, held: bytearray) -> list[Piece]:
        """The pieces that are complete at the front of `held`, which are removed from it."""
        return self._take(held, self._first_bytes)

    def finish(self, held: bytearray) -> list[Piece]:
        """The rest; there are no more bytes."""
        return self._take(held, 1) + ([self._piece(held, len(held))] if held else [])

    def _take(self, held: bytearray, first_bytes: int) -> list[Piece]:
        pieces: list[Piece] = []
        while True:
            if self._starts:
                self._skip = drop_tag(held, self._skip)
                if len(held) < first_bytes:
                    return pieces
            at, sure = self._find(held, 1 if self._starts else 0)
            if at:
                pieces.append(self._piece(held, at))
            if not sure:
                return pieces
            self._starts, self._body = True, False

    def _piece(self, held: bytearray, size: int) -> Piece:
        piece = Piece(bytes(held[:size]), starts=self._name if self._starts else "")
        self._starts = False
        del held[:size]
        return piece

    def _ogg(self, data: bytearray, start: int) -> tuple[int, bool]:
        """A page that begins a track (RFC 3533, section 6) after one that does not."""
        at = data.find(_PAGE)
        while at >= 0:
            if len(data) < at + 6:
                return at, False
            if not data[at + 5] & 2:
                self._body = True
            elif self._body and at >= start:
                return at, True
            at = data.find(_PAGE, at + 1)
        return _tail(data, _PAGE), False


def drop_tag(held: bytearray, skip: int) -> int:
    """Drop ID3v2 tags at the front (id3.org, ID3v2.4 section 3.1: 10 bytes, then a size of four 7-bit bytes).

    `skip`: bytes of a tag that are still to come, as the last call gave it.
    """
    while skip or (held[:3] == b"ID3" and len(held) >= _TAG_BYTES):
        if not skip:
            size = 0
            for byte in held[6:10]:
                size = size << 7 | byte & 0x7F
            skip = _TAG_BYTES + size + (_TAG_BYTES if held[5] & 0x10 else 0)
        dropped = min(skip, len(held))
        del held[:dropped]
        skip -= dropped
        if not held:
            break
    return skip


def _tail(data: bytearray, mark: bytes) -> int:
    """Where a part of the mark begins that the data ends with; else the end."""
    for size in range(min(len(mark) - 1, len(data)), 0, -1):
        if data.endswith(mark[:size]):
            return len(data) - size
    return len(data)


def _flac(data: bytearray, start: int) -> tuple[int, bool]:
    at = data.find(_FLAC, start)
    return (at, True) if at >= 0 else (max(_tail(data, _FLAC), start), False)


def _matroska(data: bytearray, start: int) -> tuple[int, bool]:
    """An EBML header with a document type, and a segment after it (RFC 8794, section 11.2; RFC 9559, section 5.1)."""
    at = data.find(_EBML, start)
    while at >= 0:
        head = bytes(data[at : at + _EBML_BYTES])
        width = 9 - head[4].bit_length() if len(head) > 4 else 1
        size = int.from_bytes(head[4 : 4 + width], "big") & ~(0x80 << 8 * (width - 1)) if width < 9 else _EBML_BYTES
        end = 4 + width + size
        if end + 4 <= _EBML_BYTES:
            if len(head) < end + 4:
                return at, False
            if head[end : end + 4] == _SEGMENT and (b"webm" in head[:end] or b"matroska" in head[:end]):
                return at, True
        at = data.find(_EBML, at + 1)
    return max(_tail(data, _EBML), start), False


def _mp3(data: bytearray, start: int) -> tuple[int, bool]:
    """An ID3 tag, or a first frame, which says how many there are."""
    found = [at for at in (_id3(data, start), _info(data, start)) if at >= 0]
    if found:
        return min(found), True
    at = data.find(b"\xff", max(start, len(data) - max(_INFO_AT) - 4))
    while at >= 0:
        if len(data) < at + 6 or frame(data, at)[0]:
            return at, False
        at = data.find(b"\xff", at + 1)
    tail = max(start, len(data) - _TAG_BYTES + 1)
    at = data.find(b"ID3", tail)
    return (at if at >= 0 else max(_tail(data, b"ID3"), start)), False


def _id3(data: bytearray, start: int) -> int:
    at = data.find(b"ID3", start)
    while at >= 0:
        tag = data[at : at + _TAG_BYTES]
        if len(tag) == _TAG_BYTES and 2 <= tag[3] <= 4 and not tag[4] and not tag[5] & 0x0F and max(tag[6:]) < 0x80:
            return at
        at = data.find(b"ID3", at + 1)
    return -1


def _info(data: bytearray, start: int) -> int:
    for mark in (b"Info", b"Xing"):
        at = data.find(mark, start)
        while at >= 0:
            for behind in _INFO_AT:
                first = at - behind
                if first >= start and frame(data, first)[0] and not any(data[first + 4 : at]):
                    return first
            at = data.find(mark, at + 1)
    return -1
