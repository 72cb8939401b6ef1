"""Where rows stand: the cursor of a stream and the position rule of each kind of block. Integers and numpy only.

A stream keeps its own cursor; positions are never worked out again from a list of tokens (the library's own code
gives one-axis positions on a filled cache). Every row has three positions (time, height, width); models with one axis
use the first.

Sources: `get_rope_index` of transformers' Qwen2.5-Omni; Qwen2-VL, arXiv 2409.12191, section 2.1 (M-RoPE).
"""

from __future__ import annotations

import msgspec
import numpy as np

_COLUMN = np.ones((3, 1), dtype=np.int64)


class Cursor(msgspec.Struct):
    """The next positions of a stream.

    `text_next`: where text or media after a block goes by the family's rule. `reply_next`: where a sampled token
    goes: the largest position of all so far plus one, or by the library's rule after the last row.
    """

    text_next: int = 0
    reply_next: int = 0

    def copy(self) -> Cursor:
        return Cursor(self.text_next, self.reply_next)

    def text(self, count: int) -> np.ndarray:
        """Positions `(3, count)` of `count` text rows; the cursor moves after them."""
        positions = np.broadcast_to(np.arange(self.text_next, self.text_next + count, dtype=np.int64), (3, count))
        if count:
            self.passed(positions)
        return positions

    def together(self, count: int) -> np.ndarray:
        """Positions `(3, count)` of wrapper rows that share one position."""
        positions = np.full((3, count), self.text_next, dtype=np.int64)
        if count:
            self.passed(positions)
        return positions

    def token(self) -> np.ndarray:
        """The position `(3, 1)` of a sampled token; the cursor moves after it."""
        positions = _COLUMN * self.reply_next
        self.text_next = self.reply_next = self.reply_next + 1
        return positions

    def passed(self, positions: np.ndarray) -> None:
        """Go on after rows at these positions."""
        self.text_next = int(positions.max()) + 1
        self.reply_next = max(self.reply_next, self.text_next)


class Clock(msgspec.Struct, frozen=True):
    """How media time becomes positions: `per_second` positions a second, `grid_seconds` seconds per temporal patch."""

    per_second: float
    grid_seconds: float

    def at(self, patch: np.ndarray) -> np.ndarray:
        """Offsets of temporal patches, truncated after float32 products as the model's own code has it."""
        return (patch.astype(np.float32) * np.float32(self.grid_seconds) * np.float32(self.per_second)).astype(np.int64)

    def end(self, patches: int) -> int:
        """Where the patch behind the first `patches` stands, counted from the first."""
        return int(self.at(np.array(patches)))


def grid(start: int, offsets: np.ndarray, height: int, width: int) -> np.ndarray:
    """Positions of patches, `(3, len(offsets) * height * width)`.

    Time is `start + offset`; row and column count from `start`.
    """
    count = len(offsets)
    time = np.repeat(offsets, height * width)
    rows = np.tile(np.repeat(np.arange(height, dtype=np.int64), width), count)
    columns = np.tile(np.arange(width, dtype=np.int64), count * height)
    return np.stack([time, rows, columns]) + start


class Block(msgspec.Struct):
    """An open block of media: one pair of wrappers around all that follows without anything in between.

    `start` is the position it counts from; `patches` temporal patches and `audio_rows` rows of sound are in it already.
    `last` is the largest position of the piece laid last, `largest` of the whole block. `clip_fps`: it is of a clip of
    so many frames a second; None: of the stream's own media.
    """

    kind: str
    start: int
    height: int
    width: int
    run: int
    clip_fps: float | None = None
    patches: int = 0
    audio_rows: int = 0
    last: int = -1
    largest: int = -1

    def copy(self) -> Block:
        return msgspec.structs.replace(self)

    def put(self, places: np.ndarray, behind: int) -> np.ndarray:
        """Positions `(3, n)` of rows that stand at `places` from here on, `behind` which the next thing stands."""
        positions = places + self.start
        self.last, self.largest = self.start + behind - 1, int(positions.max())
        return positions

    def extend(self, patches: int, audio_rows: int, clock: Clock) -> np.ndarray:
        """Positions `(3, n)` of `patches` further temporal patches, then `audio_rows` further rows of sound."""
        pieces = []
        if patches:
            index = np.arange(self.patches, self.patches + patches)
            pieces.append(grid(self.start, clock.at(index), self.height, self.width))
        if audio_rows:
            first = self.start + self.audio_rows
            pieces.append(np.broadcast_to(np.arange(first, first + audio_rows, dtype=np.int64), (3, audio_rows)))
        self.patches += patches
        self.audio_rows += audio_rows
        self.last = int(pieces[-1].max())
        self.largest = max(self.largest, *(int(piece.max()) for piece in pieces))
        return np.concatenate(pieces, axis=1)

    def leave(self, cursor: Cursor, rule: str) -> None:
        """Move the cursor after the block.

        `rule` "max": after the largest position. The library's rules: "last", after the piece that was laid last,
        sampled tokens too (Qwen2.5-Omni); "sides", as far on as the longer side of a picture, whatever its time says,
        and sampled tokens after the largest position (Qwen2-VL, Qwen2.5-VL).
        """
        if rule == "sides":
            cursor.text_next = self.start + max(self.height, self.width)
            cursor.reply_next = max(cursor.reply_next, self.largest + 1)
            return
        cursor.text_next = (self.largest if rule == "max" else self.last) + 1
        cursor.reply_next = max(cursor.reply_next, cursor.text_next) if rule == "max" else cursor.text_next
