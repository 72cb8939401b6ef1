"""Frames and sound side by side, in the order in which they were sent. Comes in: frames and samples; goes out: video
and audio segments. Knows how frames become patches (video.py) and sound becomes blocks (audio.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..codecs.frame import Pixels, Samples
from .audio import AudioBlocks, split
from .event import Dropped
from .order import FrameSource
from .segment import Segment
from .video import VideoPatches

# How much later than expected the next frame or sound of a live track may come, in the other track's media time, before
# what is held of it goes out as it is.
GRACE_US = 400_000
_NEVER_US = -(1 << 62)


class Tracks:
    """What is sent in an order goes out in that order.

    Frames wait for the rest of their patch, sound for the rest of its block. What comes next and does not continue them
    gives out what waits, as it is. Frames and sound continue side by side, as two tracks of one clock, where they are
    of one source, or where both have media times of their own and the newcomer begins no later than `GRACE_US` behind
    the time at which the waiting track was to go on. Where both wait at a flush, the frames go out first, unless the
    sound had ended when they began. A block of sound that began after a waiting frame of another
    source lets that frame out first. Either track may be missing (None).
    """

    def __init__(self, frames: VideoPatches | None, sound: AudioBlocks | None) -> None:
        self._frames = frames
        self._sound = sound
        self._frames_from: FrameSource | None = None  # of the newest frame
        self._sound_from: FrameSource | None = None  # of the newest sound
        self._heard_us: int | None = None  # how far sound had come when the oldest frame that is held came

    @property
    def held_frames(self) -> int:
        """Picked frames that wait for the rest of their patch."""
        return 0 if self._frames is None else self._frames.held

    @property
    def held_samples(self) -> int:
        """Samples at the model's rate that are in no block yet."""
        return 0 if self._sound is None else self._sound.held

    def video(self, seq: int, frame: Pixels, source: FrameSource) -> tuple[list[Segment], list[Dropped]]:
        """Take a frame; give what it completes or lets out, and what was lost."""
        if self._frames is None:
            return [], []
        segments: list[Segment] = []
        if self.held_samples and not _beside(source, self._sound_from, frame.pts_us, self._sound_end_us):
            segments += self._give_sound()
        patches, late = self._frames.feed(seq, frame)
        self._frames_from = source
        if patches or not self.held_frames:
            self._heard_us = None
        if self.held_frames and self._heard_us is None:
            self._heard_us = self._sound_end_us if self.held_samples else _NEVER_US
        return [*segments, *patches], [*self._lost(seq), *late]

    def audio(self, seq: int, sound: Samples, source: FrameSource) -> tuple[list[Segment], list[Dropped]]:
        """Take sound; give what it completes or lets out, and what was lost."""
        if self._sound is None:
            return [], []
        segments: list[Segment] = []
        pieces, own = [sound], source.name != "" and source == self._frames_from
        if self._frames is not None and self.held_frames and not own:
            until_us = self._frames.patience_us
            if not _beside(source, self._frames_from, sound.pts_us, until_us):
                segments += self._give_frames()
            else:
                pieces = [piece for piece in split(sound, until_us + GRACE_US) if piece.samples.shape[1]]
        for place, piece in enumerate(pieces):
            if place:  # it begins where the frames have waited long enough, however the sound is cut
                segments += self._give_frames()
            for block in self._sound.feed(piece):
                if self._heard_us is not None and block.audio.start_us >= self._heard_us and not own:
                    segments += self._give_frames()
                segments.append(block.audio)
        self._sound_from = source
        return segments, self._lost(seq)

    def clip(self, seq: int, sounds: Sequence[Samples]) -> tuple[list[Segment], list[Dropped]]:
        """Take a complete sound, a run of its own, and give it out whole, after what is held."""
        segments, dropped = self.flush(seq)
        assert self._sound is not None
        for samples in sounds:
            segments += [block.audio for block in self._sound.feed(samples)]
        return segments + self._give_sound(), dropped + self._lost(seq)

    def flush(self, seq: int) -> tuple[list[Segment], list[Dropped]]:
        """Give out what is held: an odd frame, a short block. Runs of sound end."""
        segments: list[Segment] = []
        if self._frames is not None:
            ended_us, began_us = self._sound_end_us, self._frames.held_from_us
            if began_us is not None and ended_us is not None and ended_us <= began_us:
                segments += self._give_sound()
            segments += self._give_frames()
        return segments + self._give_sound(), self._lost(seq)

    def restart(self) -> None:
        """The clock was set again: what comes next begins again, whatever its time. Nothing may be held."""
        if self._frames is not None:
            self._frames.restart()
        if self._sound is not None:
            self._sound.restart()

    @property
    def _sound_end_us(self) -> int | None:
        return None if self._sound is None else self._sound.end_us

    def _give_frames(self) -> list[Segment]:
        self._heard_us = None
        return [] if self._frames is None else [*self._frames.flush()]

    def _give_sound(self) -> list[Segment]:
        return [] if self._sound is None else [block.audio for block in self._sound.end()]

    def _lost(self, seq: int) -> list[Dropped]:
        if self._sound is None:
            return []
        lost, self._sound.lost = self._sound.lost, []
        return [loss.event(seq) for loss in lost]


def _beside(newcomer: FrameSource, held: FrameSource | None, start_us: int, until_us: int | None) -> bool:
    """Whether media that starts at `start_us` goes on beside the other track, which waits until `until_us`."""
    if held is None or until_us is None or (newcomer.name and newcomer == held):
        return True
    return newcomer.timed and held.timed and start_us < until_us + GRACE_US
