"""How long pieces of media are, by their shapes and by what is asked of the model's processor: only that knows, and it
takes long. In: what asks the processor. Out: sizes, each asked for once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...streams.segment import AudioSegment, ImageSegment, VideoSegment
from ..family import TimeTaken

_KEPT = 1024

Shape = tuple[int, ...]  # of pictures `(h, w, 3)`, of frames `(n, h, w, 3)`, of sound `(n,)`
Asked = tuple[tuple[str, bool | int | float], ...]
Piece = ImageSegment | VideoSegment | AudioSegment


class PieceSize(NamedTuple):
    """How many rows a piece is, and how much of a stream's positions it takes."""

    rows: int
    taken: TimeTaken


class PieceSizes:
    """The sizes of what was asked for lately. `measure(kind, shape, asked)` finds one."""

    def __init__(self, measure: Callable[[str, Shape, Asked], PieceSize]) -> None:
        self._measure = measure
        self._known: dict[tuple[str, Shape, Asked], PieceSize] = {}

    def knows(self, piece: Piece) -> bool:
        return _of(piece) in self._known

    def of(self, piece: Piece) -> PieceSize:
        what = _of(piece)
        if (size := self._known.get(what)) is None:
            size = self._measure(*what)
            if len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)), None)
            self._known[what] = size
        return size


def _of(piece: Piece) -> tuple[str, Shape, Asked]:
    match piece:
        case ImageSegment():
            return "image", piece.pixels.shape, tuple(sorted(piece.asked.items()))
        case VideoSegment():
            return "video", piece.pixels.shape, tuple(sorted(piece.asked.items()))
    return "audio", (len(piece.samples) - piece.lead,), ()
