"""How much of its past a stream keeps. Plain data, checked where it enters."""

from __future__ import annotations

import msgspec

from ...errors import InputError

MOST_SECONDS = 86_400.0


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream keeps if it may not keep all: its oldest rows leave the KV cache, and the stream goes on.

    Rows leave in portions of an eighth, media as whole pieces. Each time an `Evicted` event says which media times
    went. What is pinned never goes. A reply that runs and its question go last, and the words of the question stay.
    Words that leave stay on as text memory, where the oldest go first (docs/windows.md).

    rows: the most rows that the stream keeps, at least 64. `None`: what it reserves, else for the policy "latest" what
        the checkpoint says that it was trained on (`window_rows` in its config.json, Brook: 320) or a quarter of the
        cache, and for "block" all of it but for five pages.
    video_seconds: how many seconds of video it keeps, above 0 and at most 86,400. `None`: as many as `rows` allows.
    audio_seconds: the same for sound. The window is one piece of time: it reaches as far back as the longer of both.
    text_rows: the most rows of its text memory. `None`: an eighth of `rows`, at most 1,024.
    pinned_turns: how many of its first turns are pinned, beside the system prompt.
    """

    rows: int | None = None
    video_seconds: float | None = None
    audio_seconds: float | None = None
    text_rows: int | None = None
    pinned_turns: int = 0

    def check(self) -> None:
        """Raise InputError where a value is not one of those above; says which are."""
        for name, value in (("video_seconds", self.video_seconds), ("audio_seconds", self.audio_seconds)):
            if value is not None and not 0 < value <= MOST_SECONDS:
                raise InputError(f"window.{name}: expected a number above 0, at most {MOST_SECONDS:g}, got {value}")
        for name, least, number in (
            ("rows", 64, self.rows),
            ("text_rows", 0, self.text_rows),
            ("pinned_turns", 0, self.pinned_turns),
        ):
            if number is not None and number < least:
                raise InputError(f"window.{name}: expected at least {least}, got {number}")
