"""A video with its sound to units. Comes in: frames and samples of one source; goes out: unit segments.

A unit is a stretch of media time that the model takes interleaved, first its pictures, then its sound. Units lie on a
grid that starts at the first frame. Knows how sound is cut (audio.py) and how frames are picked (video.py), no models.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ..codecs.frame import Pixels, Samples
from ..errors import InputError
from .audio import SECOND_US, AudioBlocks, LostSound, MakeResampler, SoundBlock, split
from .event import Dropped
from .order import FrameSource
from .segment import AudioSegment, MediaSpec, UnitSegment
from .video import Pick, Pictures, Sampler, late_frame, whole_patches


class Grid:
    """Unit u covers `[zero + u * unit, zero + (u + 1) * unit)` microseconds; zero is the time of the first frame."""

    def __init__(self, spec: MediaSpec) -> None:
        self._spec = spec
        self.zero_us: int | None = None

    def unit(self, time_us: int) -> int:
        """The unit that `time_us` lies in."""
        assert self.zero_us is not None
        return (time_us - self.zero_us) // self._spec.unit_us

    def start(self, unit: int) -> int:
        """Where a unit starts."""
        assert self.zero_us is not None
        return self.zero_us + unit * self._spec.unit_us

    def place(self, start_us: int) -> tuple[int, int]:
        """The unit of the first block of a run that starts at `start_us`, and the samples of that block.

        The block ends at the unit's border, to the nearest mel frame; where no frame is left it fills the next unit.
        """
        unit = self.unit(start_us)
        left_us = self.start(unit + 1) - start_us
        hop = self._spec.hop_samples
        frames = (2 * left_us * self._spec.audio_rate + SECOND_US * hop) // (2 * SECOND_US * hop)
        return (unit, frames * hop) if frames else (unit + 1, self._spec.block_samples)


class _OpenUnit(msgspec.Struct, eq=False):
    """What has come for a unit that is not closed."""

    size: tuple[int, int] = (0, 0)
    pictures: list[np.ndarray] = []
    pts_us: list[int] = []
    audio: AudioSegment | None = None


class Units:
    """Collects the pictures and the sound of each unit.

    A unit is closed when its last tick is decided and its sound is there with its look-ahead; or when pictures or
    sound are more than one unit and the lateness beyond its end: then it goes out with what it has. What comes for a
    closed unit is lost ("late"), so is sound before the first frame. A unit with sound and without a picture of its
    own takes the newest picture of the units before it; one with neither is left out. A flush gives out the open
    units and closes none: what comes later for one of them makes a second segment.

    A unit has one size of picture, fixed at its first one; a source of another size counts from the next unit on. Its
    times reach from the earliest to the latest of its pictures and samples. Without a lateness a frame that is
    older than the newest says that the clock was set back: what is open goes out, and a new grid begins there.
    """

    def __init__(
        self, spec: MediaSpec, fps: float, pictures: Pictures, make_resampler: MakeResampler, lateness_us: int
    ) -> None:
        """InputError where the model takes no sound, or where `fps` gives a unit less than one temporal patch."""
        if not spec.audio_rate:
            raise InputError("audio in video: expected a model that takes sound, got one that does not")
        if fps * spec.unit_us < spec.temporal_patch * SECOND_US:
            least = spec.temporal_patch * SECOND_US / spec.unit_us
            raise InputError(f"video_fps with audio in video: expected at least {least:g}, got {fps:g}")
        spec = msgspec.structs.replace(spec, block_samples=spec.unit_us * spec.audio_rate // SECOND_US)
        self._spec = spec
        self._sampler = Sampler(fps)
        self._pictures = pictures
        self._grid = Grid(spec)
        self._sound = AudioBlocks(spec, make_resampler, once=True, cells=self._grid)
        self._patience_us = spec.unit_us + lateness_us
        self._ordered = lateness_us > 0
        self._early: list[Samples] = []
        self._units: dict[int, _OpenUnit] = {}
        self._closed = 0  # units before this one are closed
        self._last: np.ndarray | None = None
        self._picked: Pixels | None = None
        self._used = True  # whether the frame that was picked last is in a unit
        self._lost: list[Dropped | LostSound] = []

    @property
    def held_frames(self) -> int:
        """Picked frames in open units."""
        return sum(len(unit.pictures) for unit in self._units.values())

    @property
    def held_samples(self) -> int:
        """Samples at the model's rate in open units and before them."""
        early = sum(s.samples.shape[1] * self._spec.audio_rate // s.rate for s in self._early)
        blocks = (unit.audio for unit in self._units.values() if unit.audio is not None)
        return early + self._sound.held + sum(len(audio.samples) - audio.lead for audio in blocks)

    def video(self, seq: int, frame: Pixels, source: FrameSource) -> tuple[list[UnitSegment], list[Dropped]]:
        """Take a frame, of whatever source; give the units that it closes and what was lost."""
        before: list[UnitSegment] = []
        if self._sampler.goes_back(frame) and not self._ordered:
            before, lost = self.flush(seq)
            self._lost += lost
            self.restart()
        first = self._grid.zero_us is None
        if first:
            self._grid.zero_us = self._sound.floor_us = frame.pts_us
        if not self._sampler.takes(frame):
            return before, [late_frame(seq, frame)]
        self._pick(seq, self._sampler.feed(frame))
        if first:
            for samples in self._early:
                self._hear(samples)
            self._early = []
        return before + self._close_passed(), self._take_lost(seq)

    def restart(self) -> None:
        """The clock was set again: the next frame begins the grid of units, whatever its time. Nothing may be open."""
        self._sampler.restart()
        self._sound.restart()
        self._grid.zero_us, self._closed = None, 0
        self._picked, self._used = None, True

    def audio(self, seq: int, samples: Samples, source: FrameSource) -> tuple[list[UnitSegment], list[Dropped]]:
        """Take sound, of whatever source; give the units that it closes and what was lost."""
        if self._grid.zero_us is None:
            self._early.append(samples)
            self._forget_early()
            return [], self._take_lost(seq)
        self._hear(samples)
        return self._close_passed(), self._take_lost(seq)

    def flush(self, seq: int) -> tuple[list[UnitSegment], list[Dropped]]:
        """Give out what is open. Sound before the first frame is lost: no unit can be made of it."""
        for samples in self._early:
            self._lose(samples)
        self._early = []
        self._pick(seq, self._sampler.flush())
        self._place(self._sound.end())
        return self._give(list(self._units)), self._take_lost(seq)

    def _pick(self, seq: int, picks: list[Pick]) -> None:
        for pick in picks:
            if pick.frame is not self._picked:
                if self._picked is not None and not self._used:
                    self._lost.append(late_frame(seq, self._picked))
                self._picked, self._used = pick.frame, False
            number = self._grid.unit(pick.tick_us)
            if number < self._closed:
                continue
            self._used = True
            unit = self._units.setdefault(number, _OpenUnit())
            if not unit.pictures:
                unit.size = self._pictures.size(pick.frame)
            unit.pictures.append(self._pictures.at(pick.frame, unit.size))
            unit.pts_us.append(pick.frame.pts_us)

    def _hear(self, samples: Samples) -> None:
        self._place(self._sound.feed(samples))

    def _place(self, blocks: list[SoundBlock]) -> None:
        for block in blocks:
            unit = self._units.setdefault(block.cell, _OpenUnit())
            if unit.audio is None:
                unit.audio = block.audio
            else:
                rest = block.audio
                count = len(rest.samples) - rest.lead
                self._lost.append(LostSound(count, rest.start_us, rest.stop_us, "late"))

    def _close_passed(self) -> list[UnitSegment]:
        """Close the units that nothing more is waited for, and give them out."""
        sampler, sound, grid = self._sampler, self._sound, self._grid
        heard = self._closed if sound.open_cell is None else sound.open_cell
        complete = min(grid.unit(sampler.next_tick_us), heard)
        newest_us = max(time for time in (sampler.newest_us, sound.end_us) if time is not None)
        overdue = grid.unit(newest_us - self._patience_us - 1)
        closed = max(complete, overdue, self._closed)
        if sound.open_cell is not None and sound.open_cell < closed:
            self._place(sound.end())
        self._closed = closed
        sound.floor_us = grid.start(closed)
        return self._give([number for number in self._units if number < closed])

    def _give(self, numbers: list[int]) -> list[UnitSegment]:
        return [self._segment(self._units.pop(number)) for number in sorted(numbers)]

    def _segment(self, unit: _OpenUnit) -> UnitSegment:
        frames = unit.pictures
        if not frames:
            assert self._last is not None
            frames = [self._last]
        self._last = frames[-1]
        times = list(unit.pts_us)
        if unit.audio is not None:
            times += [unit.audio.start_us, unit.audio.stop_us]
        pixels = whole_patches(frames, self._spec.temporal_patch)
        return UnitSegment(0, 0, pixels, unit.audio, min(times), max(times))

    def _forget_early(self) -> None:
        """Keep of the sound before the first frame what can still belong to a unit: one unit and the lateness."""
        newest_us = max(s.pts_us + s.samples.shape[1] * SECOND_US // s.rate for s in self._early)
        kept: list[Samples] = []
        for samples in self._early:
            before, behind = split(samples, newest_us - self._patience_us)
            self._lose(before)
            if behind.samples.shape[1]:
                kept.append(behind)
        self._early = kept

    def _lose(self, samples: Samples) -> None:
        if count := samples.samples.shape[1]:
            stop_us = samples.pts_us + count * SECOND_US // samples.rate
            count = round(count * self._spec.audio_rate / samples.rate)
            self._lost.append(LostSound(count, samples.pts_us, stop_us, "late"))

    def _take_lost(self, seq: int) -> list[Dropped]:
        lost, self._lost = self._lost + self._sound.lost, []
        self._sound.lost = []
        return [loss.event(seq) if isinstance(loss, LostSound) else loss for loss in lost]
