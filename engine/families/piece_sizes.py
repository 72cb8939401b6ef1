"""How long pieces of video and of sound are, by their shapes: only the model's processor knows, and that takes long.
In: what asks the processor. Out: sizes, each asked for once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...streams.segment import AudioSegment, Segment, VideoSegment
from ..family import Taken

_KEPT = 1024

Shape = tuple[int, ...]  # of frames `(n, h, w, 3)`, of sound `(n,)`


class PieceSize(NamedTuple):
    """How many rows a piece is, and how much of a stream's positions it takes."""

    rows: int
    taken: Taken


class PieceSizes:
    """The sizes of the shapes that were asked for lately. `measure(kind, shape)` finds one."""

    def __init__(self, measure: Callable[[str, Shape], PieceSize]) -> None:
        self._measure = measure
        self._known: dict[Shape, PieceSize] = {}

    def knows(self, segment: Segment) -> bool:
        return not isinstance(segment, VideoSegment | AudioSegment) or _of(segment)[1] in self._known

    def of(self, piece: VideoSegment | AudioSegment) -> PieceSize:
        kind, shape = _of(piece)
        if (size := self._known.get(shape)) is None:
            size = self._measure(kind, shape)
            if len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)), None)
            self._known[shape] = size
        return size


def _of(piece: VideoSegment | AudioSegment) -> tuple[str, Shape]:
    if isinstance(piece, VideoSegment):
        return "video", piece.pixels.shape
    return "audio", (len(piece.samples) - piece.lead,)
