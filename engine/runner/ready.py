"""Rows that were made elsewhere, put into a whole prompt where a mark stands for each of them. In: the prompt, the rows
as spans, and the family, whose rules say where they stand. Out: the prompt with them; what follows stands behind them,
as it would behind a medium.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from ...errors import InputError
from ...streams.event import Seen
from ..embeddings import Embeddings, EncodedPrompt, EncodedSpan
from ..family import Family
from ..positions import Block, Clock, Cursor
from ..span import Rows

_SEEN = Seen(1, "prompt", None, None)


class ReadyRows:
    """Puts rows into prompts of one family."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def put(self, prompt: EncodedPrompt, made: Sequence[tuple[EncodedSpan, bytes]], fps: float | None) -> EncodedPrompt:
        """The prompt with these rows at its `ready` places, each with its content. Its video comes at `fps`."""
        clock = self._family.clock(self._family.grid_seconds(fps))
        at = dict(zip(prompt.ready, made, strict=True))
        rows: list[Rows] = []
        embeds: list[Embeddings | None] = []
        place = shift = 0

        def keep(run: Rows, part: Embeddings | None) -> None:
            if len(run):
                rows.append(run)
                embeds.append(part)

        for run, part in zip(prompt.rows, prompt.embeds, strict=True):
            begin = 0
            if part is not None and any(place <= mark < place + len(run) for mark in prompt.ready):
                raise InputError("embedding: expected a model whose prompts are not one block of rows, got one of such")
            for mark in [mark - place for mark in sorted(prompt.ready) if place <= mark < place + len(run)]:
                keep(_cut(run, begin, mark, shift), part)
                encoded, content = at[place + mark]
                start = int(run.positions[:, mark].max()) + shift
                cursor = Cursor(start, start)
                keep(self._rows(encoded, content, cursor, clock), encoded.embeds)
                keep(*self._ending(encoded, cursor))
                shift = cursor.text_next - int(run.positions[:, mark].max()) - 1
                begin = mark + 1
            keep(_cut(run, begin, len(run), shift), part)
            place += len(run)
        return prompt._replace(rows=rows, embeds=embeds, shown=(), ready=())

    def _rows(self, encoded: EncodedSpan, content: bytes, cursor: Cursor, clock: Clock) -> Rows:
        """Rows with their places; the cursor moves behind them by the library's rule."""
        span, data = encoded.span, self._family.data
        if span.modality == "text":
            return Rows(span.ids, cursor.text(len(span.ids)), None, _SEEN, False, content)
        block = Block(span.modality, cursor.text_next, span.grid[1], span.grid[2], span.run)
        positions = block.extend(span.grid[0], span.audio_rows, clock)
        block.leave(cursor, data.library_rule)
        self._family.check_run(span.modality, len(span.ids))
        return Rows(span.ids, positions, None, _SEEN, self._family.atomic(span.modality), content)

    def _ending(self, encoded: EncodedSpan, cursor: Cursor) -> tuple[Rows, Embeddings | None]:
        """The rows that close a block of this kind, if the model has such."""
        kind = encoded.span.modality
        ids = self._family.data.ending_ids.get(kind, [])
        rows = Rows(
            np.asarray(ids, dtype=np.int64), cursor.text(len(ids)), None, _SEEN, False, f"the end of {kind}".encode()
        )
        return rows, Embeddings(self._family.endings[kind]) if ids else None


def _cut(run: Rows, start: int, stop: int, shift: int) -> Rows:
    return msgspec.structs.replace(run, ids=run.ids[start:stop], positions=run.positions[:, start:stop] + shift)
