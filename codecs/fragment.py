"""What the header of an MP4 fragment says (ISO/IEC 14496-12, 8.8). In: a `moof` box, and the index (`moov`) of its
file. Out: numbers, and whether it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

START = b"moof\0\0\0\x10mfhd"  # how a fragment begins (8.8.4 and 8.8.5), after its size; nothing else looks like it
_BASE, _DESCRIPTION, _DURATION, _SIZE, _DEFAULT_FLAGS = 0x1, 0x2, 0x8, 0x10, 0x20  # fields that a tfhd box may have
_EMPTY, _FROM_HEADER = 0x10000, 0x20000  # of a tfhd: its track has no samples here; offsets count from the moof
_OFFSET, _FLAGS, _EACH_DURATION, _EACH_SIZE = 0x1, 0x4, 0x100, 0x200  # of a trun box


class FragmentSamples(NamedTuple):
    """Those of a fragment. `bytes`: of those whose sizes it states. `offsets`: where runs of them begin, as far as they
    count from the start of its header. `absolute`: some count from the start of the file instead. `times`: when the
    first and the last of each track begin, in its own ticks.
    """

    bytes: int
    offsets: list[int]
    absolute: bool
    times: dict[int, tuple[int, int]]


def tracks(moov: bytes) -> set[int]:
    """The tracks that have fragments."""
    return {
        _number(moov, at + 4)
        for kind, start, stop in _boxes(moov, 8, len(moov))
        if kind == b"mvex"
        for inner, at, _ in _boxes(moov, start, stop)
        if inner == b"trex"
    }


def is_whole(moof: bytes, known: set[int]) -> bool:
    """Whether boxes fill it and each other, their sizes fit what they hold, and its tracks are among the known ones."""
    if not moof.startswith(START, 4) or not _filled(moof, 8, len(moof)):
        return False
    parts = list(_boxes(moof, 8, len(moof)))
    trafs = [(start, stop) for kind, start, stop in parts if kind == b"traf"]
    hidden = any(kind != b"traf" and moof.startswith(b"tfhd", start + 4) for kind, start, _ in parts)
    return bool(trafs) and not hidden and all(_is_whole_track(moof, start, stop, known) for start, stop in trafs)


def samples(moof: bytes) -> FragmentSamples:
    """What it says of its samples."""
    total, offsets, absolute = 0, [], False
    times: dict[int, tuple[int, int]] = {}
    first = True
    for kind, start, stop in _boxes(moof, 8, len(moof)):
        if kind != b"traf":
            continue
        track = size = duration = next_time = 0
        behind, first = not first, False  # the offsets of a further track may count from the end of the one before
        for inner, at, end in _boxes(moof, start, stop):
            flags = _number(moof, at) & 0xFFFFFF
            if inner == b"tfhd":
                absolute, track = absolute or bool(flags & _BASE), _number(moof, at + 4)
                behind = behind and not flags & _FROM_HEADER
                at += 8 + 8 * bool(flags & _BASE) + 4 * bool(flags & _DESCRIPTION)
                duration = _number(moof, at) if flags & _DURATION else 0
                size = _number(moof, at + 4 * bool(flags & _DURATION)) if flags & _SIZE else 0
            elif inner == b"tfdt":
                next_time = int.from_bytes(moof[at + 4 : end], "big")
                times[track] = next_time, next_time
            elif inner == b"trun":
                total += _run(moof, at, end, _EACH_SIZE, size)[0]
                lasting, newest = _run(moof, at, end, _EACH_DURATION, duration)
                if track in times:
                    times[track] = times[track][0], next_time + lasting - newest
                next_time += lasting
                if flags & _OFFSET and not behind:
                    offsets.append(int.from_bytes(moof[at + 8 : at + 12], "big", signed=True))
    return FragmentSamples(total, offsets, absolute, times)


def _is_whole_track(moof: bytes, start: int, stop: int, known: set[int]) -> bool:
    """Whether the content of a `traf` box is as it has to be: its header first, then runs of samples."""
    if not _filled(moof, start, stop) or moof[start + 4 : start + 8] != b"tfhd":
        return False
    empty = runs = False
    for kind, at, end in _boxes(moof, start, stop):
        flags, size = _number(moof, at) & 0xFFFFFF, end - at
        if kind == b"tfhd":
            fields = (_BASE, _BASE, _DESCRIPTION, _DURATION, _SIZE, _DEFAULT_FLAGS)  # the first has 8 bytes
            if size != 8 + 4 * sum(bool(flags & field) for field in fields):
                return False
            if flags & ~sum({*fields, _EMPTY, _FROM_HEADER}) or (known and _number(moof, at + 4) not in known):
                return False
            empty = bool(flags & _EMPTY)
        elif kind == b"tfdt" and size != (12 if moof[at] else 8):
            return False
        elif kind == b"trun":
            runs = True
            fixed = 8 + 4 * bool(flags & _OFFSET) + 4 * bool(flags & _FLAGS)
            if size != fixed + _number(moof, at + 4) * _sample_bytes(flags):
                return False
    return runs or empty


def _run(moof: bytes, at: int, end: int, field: int, each: int) -> tuple[int, int]:
    """The sum of a field of a `trun` box over its samples, and the last one; `each`, where they do not state it."""
    flags, count = _number(moof, at) & 0xFFFFFF, _number(moof, at + 4)
    if not flags & field:
        return count * each, each
    width = _sample_bytes(flags)
    at += 8 + 4 * bool(flags & _OFFSET) + 4 * bool(flags & _FLAGS) + _sample_bytes(flags & (field - 1))
    values = [_number(moof, place) for place in range(at, min(at + count * width, end), width)]
    return sum(values), values[-1] if values else 0


def _sample_bytes(flags: int) -> int:
    """Bytes of each sample's entry in a trun box."""
    return 4 * (flags >> 8 & 0xF).bit_count()


def _filled(data: bytes, start: int, stop: int) -> bool:
    """Whether boxes fill this place."""
    at = start
    for box in _boxes(data, start, stop):
        at = box[2]
    return at == stop


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
