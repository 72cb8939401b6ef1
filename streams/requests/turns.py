"""When a stream listens for speech, and what it does then. Plain data, checked where it enters."""

from __future__ import annotations

import msgspec

from ...errors import InputError

DETECTORS = ("auto", "silero", "energy")
# How long a pause may be at the most, in milliseconds, if somebody has not finished.
EAGERNESS = {"low": 8_000, "medium": 4_000, "high": 2_000, "auto": 4_000}
MOST_MS = 60_000
_LEAST_SILENCE_MS = 100


class TurnDetection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stream hears when somebody begins and stops to speak, and can reply and fall silent by itself.

    Speech goes into the cache as it comes, with what came just before it. Sound without speech does not: it comes as
    `Dropped` events, "silence". In `live`, `per-frame` and `units` the model hears everything and decides by itself
    when it speaks, so there the events alone come, and `respond` and `interrupt` have to be False (docs/turns.md).

    detector: "silero" (the package silero-vad), "energy" (level and spectrum, with nothing to install), or "auto":
        silero if it is installed, else energy. `SpeechStarted` says which one it was.
    threshold: from which likelihood on, 0.05 to 0.95, sound is speech. `None`: as the detector has it.
    prefix_ms: so many milliseconds before the speech go in with it, 0 to 60,000.
    silence_ms: speech has stopped after so many milliseconds without any, 100 to 60,000. They go in with it.
    semantic: a small model hears whether somebody has finished or only pauses, instead of `silence_ms` (the extra
        `turn`, docs/turns.md). It says how long a pause may be at the most: "low" 8 s, "medium" 4 s, "high" 2 s, "auto"
        4 s. `None`: silence alone counts.
    speech_ms: shorter sounds are no speech, 32 to 60,000: clicks do not count.
    interrupt_ms: the same while a question waits or a reply speaks, so that "hmm" does not count, 32 to 60,000.
    respond: ask for a reply when speech has stopped. Media up to there stands before the reply.
    interrupt: speech that starts ends the running reply at the last token that its client has taken. A client that
        knows what was played sets this to False and calls `interrupt(at)` by itself.
    idle_ms: a turn also ends after so many milliseconds of sound in which nobody spoke, 100 to 3,600,000, while no
        question waits and no reply speaks: the newest `prefix_ms` of it go in (at least 100). Once, until somebody
        speaks. With `respond` it is asked as any other. `None`: never.
    keeps: speech goes into the cache. False: no sound does, and the events alone come; then `respond` and `interrupt`
        have to be False.
    """

    detector: str = "auto"
    threshold: float | None = None
    prefix_ms: int = 300
    silence_ms: int = 500
    semantic: str | None = None
    speech_ms: int = 160
    interrupt_ms: int = 500
    respond: bool = True
    interrupt: bool = True
    idle_ms: int | None = None
    keeps: bool = True

    def check(self) -> None:
        """Raise InputError where a value is not one of those above; says which are."""
        if self.detector not in DETECTORS:
            raise InputError(f"turn_detection.detector: expected one of {', '.join(DETECTORS)}, got {self.detector!r}")
        if self.semantic not in (None, *EAGERNESS):
            raise InputError(
                f"turn_detection.semantic: expected one of {', '.join(EAGERNESS)} or None, got {self.semantic!r}"
            )
        if self.threshold is not None and not 0.05 <= self.threshold <= 0.95:
            raise InputError(f"turn_detection.threshold: expected a number in [0.05, 0.95], got {self.threshold}")
        for name, least, most, number in (
            ("prefix_ms", 0, MOST_MS, self.prefix_ms),
            ("silence_ms", _LEAST_SILENCE_MS, MOST_MS, self.silence_ms),
            ("speech_ms", 32, MOST_MS, self.speech_ms),
            ("interrupt_ms", 32, MOST_MS, self.interrupt_ms),
            ("idle_ms", _LEAST_SILENCE_MS, 3_600_000, self.idle_ms),
        ):
            if number is not None and not least <= number <= most:
                raise InputError(f"turn_detection.{name}: expected {least} to {most}, got {number}")

        if self.acts and not self.keeps:
            raise InputError("turn_detection.keeps: expected True beside respond or interrupt, got False")

    @property
    def idle_sound_ms(self) -> int:
        """How much sound goes in where nobody has spoken for `idle_ms`."""
        return max(self.prefix_ms, _LEAST_SILENCE_MS)

    @property
    def acts(self) -> bool:
        """Whether the stream asks or falls silent by itself."""
        return self.respond or self.interrupt
