"""What the header of an MP4 fragment says of its samples (ISO/IEC 14496-12, 8.8). In: a `moof` box. Out: numbers."""

from __future__ import annotations

from collections.abc import Iterator

_BASE, _DESCRIPTION, _DURATION, _SIZE = 0x1, 0x2, 0x8, 0x10  # fields that a tfhd box may have
_OFFSET, _FLAGS, _EACH_DURATION, _EACH_SIZE = 0x1, 0x4, 0x100, 0x200  # of a trun box


def is_whole(moof: bytes) -> bool:
    """Whether the boxes in it fill it, and one of them is of a track."""
    boxes = list(_boxes(moof, 8, len(moof)))
    return bool(boxes) and boxes[-1][2] == len(moof) and any(kind == b"traf" for kind, _, _ in boxes)


def sample_bytes(moof: bytes) -> tuple[int, bool]:
    """Bytes of the samples whose sizes it states, and whether it places them from the start of the file."""
    total, absolute = 0, False
    for kind, start, stop in _boxes(moof, 8, len(moof)):
        if kind != b"traf":
            continue
        size = 0
        for inner, at, end in _boxes(moof, start, stop):
            flags = _number(moof, at) & 0xFFFFFF
            if inner == b"tfhd":
                absolute = absolute or bool(flags & _BASE)
                at += 8 + 8 * bool(flags & _BASE) + 4 * bool(flags & _DESCRIPTION) + 4 * bool(flags & _DURATION)
                size = _number(moof, at) if flags & _SIZE else 0
            elif inner == b"trun":
                total += _run_bytes(moof, at, end, flags, size)
    return total, absolute


def _run_bytes(moof: bytes, at: int, end: int, flags: int, size: int) -> int:
    count = _number(moof, at + 4)
    if not flags & _EACH_SIZE:
        return count * size
    width = 4 * (flags >> 8 & 0xF).bit_count()
    at += 8 + 4 * bool(flags & _OFFSET) + 4 * bool(flags & _FLAGS) + 4 * bool(flags & _EACH_DURATION)
    return sum(_number(moof, place) for place in range(at, min(at + count * width, end), width))


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and stop of the content of each box in between."""
    while at + 8 <= end:
        size = _number(data, at)
        if not 8 <= size <= end - at:
            return
        yield data[at + 4 : at + 8], at + 8, at + size
        at += size


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")
