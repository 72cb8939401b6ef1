"""What streams have cost: rows, tokens, seconds of steps and of towers, and what was dropped. Times come from the
caller, in seconds.

What it keeps of a stream does not grow: sums, by modality and by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ...streams.event import Dropped, Event, Token, Usage
from ..conversation.state import StreamState
from ..plan import Plan


class _Used:
    """The sums of one stream, or of all. `joins`: it has fed nothing yet, and may join pages that others hold."""

    def __init__(self, joins: bool = False) -> None:
        self.joins = joins
        self.text = 0
        self.media: Counter[str] = Counter()
        self.refed = self.cached = self.tokens = 0
        self.encode_seconds = self.step_seconds = 0.0
        self.dropped: Counter[tuple[str, str]] = Counter()  # (modality, reason)

    def usage(self) -> Usage:
        """As they are now."""
        dropped: dict[str, dict[str, int]] = {}
        for (modality, reason), count in self.dropped.items():
            dropped.setdefault(modality, {})[reason] = count
        rows = {"text": self.text, **self.media}
        return Usage(rows, self.refed, self.cached, self.tokens, self.encode_seconds, self.step_seconds, dropped)


class Usages:
    """Of all streams. A stream is known from `begin` to `end`; what comes for it later counts for all alone."""

    def __init__(self) -> None:
        self._all = _Used()
        self._streams: dict[int, _Used] = {}

    def begin(self, stream: int, opened: bool) -> None:
        """A stream begins, with an account that is empty. `opened`: it has no rows, as a fork or a restored one has."""
        self._streams[stream] = _Used(opened)

    def end(self, stream: int) -> Usage:
        """A stream has ended."""
        return self._streams.pop(stream, _Used()).usage()

    def stepped(self, plan: Plan, seconds: float, streams: Mapping[int, StreamState]) -> None:
        """A step has been carried out and is not committed yet. Each stream bears a part of its time by its rows, with
        those of guesses."""
        counts = [sum(len(run.ids) for run in feed.rows) for feed in plan.feeds]
        guesses = [0 if feed.guesses is None else len(feed.guesses.draws) for feed in plan.feeds]
        total = sum(counts) + sum(guesses)
        if not total:
            return
        everyone, each = self._all, seconds / total
        everyone.step_seconds += seconds
        for feed, count, guessed in zip(plan.feeds, counts, guesses, strict=True):
            state, used = streams[feed.stream], self._streams[feed.stream]
            first = state.fed - count
            used.step_seconds += each * (count + guessed)
            if used.joins:
                used.joins, used.cached = False, first
                everyone.cached += first
            if count == 1 and feed.rows[0].seen is None and first >= state.again and first >= state.cold:
                used.text += 1  # a token: most feeds are
                everyone.text += 1
                continue
            again = min(count, max(0, max(state.again, state.cold) - first))
            used.refed += again
            everyone.refed += again
            for run in feed.rows:
                new = len(run) - min(again, len(run))
                again -= len(run) - new
                if run.seen is None:
                    used.text += new
                    everyone.text += new
                elif new:
                    used.media[run.seen.modality] += new
                    everyone.media[run.seen.modality] += new

    def guessed(self, stayed: Iterable[tuple[int, int]]) -> None:
        """Of the guesses of a step that is committed the rows of so many have stayed, by stream."""
        for stream, rows in stayed:
            self._all.text += rows
            self._streams[stream].text += rows

    def encoded(self, stream: int, seconds: float) -> None:
        """The towers have worked so long for a stream."""
        self._all.encode_seconds += seconds
        if stream in self._streams:
            self._streams[stream].encode_seconds += seconds

    def note(self, stream: int, event: Event) -> None:
        """The client of a stream is told of this."""
        if isinstance(event, Token | Dropped):
            known = self._streams.get(stream)
            for used in (self._all,) if known is None else (self._all, known):
                if isinstance(event, Token):
                    used.tokens += 1
                else:
                    used.dropped[event.modality, event.reason] += event.count

    def statistics(self) -> dict[str, Any]:
        """Of all streams that there have been."""
        return {"usage": msgspec.structs.asdict(self._all.usage())}
