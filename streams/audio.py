"""Sound to encoder blocks. Comes in: samples with their media time; goes out: audio segments.

`AudioBlocks` follows runs: sound without a break, resampled by one resampler and cut by counting samples. It knows
neither pictures nor mel spectra, only how many samples a block of them needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np

from ..codecs.frame import Samples
from .event import Dropped
from .segment import AudioSegment, MediaSpec

SECOND_US = 1_000_000
# Stamps of arrival jitter. Up to this the count of samples is believed, beyond it the stamp.
TOLERANCE_US = 100_000


class Resampling(Protocol):
    """A stateful resampler to mono float32: what it gives for a run does not depend on how the run is cut."""

    def feed(self, samples: Samples, /) -> np.ndarray: ...

    def flush(self) -> np.ndarray: ...


MakeResampler = Callable[[int], Resampling]


class Cells(Protocol):
    """Where blocks end that have to end at given media times."""

    def place(self, start_us: int) -> tuple[int, int]:
        """For a run that starts at `start_us`: the cell of its first block, and that block's length in samples."""
        ...


class SoundBlock(msgspec.Struct, frozen=True, eq=False):
    """A block of sound and the cell it fills (0 where there are no cells)."""

    cell: int
    audio: AudioSegment


class LostSound(msgspec.Struct, frozen=True):
    """`count` samples at the model's rate that no block has."""

    count: int
    start_us: int
    stop_us: int
    reason: str

    def event(self, seq: int) -> Dropped:
        return Dropped(seq, "audio", self.count, self.start_us, self.stop_us, self.reason)


class AudioBlocks:
    """Cuts sound into blocks with real samples on both sides.

    A block goes out as soon as its look-ahead is there. Its lead are the samples before it, as many as the run has. A
    run ends at a flush, and where a stamp differs from the count of samples by more than 100 ms; then what is left
    goes out as a short block, or is lost ("short") where it has too few mel frames. The next sound is a new run: no
    lead, a new resampler. A change of the source's rate or channels takes a new resampler and does not end the run.

    `once`: no moment is heard twice. Sound that lies more than 100 ms before the end of what was taken is lost ("late")
    up to that end. Otherwise such sound begins a new run at its own time.
    `cells`: blocks end at the borders of cells, to the nearest mel frame, so that all bodies but a run's last are whole
    frames. A gap inside one cell is then filled with silence, for a cell has room for one block.
    """

    def __init__(
        self, spec: MediaSpec, make_resampler: MakeResampler, *, once: bool = False, cells: Cells | None = None
    ) -> None:
        self._spec = spec
        self._make_resampler = make_resampler
        self._once = once
        self._cells = cells
        self._run: _Run | None = None
        self._runs = 0
        self._resampler: Resampling | None = None
        self._source = (0, 0)
        # The end of the sound that was taken: `_count` samples of the source after `_from_us`.
        self._from_us: int | None = None
        self._count = 0
        self._again_us: int | None = None
        self.floor_us: int | None = None  # a run begins no earlier
        self.lost: list[LostSound] = []

    @property
    def held(self) -> int:
        """Resampled samples that are in no block yet."""
        return 0 if self._run is None else self._run.open

    @property
    def end_us(self) -> int | None:
        """Media time after the newest sample that was taken; None before the first."""
        return None if self._from_us is None else self._from_us + self._count * SECOND_US // self._source[0]

    @property
    def open_cell(self) -> int | None:
        """The cell that the running sound fills now; None while no run is open."""
        return None if self._run is None else self._run.cell

    def feed(self, samples: Samples) -> list[SoundBlock]:
        """Take the next sound, `(channels, n)`; give the blocks it completes. What is lost goes to `lost`."""
        end_us = self.end_us
        if self._once and end_us is not None and samples.pts_us < end_us - TOLERANCE_US:
            self._again_us = end_us
        sound = self._behind(samples, self._again_us)
        if sound is None:
            return []
        blocks: list[SoundBlock] = []
        if self._run is None or end_us is None or abs(sound.pts_us - end_us) > TOLERANCE_US:
            sound = self._behind(sound, self.floor_us)
            if sound is None:
                return []
            if self._run is not None and end_us is not None and self._in_open_cell(sound.pts_us, end_us):
                blocks += self._push(_silence(sound, end_us))
            else:
                blocks += self.end()
                self._start(sound)
        return blocks + self._push(sound)

    def end(self) -> list[SoundBlock]:
        """End the run: its last blocks, the short one with what there is."""
        if self._run is None or self._resampler is None:
            return []
        self._run.take(self._resampler.flush())
        blocks = self._keep(self._run.rest())
        self._run = self._resampler = None
        return blocks

    def restart(self) -> None:
        """The clock was set again: the next sound begins a run, whatever its time. No run may be open."""
        self._from_us = self._again_us = self.floor_us = None

    def _start(self, sound: Samples) -> None:
        cell, first = (0, self._spec.block_samples) if self._cells is None else self._cells.place(sound.pts_us)
        self._run = _Run(self._spec, self._runs, sound.pts_us, cell, first)
        self._runs += 1
        self._from_us, self._count, self._source = sound.pts_us, 0, (0, 0)

    def _push(self, sound: Samples) -> list[SoundBlock]:
        assert self._run is not None
        channels, count = sound.samples.shape
        if self._source != (sound.rate, channels):
            if self._resampler is not None:
                self._run.take(self._resampler.flush())
            if self._count:
                self._from_us = self.end_us
            self._resampler = self._make_resampler(self._spec.audio_rate)
            self._source, self._count = (sound.rate, channels), 0
        assert self._resampler is not None
        self._count += count
        self._run.take(self._resampler.feed(sound))
        return self._keep(self._run.ready())

    def _in_open_cell(self, start_us: int, end_us: int) -> bool:
        if self._cells is None or start_us < end_us:
            return False
        return self._cells.place(start_us)[0] == self.open_cell

    def _behind(self, sound: Samples, border_us: int | None) -> Samples | None:
        """The part of `sound` at and after `border_us`; the part before it is lost as late."""
        if border_us is None or sound.pts_us >= border_us:
            return sound if sound.samples.shape[1] else None
        before, behind = split(sound, border_us)
        count = round(before.samples.shape[1] * self._spec.audio_rate / sound.rate)
        self.lost.append(LostSound(count, sound.pts_us, behind.pts_us, "late"))
        return behind if behind.samples.shape[1] else None

    def _keep(self, blocks: list[SoundBlock]) -> list[SoundBlock]:
        kept: list[SoundBlock] = []
        for block in blocks:
            audio = block.audio
            if audio.frames >= self._spec.min_block_frames:
                kept.append(block)
            else:
                count = (audio.stop_us - audio.start_us) * self._spec.audio_rate / SECOND_US
                self.lost.append(LostSound(round(count), audio.start_us, audio.stop_us, "short"))
        return kept


class _Run:
    """One run of resampled sound. Its first block has `first` samples, the others the full length."""

    def __init__(self, spec: MediaSpec, number: int, start_us: int, cell: int, first: int) -> None:
        self._spec = spec
        self._number = number
        self._start_us = start_us
        self._size = first
        self._at = 0  # where the open block begins, counted from the run's start
        self._base = 0  # what the buffer begins with
        self._buffer = np.zeros(0, np.float32)
        self.cell = cell

    @property
    def open(self) -> int:
        """Samples from the start of the open block on."""
        return self._base + len(self._buffer) - self._at

    def take(self, samples: np.ndarray) -> None:
        if len(samples):
            self._buffer = np.concatenate([self._buffer, samples])

    def ready(self) -> list[SoundBlock]:
        """The blocks whose look-ahead is there."""
        blocks: list[SoundBlock] = []
        while self.open >= self._size + self._spec.look_ahead_samples:
            blocks.append(self._cut())
        self._forget()
        return blocks

    def rest(self) -> list[SoundBlock]:
        """All that is left, without waiting for look-ahead."""
        blocks: list[SoundBlock] = []
        while self.open > 0:
            blocks.append(self._cut())
        return blocks

    def _cut(self) -> SoundBlock:
        spec = self._spec
        body = min(self._size, self.open)
        lead = min(spec.lead_samples, self._at)
        start = self._at - lead - self._base
        samples = self._buffer[start : start + lead + body + spec.look_ahead_samples].copy()
        audio = AudioSegment(
            0, 0, samples, lead, -(-body // spec.hop_samples), self._number, self._time(0), self._time(body)
        )
        block = SoundBlock(self.cell, audio)
        self._at += body
        self._size = spec.block_samples
        self.cell += 1
        return block

    def _time(self, offset: int) -> int:
        return self._start_us + (self._at + offset) * SECOND_US // self._spec.audio_rate

    def _forget(self) -> None:
        keep = max(0, self._at - self._spec.lead_samples)
        self._buffer, self._base = self._buffer[keep - self._base :], keep


def split(sound: Samples, time_us: int) -> tuple[Samples, Samples]:
    """The samples before `time_us` and those at or after it; either may be empty."""
    count = sound.samples.shape[1]
    first = min(max(0, -((sound.pts_us - time_us) * sound.rate // SECOND_US)), count)
    behind_us = sound.pts_us + first * SECOND_US // sound.rate
    before = Samples(sound.samples[:, :first], sound.rate, sound.pts_us)
    return before, Samples(sound.samples[:, first:], sound.rate, behind_us)


def _silence(sound: Samples, start_us: int) -> Samples:
    """Zeros from `start_us` to the start of `sound`, of its kind."""
    count = round((sound.pts_us - start_us) * sound.rate / SECOND_US)
    return Samples(np.zeros((sound.samples.shape[0], count), np.float32), sound.rate, start_us)
