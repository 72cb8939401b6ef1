"""How many tokens a response took in and gave out, by kind, and how many of them the KV cache held already.

In: the events of one stream. Out: the `usage` of a response. One token is one row of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ....streams.event import Appended, Event, Evicted, ReplyDone

_KINDS = {"image": "image", "video": "image", "audio": "audio", "unit": "audio"}


class _MediaRun(NamedTuple):
    """Rows of media in the cache."""

    row: int
    rows: int
    kind: str  # "image" or "audio"


class ResponseUsage:
    """The rows of one stream. `prompt`: the kinds of the media in its prompt, in their order."""

    def __init__(self, prompt: Sequence[str] = ()) -> None:
        self._prompt = list(prompt)
        self._runs: list[_MediaRun] = []
        self._gone = 0  # rows that have left the window
        self._held = 0  # rows that the cache held when the reply before it had ended

    def note(self, event: Event) -> None:
        """Take an event of the stream."""
        match event:
            case Appended(modality="prompt"):
                kind = self._prompt.pop(0) if self._prompt else "image"
                self._runs.append(_MediaRun(event.row, event.rows, kind))
            case Appended():
                self._runs.append(_MediaRun(event.row, event.rows, _KINDS[event.modality]))
            case Evicted():
                self._gone += event.rows - event.recalled
                self._runs = [run for run in self._runs if run.row >= event.row + event.rows]

    def of(self, done: ReplyDone) -> dict[str, Any]:
        """The usage of a reply that ends here. Of what it took in, cached is what earlier replies took in or gave out,
        and for the first reply what the prefix cache had."""
        seen, cached = done.rows - self._gone, max(0, max(self._held, done.cached) - self._gone)
        whole = {kind: self._rows(kind, done.rows) for kind in ("image", "audio")}
        held = {kind: self._rows(kind, max(self._held, done.cached)) for kind in whole}
        self._held = done.rows + done.tokens
        return {
            "total_tokens": seen + done.tokens,
            "input_tokens": seen,
            "output_tokens": done.tokens,
            "input_token_details": {
                **_by_kind(seen, whole),
                "cached_tokens": min(cached, seen),
                "cached_tokens_details": _by_kind(min(cached, seen), held),
            },
            "output_token_details": {"text_tokens": done.tokens, "audio_tokens": 0},
        }

    def _rows(self, kind: str, row: int) -> int:
        """Rows of media of a kind before a row."""
        return sum(min(run.rows, max(0, row - run.row)) for run in self._runs if run.kind == kind)


def _by_kind(rows: int, media: dict[str, int]) -> dict[str, int]:
    names = {f"{kind}_tokens": count for kind, count in media.items()}
    return {"text_tokens": max(0, rows - sum(media.values())), **names}
