"""Cuts an MP4 at its top-level boxes (ISO/IEC 14496-12, 4.2). Comes in: the bytes of a file; goes out: pieces that its
demuxer can take. Knows no boxes inside boxes.
"""

from __future__ import annotations

import threading
import weakref

from ..errors import DamagedError, FormatError, LimitError, MediaError
from .fragment import START, is_whole, samples, tracks
from .limits import MediaLimits
from .piece import Piece

_MOST_BOX_BYTES = 64 << 20
_HEADERS = tuple(b"ftyp styp moov moof sidx ssix mfra emsg prft uuid meta pdin udta".split())
_MEDIA = (b"mdat", b"free", b"skip", b"wide")
_INSIDE = (b"mfhd", b"traf")  # stand inside a fragment's header alone
_TO_THE_END = 1 << 62
_MOST_TORN_BYTES = 16 << 20
_WAITING: weakref.WeakSet[Boxes] = weakref.WeakSet()  # of this process: those that have held media data for an index
_WAITING_LOCK = threading.Lock()


class Boxes:
    """Passes header boxes on whole, for FFmpeg's demuxer seeks back inside of them, and media data as it comes.

    Boxes of kinds that are not known become `free` ones: offsets stay what they were. After the header of a fragment,
    one that has room for its samples is taken for its media data. A further index (`moov`), with or without a `ftyp` in
    front, begins a new part. Where media data comes first, all of it is held until the index is there; all files of a
    process share the room for that.

    Where a header or a size is damaged, or a fragment has more samples than media data, the file goes on with the next
    fragment that is found, as a new part with the same index. No box is waited for beyond the start of a fragment. A
    fragment that begins before the last sample of the one in front of it begins a part too: a demuxer drops it.
    """

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._indexed = False
        self._left = 0  # bytes of the open box that are still to come
        self._searched = 0  # how far the box that is waited for has been searched for another fragment
        self._front = bytearray()  # what came since the start of a file, until it is known whether an index follows
        self._type = b""  # the newest ftyp box
        self._index = b""  # ftyp and moov, which every fragment needs
        self._fragments = False
        self._tracks: set[int] = set()  # those of the index that have fragments
        self._last: dict[int, int] = {}  # when the newest sample of each begins
        self._torn: MediaError | None = None  # what is wrong in front; the next fragment is looked for
        self._torn_bytes = 0
        self._spoiled: MediaError | None = None  # what is wrong in the fragment; the next one begins a part
        self._open = b""  # the header of a fragment (moof), until the box after it is known
        self._behind: bytearray | None = None  # a file whose index stands after its media data, as far as it is here

    def take(self, held: bytearray) -> list[Piece]:
        """The pieces that are complete at the front of `held`, which are removed from it."""
        pieces: list[Piece] = []
        while True:
            if self._torn is not None and not self._open and not self._find_fragment(held):
                return pieces
            if self._left and not self._pass_media(held, pieces):
                return pieces
            head = _head(held)
            if head is None:
                return pieces
            size, kind = head
            error = self._wrong(size, kind) or self._wrong_fragment(size, kind, held)
            if error is not None and self._fragments and not isinstance(error, LimitError):
                self._open = b""
                self._torn, self._torn_bytes, self._searched = error, 0, 0
                if held.startswith(START, 4):
                    del held[:8]  # a fragment whose own size is wrong is not the next one
                continue
            if error is not None:
                if pieces:
                    return pieces  # what comes before it is decoded first
                raise error
            if kind in _HEADERS:
                if len(held) < size:
                    return pieces
                self._fragment(kind, size, pieces)
                self._header(kind, bytes(held[:size]), pieces)
                del held[:size]
                self._searched = 0
                continue
            if kind not in _MEDIA:
                kind = b"mdat" if self._open and size >= samples(self._open).bytes else b"free"
                held[4:8] = kind
            self._fragment(kind, size, pieces)
            self._left = size
            if kind == b"mdat" and (self._front or not self._indexed) and self._behind is None:
                self._behind, self._front = self._front, bytearray()

    def _find_fragment(self, held: bytearray) -> bool:
        """Drop what is in front of the next fragment. False where more bytes are needed."""
        at = held.find(START)
        drop = at - 4 if at >= 4 else max(0, len(held) - len(START) - 3)
        del held[:drop]
        self._torn_bytes += drop
        if self._torn_bytes > _MOST_TORN_BYTES and self._torn is not None:
            raise self._torn
        return at >= 4

    def _pass_media(self, held: bytearray, pieces: list[Piece]) -> bool:
        """Pass media data on. False where it may go on after what is there."""
        stop = min(self._left, len(held))
        at = held.find(START, 0, stop + len(START)) if self._fragments else -1
        if 4 <= at < stop:
            self._media(bytes(held[: at - 4]), pieces)
            del held[: at - 4]
            self._torn = DamagedError(f"MP4: expected media data of {self._left} bytes more, got a fragment in it")
            self._torn_bytes = self._left = 0
            return True
        if self._fragments and stop < self._left:
            stop = max(0, stop - len(START) - 4) if _partial(held) else stop
        self._media(bytes(held[:stop]), pieces)
        del held[:stop]
        self._left -= stop
        return not self._left

    def finish(self, held: bytearray) -> list[Piece]:
        """Drop half a box at the end. An error where there is no index, or where that box swallowed media data."""
        swallowed = None if self._left or b"mdat" not in held else _head(held)
        have = len(held)
        held.clear()
        if self._behind is not None:
            raise DamagedError(
                f"MP4: expected an index (moov) behind its media data, got the end after {len(self._behind)} bytes"
            )
        if not self._indexed:
            raise DamagedError("MP4: expected an index (moov), got none up to the end of the file")
        torn = self._torn or self._spoiled
        if torn is not None:
            raise torn
        if swallowed is not None:
            size, kind = swallowed
            raise DamagedError(f"MP4: expected a {kind.decode()} box of {size} bytes, got media data within {have}")
        return []

    def _media(self, data: bytes, pieces: list[Piece]) -> None:
        if self._behind is not None:
            self._hold(data)
        elif self._front or not self._indexed:
            self._keep(data)
        elif data:
            pieces.append(Piece(data))

    def _keep(self, data: bytes) -> None:
        if len(self._front) + len(data) > _MOST_BOX_BYTES:
            raise LimitError(f"MP4: expected an index (moov) within {_MOST_BOX_BYTES} bytes, got more without one")
        self._front += data

    def _hold(self, data: bytes) -> None:
        assert self._behind is not None
        most, shared = self._limits.max_index_behind_bytes, self._limits.max_waiting_bytes
        with _WAITING_LOCK:
            _WAITING.add(self)
            all_bytes = len(data) + sum(len(file._behind or b"") for file in _WAITING)
            if len(self._behind) + len(data) <= most and all_bytes <= shared:
                self._behind += data
                return
            alone = len(self._behind) + len(data) > most
            self._behind.clear()
        within = f"{most} bytes" if alone else f"{shared} bytes of all files that wait for theirs"
        raise LimitError(
            f"MP4: expected its index (moov) in front of its media data, or within {within}, got more media data "
            "first; ffmpeg's option -movflags +faststart puts it in front"
        )

    def _header(self, kind: bytes, box: bytes, pieces: list[Piece]) -> None:
        if self._behind is not None:
            self._hold(box)
            if kind == b"moov":
                pieces.append(Piece(bytes(self._behind), starts="mov", whole=True))
                self._behind, self._indexed = None, True
        elif kind == b"ftyp":
            self._type, self._front = box, bytearray(box)
        elif kind == b"moov":
            self._index = self._type + box
            pieces.append(Piece((bytes(self._front) or self._type) + box, starts="mov"))
            self._front, self._indexed, self._fragments = bytearray(), True, b"mvex" in box
            self._tracks, self._last = tracks(box), {}
        elif kind == b"moof":
            self._front, self._fragments = bytearray(), bool(self._index)
            self._open = box
        elif self._front or not self._indexed:
            self._keep(box)
        else:
            pieces.append(Piece(box))

    def _fragment(self, kind: bytes, size: int, pieces: list[Piece]) -> None:
        """Pass the open fragment's header on, now that the box after it is known."""
        if not self._open:
            return
        box, self._open = self._open, b""
        stated, _, absolute, times = samples(box)
        torn = self._torn or self._spoiled
        if torn is not None and absolute:
            raise torn  # its offsets count from the start of a file that is torn
        back = any(first < self._last.get(track, 0) for track, (first, _) in times.items())
        self._last |= {track: last for track, (_, last) in times.items()}
        if torn is None and (absolute or not back):
            pieces.append(Piece(box, anew=b"" if absolute else self._index))
        else:
            pieces.append(Piece(self._index + box, starts="mov", torn=torn is not None))
        self._torn = self._spoiled = None
        if kind == b"mdat" and stated > size and not absolute:
            self._spoiled = DamagedError(f"MP4: expected {stated} bytes of samples in a fragment, got {size}")

    def _wrong(self, size: int, kind: bytes) -> MediaError | None:
        wrong = DamagedError if self._indexed else FormatError
        if not all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind):
            return wrong(f"MP4: expected a box whose kind is four letters, got {kind!r}")
        if size < 8:
            return wrong(f"MP4: expected a box of at least 8 bytes, got one of {size} with the mark {kind!r}")
        if kind in _HEADERS and size > _MOST_BOX_BYTES:
            large = DamagedError if self._fragments else LimitError
            return large(f"MP4: expected a {kind.decode()} box of at most {_MOST_BOX_BYTES} bytes, got {size}")
        if kind not in _HEADERS + _MEDIA and size > _MOST_BOX_BYTES and not self._indexed:
            return FormatError(f"MP4: expected a box of a known kind in front of its index, got {kind!r}")
        if size != _TO_THE_END and size > self._limits.max_stream_bytes:
            large = LimitError if kind in _MEDIA and not self._fragments else wrong
            return large(f"MP4: expected a box of at most {self._limits.max_stream_bytes} bytes, got {size} ({kind!r})")
        return None

    def _wrong_fragment(self, size: int, kind: bytes, held: bytearray) -> MediaError | None:
        """What is wrong with a box among fragments, or with one that swallows them, as far as it is here."""
        if self._fragments and (kind in _INSIDE or (kind != b"moof" and held.startswith(START[4:], 8))):
            return DamagedError(f"MP4: expected a fragment's header (moof), got {kind!r}")
        if kind == b"mdat" and self._open:
            _, offsets, absolute, _ = samples(self._open)
            first, end = len(self._open), len(self._open) + size
            if not absolute and not all(first <= offset <= end for offset in offsets):
                return DamagedError(f"MP4: expected samples of a fragment between {first} and {end}, got {offsets}")
        if kind not in _HEADERS:
            return None
        if held.find(START, max(8, self._searched), size) >= 0:
            return DamagedError(f"MP4: expected a {kind.decode()} box of {size} bytes, got a fragment in it")
        self._searched = max(0, len(held) - len(START) + 1)
        if self._fragments and kind == b"moof" and size <= len(held) and not is_whole(bytes(held[:size]), self._tracks):
            return DamagedError(f"MP4: expected a fragment's header, got {size} bytes that are no whole one")
        return None


def _head(held: bytearray) -> tuple[int, bytes] | None:
    """Size and kind of the box at the front; None where more bytes are needed."""
    if len(held) < 8:
        return None
    size, kind = int.from_bytes(held[:4], "big"), bytes(held[4:8])
    if kind not in _HEADERS + _MEDIA and len(held) < 16:
        return None  # it may be a fragment's header: `_wrong_fragment` looks inside
    if size == 1:
        if len(held) < 16:
            return None
        size = int.from_bytes(held[8:16], "big")
    elif size == 0:
        size = _TO_THE_END
    return size, kind


def _partial(held: bytearray) -> bool:
    """Whether the end may be the start of a fragment."""
    return any(held.endswith(START[:size]) for size in range(1, len(START)))
