"""What stands beside the pixels of a picture file. Comes in: bytes; goes out: the orientation, and files without what a
decoder may stumble over. Nothing here raises on broken metadata: it is then not there.
"""

from __future__ import annotations

import contextlib
import zlib

_ORIENTATION = 0x0112
_EXIF = b"Exif\0\0"
_KEPT_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")
_KEPT_SEGMENTS = (0xE0, 0xEE)  # of those for applications: JFIF and Adobe, which say what the colours are


def orientation(exif: object) -> int:
    """The orientation, 1 to 8, of an EXIF block, which is TIFF (6.0, section 2) with headers in front; 1 by default."""
    if not isinstance(exif, bytes):
        return 1
    while exif.startswith(_EXIF):
        exif = exif[len(_EXIF) :]
    if exif[:2] not in (b"II", b"MM"):
        return 1
    first = _number(exif, 4, 4)
    for at in range(first + 2, min(first + 2 + 12 * _number(exif, first, 2), len(exif) - 11), 12):
        if _number(exif, at, 2) == _ORIENTATION:
            wide = _number(exif, at + 2, 2) in (4, 9)  # else it is of 16 bits
            value = _number(exif, at + 8, 4 if wide else 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _number(exif: bytes, at: int, size: int) -> int:
    return int.from_bytes(exif[at : at + size], "little" if exif[:2] == b"II" else "big")


def raw_profile(text: object) -> bytes | None:
    """The EXIF block that some programs write into a text of a PNG: a name, a length, then hexadecimal digits."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    with contextlib.suppress(ValueError):
        return bytes.fromhex("".join(str(text).split()[2:]))
    return None


def bare_jpeg(data: bytes) -> tuple[bytes, bytes | None]:
    """The file without its segments for applications and comments, and its EXIF block."""
    kept, exif, at = [data[:2]], None, 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        mark = data[at + 1]
        if mark == 0xFF:  # a byte of padding
            at += 1
            continue
        segment = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
        if mark == 0xE1 and exif is None and segment[4:].startswith(_EXIF):
            exif = segment[4:]
        if mark in _KEPT_SEGMENTS or not (0xE0 <= mark <= 0xEF or mark == 0xFE):
            kept.append(segment)
        if len(segment) < 4:
            return data, exif
        at += len(segment)
    return b"".join((*kept, data[at:])), exif


def bare_png(data: bytes) -> bytes:
    """The file with its pixels, its palette, what is transparent and its EXIF block alone."""
    kept, at = [data[:8]], 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind, chunk = data[at + 4 : at + 8], data[at:end]
        whole = zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]
        if kind in _KEPT_CHUNKS and (whole or kind != b"eXIf"):
            kept.append(chunk)
        at = end
    return b"".join((*kept, data[at:]))
