"""Segments: the smallest pieces of media that a model can take exactly. Plain data.

`seq` is the number of the input that completed the segment and `index` counts the segments of that input: (seq, index)
orders all segments of a stream.
"""

from __future__ import annotations

import msgspec
import numpy as np


class SizeRule(msgspec.Struct, frozen=True):
    """Both sides become multiples of `factor`, the area lies in `[min_pixels, max_pixels]`, the aspect ratio about
    stays.

    frames: the area is that of so many frames together, where the bounds are a whole video's; `counted` is how many of
    them the processor counts when it compares, whole temporal patches. lifts: where a side is shorter than the factor,
    both first grow by the same number until it is not.
    """

    factor: int
    min_pixels: int
    max_pixels: int
    frames: int = 1
    counted: int = 1
    lifts: bool = False

    @property
    def largest(self) -> int:
        """The largest area of one picture."""
        return self.max_pixels // self.counted


class Option(msgspec.Struct, frozen=True):
    """An option of a model's processor: a number in `[least, most]`, by `kind` a "whole" one, a "number" or, where it
    is a bool, a "switch".
    """

    kind: str
    least: float = 0
    most: float = 1


class RowSpec(msgspec.Struct, frozen=True):
    """What rows that were made elsewhere have to be like: `width` numbers each.

    ids: the placeholder of a row, by the kind of media that may come so. deep: after how many of the decoder's first
    layers more is added. grids: images and video have to say how their rows lie. timed: video has to say when it was.
    """

    width: int
    ids: dict[str, int]
    deep: int = 0
    grids: bool = False
    timed: bool = False


class MediaSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's processor says about media, as plain numbers. A modality that is None is not taken."""

    image: SizeRule | None = None
    video: SizeRule | None = None
    # All frames of one video together may have this many pixels; 0: no such bound.
    video_total_pixels: int = 0
    # All frames together have at least and at most so many pixels, where their number is known; (0, 0): no such rule.
    video_budget: tuple[int, int] = (0, 0)
    # With a budget: one frame has at most so many pixels, whatever the number of frames; 0: no such bound.
    video_frame_pixels: int = 0
    temporal_patch: int = 2
    # A piece that is shorter than a temporal patch has a multiple of so many frames; 0: as many as a temporal patch.
    video_fill: int = 0
    video_fps: float = 2.0
    audio_rate: int = 0  # 0: no sound
    hop_samples: int = 160
    mel_bins: int = 0
    # A block is `block_samples` long; its first mel frames reach back `lead_samples`, its last `look_ahead_samples` on.
    block_samples: int = 32_000
    lead_samples: int = 200
    look_ahead_samples: int = 40
    min_block_frames: int = 3
    unit_us: int = 2_000_000
    # What a client may set of the processor, by name.
    options: dict[str, Option] = {}
    # Those of them that go with each piece to the model's processor, which sizes it; and the values that are asked for.
    by_piece: tuple[str, ...] = ()
    asked: dict[str, bool | int | float] = {}
    # The processor shares a budget among the frames of a video: `expected_frames` goes with each piece, too.
    by_length: bool = False
    rows: RowSpec = RowSpec(0, {})


class ImageSegment(msgspec.Struct, frozen=True, eq=False, tag="image"):
    """A still picture, `(h, w, 3)` uint8, already at the size the model takes. `asked` as in `MediaSpec`."""

    seq: int
    index: int
    pixels: np.ndarray
    start_us: int | None = None
    stop_us: int | None = None
    asked: dict[str, bool | int | float] = {}


class VideoSegment(msgspec.Struct, frozen=True, eq=False, tag="video"):
    """One temporal patch of a video, `(temporal_patch, h, w, 3)` uint8, at the size that was fixed when the video
    opened. `clip_fps`: it is part of a clip of its own, at so many frames a second; None: of the stream's video.
    `smaller`: the same frames at the size that they have while nothing happens, until it is decided which go in.
    `asked` as in `MediaSpec`.
    """

    seq: int
    index: int
    pixels: np.ndarray
    start_us: int
    stop_us: int
    clip_fps: float | None = None
    smaller: np.ndarray | None = None
    asked: dict[str, bool | int | float] = {}


class AudioSegment(msgspec.Struct, frozen=True, eq=False, tag="audio"):
    """One encoder block of sound: mono float32 samples at the model's rate.

    `samples[lead:]` is the block itself followed by what there is of the look-ahead; `samples[:lead]` are the real
    samples before it (lead 0: a run begins here, the log-mel reflects). `frames` is the number of mel frames of the
    block. `run` counts the unbroken runs of sound in the stream; a block continues the one before it only inside its
    run. `loudest` is the largest log-mel power of the whole clip where that is known; None: the stream's so far counts.
    `power` is the block's log-mel power, `(bins, frames)` float32, where it is known already. `clip_fps` as in
    `VideoSegment`.
    """

    seq: int
    index: int
    samples: np.ndarray
    lead: int
    frames: int
    run: int
    start_us: int
    stop_us: int
    loudest: float | None = None
    power: np.ndarray | None = None
    clip_fps: float | None = None


class UnitSegment(msgspec.Struct, frozen=True, eq=False, tag="unit"):
    """Two seconds of a video and of its sound, which the model takes interleaved: the frames, then the sound.

    `pixels` is `(n * temporal_patch, h, w, 3)` uint8 with n at least 1; `audio` the unit's block or None where there
    is none.
    """

    seq: int
    index: int
    pixels: np.ndarray
    audio: AudioSegment | None
    start_us: int
    stop_us: int


class EmbeddingSegment(msgspec.Struct, frozen=True, eq=False, tag="embedding"):
    """Rows that were made elsewhere, `(n, width)` float32, and what is added after the decoder's first layers,
    `(layers, n, width)` float32; None where the model has none. `modality` is what they stand for, `token` the
    placeholder of each, `grid` how they lie (0, 0, 0 where that is not said).
    """

    seq: int
    index: int
    modality: str
    token: int
    rows: np.ndarray
    deep: np.ndarray | None
    grid: tuple[int, int, int]
    start_us: int | None = None
    stop_us: int | None = None


Segment = ImageSegment | VideoSegment | AudioSegment | UnitSegment | EmbeddingSegment


class DroppedSegment(msgspec.Struct, frozen=True, eq=False, tag="dropped"):
    """A piece that does not go to the model, in its place among those that do: its time passes there.

    `piece` is without content: its pixels and samples are zeros that take no memory. Its shapes say how long it took.
    """

    seq: int
    index: int
    piece: VideoSegment | AudioSegment


class TurnEnd(msgspec.Struct, frozen=True, eq=False, tag="turn"):
    """No media: a place among segments. Somebody has stopped to speak there, at `stop_us`, in turn number `turn`, and a
    reply begins."""

    seq: int
    index: int
    turn: int
    stop_us: int


Sifted = Segment | DroppedSegment | TurnEnd
