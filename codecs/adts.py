"""Cuts AAC in ADTS (ISO/IEC 14496-3, 1.A.2.2) at its frames. Comes in: bytes; goes out: whole frames."""

from __future__ import annotations

from .marks import drop_tag
from .piece import Piece
from .sniff import HEADER_BYTES, frame

_REACH_BYTES = 3 << 13  # two frames and a bit, as long as they can be


class Adts:
    """Passes frames on that a header follows. A damaged header or length costs its frame, and not what stands after.

    ID3 tags are dropped.
    """

    def __init__(self) -> None:
        self._started = False
        self._skip = 0
        self._torn = False
        self._kind: object = None

    def take(self, held: bytearray) -> list[Piece]:
        """The pieces that are complete at the front of `held`, which are removed from it."""
        passed, pieces = bytearray(), []
        while True:
            self._skip = drop_tag(held, self._skip)
            step, kind = frame(held, 0)
            if len(held) < max(step, 1) + HEADER_BYTES:
                break
            if step and self._follows(held, step, kind):
                self._kind = kind
            else:
                further = self._search(held)
                if not further and len(held) < _REACH_BYTES:
                    break
                further = further or len(held) - 2 * HEADER_BYTES
                if not step or kind != self._kind or further < step:
                    pieces += self._piece(passed)
                    self._torn = True
                    del held[:further]
                    continue
            passed += held[:step]
            del held[:step]
        return pieces + self._piece(passed)

    def finish(self, held: bytearray) -> list[Piece]:
        """The rest; there are no more bytes."""
        rest = bytearray(held)
        held.clear()
        return self._piece(rest)

    def _follows(self, held: bytearray, step: int, kind: object) -> bool:
        """Whether a header stands after the frame: of the same kind, or of another that goes on."""
        if held[step : step + 3] == b"ID3":
            return True
        then, other = frame(held, step)
        return bool(then) and (other == kind or frame(held, step + then)[1] == other)

    def _search(self, held: bytearray) -> int:
        """Where the next frame begins with another after it, of the kind that there was; 0 where none is found."""
        at = held.find(b"\xff", 1)
        while at >= 0:
            step, kind = frame(held, at)
            if step and (self._kind is None or kind == self._kind) and frame(held, at + step)[1] == kind:
                return at
            at = held.find(b"\xff", at + 1)
        return 0

    def _piece(self, passed: bytearray) -> list[Piece]:
        if not passed:
            return []
        piece = Piece(bytes(passed), starts="" if self._started else "aac", torn=self._torn)
        passed.clear()
        self._started, self._torn = True, False
        return [piece]
