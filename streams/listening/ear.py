"""One stream's sound, listened to. Comes in: decoded sound in the order of media time; goes out: the sound of speech
with what came just before it, and where speech starts and stops. What is no speech is lost, and told.

A pure function of the sound and of `asked` for it: it does not depend on how the sound is cut.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ...codecs.frame import Samples
from ..audio import SECOND_US, TOLERANCE_US, LostSound, MakeResampler, Resampling
from ..event import SpeechStarted, SpeechStopped
from ..requests.turns import EAGERNESS, TurnDetection
from .detectors import RATE, WINDOW, Detector, Ends
from .rule import SpeechEdge, SpeechRule

_WINDOW_MS = WINDOW * 1000 / RATE
# Silence is told when speech ends it, or when there is so much of it.
_TELL_US = 10_000_000
# After pauses of so many windows it is asked whether somebody has finished: of a longer one the model does not know
# what to make. By the newest so many windows, and from which likelihood on they have.
_ASKED, _MOST_SAID, _FINISHED = (8, 24, 40), 250, 0.5

Heard = Samples | SpeechStarted | SpeechStopped


class Ear:
    """Listens to the sound of one stream as `turns` says.

    ends: hears whether somebody has finished (None: silence alone counts). rate: the model's, by which lost samples are
    counted. passes: all sound goes on, and speech is only told. turn: how many turns of the stream have begun.
    """

    def __init__(
        self,
        turns: TurnDetection,
        detector: Detector,
        ends: Ends | None,
        rate: int,
        make_resampler: MakeResampler,
        passes: bool,
        turn: int = 0,
    ) -> None:
        self.turns = turns
        self.turn = turn
        self.lost: list[LostSound] = []
        self._detector = detector
        self._ends = ends
        self._said: list[np.ndarray] = []  # the newest windows of the turn, or before it; with `ends` only
        self._rate = rate
        self._make_resampler = make_resampler
        self.passes = passes
        self._rule = SpeechRule()
        self._memory: np.ndarray | None = None  # the detector's
        self._line: _Line | None = None
        self._idle: int | None = 0  # windows in which nobody spoke; None: they were told
        self._lost_from_us: int | None = None  # where sound was lost that is not told yet
        self._lost_to_us = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Ear:
        """What hears keeps nothing between calls, so it is the same one for all copies."""
        memo |= {id(shared): shared for shared in (self._detector, self._ends)}
        twin = memo[id(self)] = object.__new__(Ear)
        twin.__dict__ |= copy.deepcopy(self.__dict__, memo)
        return twin

    def change(self, turns: TurnDetection, detector: Detector, ends: Ends | None) -> None:
        """Listen in another way from here on. Speech that has started goes on."""
        if detector.name != self._detector.name:
            self._memory = None
        self.turns, self._detector, self._ends = turns, detector, ends

    def hear(self, seq: int, sound: Samples, asked: bool) -> list[Heard]:
        """Take the next sound, of input `seq`. `asked`: a question waits for its reply, or a reply speaks."""
        heard: list[Heard] = [sound] if self.passes and self.turns.keeps else []
        if self._line is None or not self._line.goes_on(sound):
            heard += self._break_off(seq, sound)
            self._line = _Line(sound, self._make_resampler(RATE))
        line = self._line
        line.take(sound)
        while (window := line.window()) is not None:
            heard += self._step(seq, line, window, asked)
        if self._rule.speaking:
            heard += self._give(line, line.heard)
        else:
            self._lose(line, line.heard - self._back(line))
        return heard

    def end(self, seq: int, reason: str) -> list[Heard]:
        """No more sound will come: speech stops here."""
        heard: list[Heard] = []
        if self._line is not None:
            heard = self._close(seq, self._line, reason)
        self._tell_lost()
        self._line = self._memory = None
        return heard

    def _step(self, seq: int, line: _Line, window: np.ndarray, asked: bool) -> list[Heard]:
        turns = self.turns
        likely, self._memory = self._detector.hear(window, self._memory)
        threshold = self._detector.threshold if turns.threshold is None else turns.threshold
        starts = _windows(max(turns.speech_ms, turns.interrupt_ms) if asked else turns.speech_ms)
        longest_ms = turns.silence_ms if turns.semantic is None else EAGERNESS[turns.semantic]
        edge = self._rule.step(likely, threshold, starts, _windows(longest_ms))
        finished = self._has_finished(window)
        if edge is SpeechEdge.STARTS:
            return self._start(seq, line)
        if edge is SpeechEdge.STOPS or finished:
            reason = "finished" if finished else "silence"
            return [*self._give(line, line.heard), self._stop(seq, line.us(line.heard), reason)]
        return self._waited(seq, line, asked)

    def _has_finished(self, window: np.ndarray) -> bool:
        """Whether somebody pauses here and has finished."""
        if self._ends is None:
            return False
        rule = self._rule
        most = _MOST_SAID if rule.back else _windows(self.turns.prefix_ms)
        self._said = [*self._said[-most + 1 :], window] if most > 1 else [window]
        asks = rule.speaking and rule.quiet in _ASKED
        return asks and self._ends.finished(np.concatenate(self._said)) >= _FINISHED

    def _start(self, seq: int, line: _Line) -> list[Heard]:
        if self._ends is not None:
            self._ends.load()
        self._lose(line, line.heard - self._back(line))
        self._tell_lost()
        self.turn += 1
        started = SpeechStarted(self.turn, seq, line.sent_us, self._detector.name)
        return [started, *self._give(line, line.heard)]

    def _stop(self, seq: int, at_us: int, reason: str) -> SpeechStopped:
        self._rule.clear()
        self._idle, self._said = 0, []
        return SpeechStopped(self.turn, seq, at_us, reason)

    def _waited(self, seq: int, line: _Line, asked: bool) -> list[Heard]:
        """Nobody may have spoken for long."""
        if self._idle is None or self.turns.idle_ms is None or self._rule.back or asked:
            self._idle = None if self._idle is None else 0
            return []
        self._idle += 1
        if self._idle < _windows(self.turns.idle_ms):
            return []
        self._lose(line, line.heard - self.turns.idle_sound_ms * RATE // 1000)
        self._tell_lost()
        self.turn += 1
        heard = [*self._give(line, line.heard), self._stop(seq, line.us(line.heard), "idle")]
        self._idle = None
        return heard

    def _back(self, line: _Line) -> int:
        """How much of what was heard may belong to speech."""
        return self._rule.back * WINDOW + self.turns.prefix_ms * RATE // 1000

    def _break_off(self, seq: int, sound: Samples) -> list[Heard]:
        """Sound begins elsewhere: speech stops, unless what is missing is shorter than a pause."""
        if self._line is None:
            return []
        line, missing_us = self._line, sound.pts_us - self._line.end_us
        self._memory = None
        if self._rule.speaking and -TOLERANCE_US <= missing_us < self.turns.silence_ms * 1000:
            return self._give(line, None)
        heard = self._close(seq, line, "gap")
        self._tell_lost()
        return heard

    def _close(self, seq: int, line: _Line, reason: str) -> list[Heard]:
        if self._rule.speaking:
            return [*self._give(line, None), self._stop(seq, line.end_us, reason)]
        self._rule.clear()
        self._lose(line, None)
        return []

    def _give(self, line: _Line, upto: int | None) -> list[Heard]:
        """The sound up to sample `upto` of what was heard; None: all there is."""
        given = line.cut(upto)
        return [] if self.passes or given is None or not self.turns.keeps else [given]

    def _lose(self, line: _Line, upto: int | None) -> None:
        """The same, but it is lost."""
        lost = line.cut(upto)
        if lost is None or self.passes:
            return
        if self._lost_from_us is None:
            self._lost_from_us = lost.pts_us
        self._lost_to_us = lost.pts_us + lost.samples.shape[1] * SECOND_US // lost.rate
        while self._lost_to_us - self._lost_from_us >= _TELL_US:
            self._tell(self._lost_from_us, self._lost_from_us + _TELL_US)
            self._lost_from_us += _TELL_US

    def _tell_lost(self) -> None:
        if self._lost_from_us is not None and self._lost_to_us > self._lost_from_us:
            self._tell(self._lost_from_us, self._lost_to_us)
        self._lost_from_us = None

    def _tell(self, start_us: int, stop_us: int) -> None:
        self.lost.append(LostSound((stop_us - start_us) * self._rate // SECOND_US, start_us, stop_us, "silence"))


class _Line:
    """Sound without a break, at its own rate: what is not given or lost of it, and the same at `RATE` for the detector.

    Samples are numbered from the line's first: `sent` of the source are given or lost, and `heard` at `RATE` have been
    in windows.
    """

    def __init__(self, sound: Samples, resampler: Resampling) -> None:
        self.from_us, self.rate, self.resampler = sound.pts_us, sound.rate, resampler
        self.source = np.zeros((sound.samples.shape[0], 0), np.float32)
        self.rest = np.zeros(0, np.float32)
        self.sent = self.heard = 0

    @property
    def end_us(self) -> int:
        return self.from_us + (self.sent + self.source.shape[1]) * SECOND_US // self.rate

    @property
    def sent_us(self) -> int:
        return self.from_us + self.sent * SECOND_US // self.rate

    def us(self, heard: int) -> int:
        """The media time of sample `heard` at `RATE`."""
        return self.from_us + heard * SECOND_US // RATE

    def goes_on(self, sound: Samples) -> bool:
        """Whether this sound continues the line."""
        same = (sound.rate, sound.samples.shape[0]) == (self.rate, self.source.shape[0])
        return same and abs(sound.pts_us - self.end_us) <= TOLERANCE_US

    def take(self, sound: Samples) -> None:
        self.source = np.concatenate((self.source, sound.samples), 1)
        self.rest = np.concatenate((self.rest, self.resampler.feed(sound)))

    def window(self) -> np.ndarray | None:
        """The next window; None where it is not complete."""
        if len(self.rest) < WINDOW:
            return None
        window, self.rest = self.rest[:WINDOW], self.rest[WINDOW:]
        self.heard += WINDOW
        return window

    def cut(self, upto: int | None) -> Samples | None:
        """What is left before sample `upto` at `RATE`; None where that is nothing."""
        whole = self.sent + self.source.shape[1]
        stop = whole if upto is None else min(-(-upto * self.rate // RATE), whole)
        if stop <= self.sent:
            return None
        given = Samples(self.source[:, : stop - self.sent], self.rate, self.sent_us)
        self.source, self.sent = self.source[:, stop - self.sent :], stop
        return given


def _windows(ms: int) -> int:
    """So many windows are at least as long."""
    return max(1, int(-(-ms // _WINDOW_MS)))
