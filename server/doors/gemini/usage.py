"""How many tokens a turn took in and gave out, by kind, and how many of them the KV cache held already.

In: the events of one stream. Out: the `usageMetadata` of a turn. One token is one row of the cache.
"""

from __future__ import annotations

from typing import Any

from ....streams.event import Appended, Event, Evicted, ReplyDone

_KINDS = {"image": "IMAGE", "video": "VIDEO", "audio": "AUDIO", "unit": "AUDIO"}


class UsageMetadata:
    """The rows of one stream. `prompt`: the kinds of the media in its prompt, in their order."""

    def __init__(self, prompt: list[str]) -> None:
        self._prompt = prompt
        self._runs: list[tuple[int, int, str]] = []  # of media: first row, rows, kind
        self._gone = 0  # rows that have left the window
        self._held = 0  # rows that the cache held when the reply before it had ended

    def note(self, event: Event) -> None:
        """Take an event of the stream."""
        match event:
            case Appended(modality="prompt"):
                kind = self._prompt.pop(0) if self._prompt else "image"
                self._runs.append((event.row, event.rows, _KINDS[kind]))
            case Appended() if event.modality in _KINDS:
                self._runs.append((event.row, event.rows, _KINDS[event.modality]))
            case Evicted():
                self._gone += event.rows - event.recalled
                self._runs = [run for run in self._runs if run[0] >= event.row + event.rows]

    def of(self, done: ReplyDone) -> dict[str, Any]:
        """The usage of a turn that ends here."""
        seen = done.rows - self._gone
        held = max(self._held, done.cached)
        cached = min(max(0, held - self._gone), seen)
        self._held = done.rows + done.tokens
        return {
            "promptTokenCount": seen,
            "cachedContentTokenCount": cached,
            "responseTokenCount": done.tokens,
            "totalTokenCount": seen + done.tokens,
            "promptTokensDetails": self._details(done.rows, seen),
            "cacheTokensDetails": self._details(held, cached),
            "responseTokensDetails": [{"modality": "TEXT", "tokenCount": done.tokens}],
        }

    def _details(self, row: int, count: int) -> list[dict[str, Any]]:
        """The rows before a row, by kind; `count` of them are still there."""
        rows: dict[str, int] = {}
        for first, many, kind in self._runs:
            rows[kind] = rows.get(kind, 0) + min(many, max(0, row - first))
        rows = {"TEXT": max(0, count - sum(rows.values())), **rows}
        return [{"modality": kind, "tokenCount": number} for kind, number in rows.items() if number]
