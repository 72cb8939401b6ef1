"""What a finished sequence consists of, in order. Plain data: media as arrays, text as strings, replies as ids."""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class System:
    """The system turn, opened and closed. `text` None: the chat template's own default turn."""

    text: str | None = None


@dataclass(frozen=True)
class UserStart:
    """Opens a user turn."""


@dataclass(frozen=True)
class UserEnd:
    """Closes a user turn."""


@dataclass(frozen=True)
class AssistantStart:
    """Opens an assistant turn; sampled tokens follow."""


@dataclass(frozen=True)
class AssistantEnd:
    """Closes an assistant turn with the template's ids, whatever its last sampled token was."""


@dataclass(frozen=True)
class Text:
    """Words of a user. Text that stands together is tokenised together."""

    text: str


@dataclass(frozen=True)
class Tokens:
    """Ids that were sampled."""

    ids: Row[int]


@dataclass(frozen=True, eq=False)
class ImagePiece:
    """A wrapped picture, `(h, w, 3)` uint8, at its final size."""

    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class VideoPiece:
    """A wrapped block of video, `(n, h, w, 3)` uint8 at its final size; an odd last frame is repeated.

    `times`: of each frame in seconds, where the model is told them; without them frames come from 0 on at the nominal
    rate. `fps`: its own rate; 0: the nominal one.
    """

    frames: np.ndarray
    times: tuple[float, ...] = ()
    fps: float = 0.0


@dataclass(frozen=True, eq=False)
class AudioPiece:
    """The encoder blocks `[first_block, first_block + blocks)` of an unbroken run of sound, as one wrapped piece.

    `samples` is the whole run, `(n,)` float32 at 16 kHz, also where the piece takes only some blocks of it: a block
    sees the real samples on both sides of its edges. `blocks` None: all to the end; the last may be short.
    `clip` True: the run is a complete clip, and the floor of its features is taken from its own maximum alone.
    """

    samples: np.ndarray
    first_block: int = 0
    blocks: int | None = None
    clip: bool = False


@dataclass(frozen=True, eq=False)
class AvPiece:
    """The 2 s units `[first_unit, first_unit + units)` of a video with its sound, as one wrapped piece.

    In each unit the video comes first, then its sound. `frames` `(n, h, w, 3)` and `samples` `(n,)` are the whole run,
    which begins at time 0 for both. `units` None: all to the end. `clip` as in `AudioPiece`.
    """

    frames: np.ndarray
    samples: np.ndarray
    first_unit: int = 0
    units: int | None = None
    clip: bool = False


Piece = (
    System
    | UserStart
    | UserEnd
    | AssistantStart
    | AssistantEnd
    | Text
    | Tokens
    | ImagePiece
    | VideoPiece
    | AudioPiece
    | AvPiece
)
