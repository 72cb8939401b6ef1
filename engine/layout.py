"""From events to rows: wrappers, open blocks and positions of one stream, in the order in which its KV will hold them.

What comes in: text, spans, questions, ends of replies, in order. What goes out: `Rows`. It knows the stream's format
and the family's ids, not pages, steps or sampling. Blocks are a pure function of that order: anything else in between
closes one.
"""

from __future__ import annotations

import numpy as np

from ..streams.format import Format, State, Step
from .family import Family
from .positions import Block, Cursor
from .span import Prompt, Rows, Span


class Layout:
    """The conversation state, the cursor and the open block of one stream."""

    def __init__(self, family: Family, format: Format, rule: str, grid_seconds: float, system: str | None) -> None:
        self.family = family
        self.format = format
        self.rule = family.data.library_rule if rule == "transformers" else rule
        self.clock = family.clock(grid_seconds)
        inside = system is not None and family.data.system_in_user
        self.state = State.USER if inside else State.CLOSED
        self.cursor = Cursor()
        self.block: Block | None = None
        self._opening = family.system_ids(system)  # fed before the first event, then empty

    def copy(self) -> Layout:
        twin = object.__new__(Layout)
        twin.__dict__.update(self.__dict__)
        twin.cursor = self.cursor.copy()
        twin.block = None if self.block is None else self.block.copy()
        return twin

    def step(self, event: str) -> Step | None:
        """What `event` would do now; None where it has to wait."""
        return self.format.step(self.state, event)

    def prompt(self, prompt: Prompt) -> list[Rows]:
        """A whole prompt, laid out elsewhere; a reply follows."""
        self._opening = []
        self.state = State.ASSISTANT
        behind = int(prompt.rows[-1].positions.max()) + 1  # where the library's `generate` goes on
        self.cursor = Cursor(behind, behind)
        return prompt.rows

    def text(self, text: str) -> list[Rows]:
        return self._turn("text", self._words(self.family.text_ids(text)) if text else [])

    def ask(self, question: str) -> list[Rows]:
        return self._turn("ask", self._words(self.family.text_ids(question)) if question else [])

    def end(self) -> list[Rows]:
        """A reply has ended: the template's closing ids."""
        return self._turn("end", [])

    def media(self, span: Span) -> list[Rows]:
        """A span, inside the open block where it continues one, else in a block of its own.

        While an assistant turn is open each span is a block of its own, since tokens are sampled behind it.
        """
        step = self.step("media")
        assert step is not None
        rows = self._wrap(step.before)
        if not self._continues(span):
            rows += self._close() + self._open(span)
        if span.before:
            rows.append(self._text(np.asarray(span.before, dtype=np.int64)))
            self.block = self._block(span)
        rows.append(self._inside(span))
        if span.after:
            rows.append(self._text(np.asarray(span.after, dtype=np.int64)))
        if self.state is State.ASSISTANT:
            rows += self._close()
        self.state = step.state
        return rows

    def token(self, id: int) -> Rows:
        """One sampled token, about to be fed."""
        return Rows(np.array([id], dtype=np.int64), self.cursor.token())

    def back_to(self, cursor: Cursor) -> None:
        """Forget what was laid behind a reply token; `cursor` stands behind it. The assistant turn is open again."""
        self.cursor = cursor
        self.block = None
        self.state = State.ASSISTANT

    def _turn(self, event: str, words: list[np.ndarray]) -> list[Rows]:
        step = self.step(event)
        assert step is not None
        rows = self._wrap(step.before)
        if words or step.after:
            rows += self._close()
        rows += [self._text(ids) for ids in words]
        rows += self._wrap(step.after)
        self.state = step.state
        return rows

    def _words(self, ids: list[int]) -> list[np.ndarray]:
        return [np.asarray(ids, dtype=np.int64)] if ids else []

    def _text(self, ids: np.ndarray) -> Rows:
        return Rows(ids, self.cursor.text(len(ids)))

    def _wrap(self, names: tuple[str, ...]) -> list[Rows]:
        ids = list(self._opening)
        for name in names:
            ids += self.family.turn_ids[name]
        self._opening = []
        if not ids:
            return []
        closed = self._close()
        return [*closed, self._text(np.asarray(ids, dtype=np.int64))]

    def _continues(self, span: Span) -> bool:
        block = self.block
        if block is None or block.kind != span.modality or span.modality == "image":
            return False
        return (block.height, block.width) == span.grid[1:] and block.run == span.run

    def _open(self, span: Span) -> list[Rows]:
        ids = np.asarray(self.family.block_ids[span.modality][0], dtype=np.int64)
        rows = [Rows(ids, self._wrapper(span.modality, len(ids)))] if len(ids) else []
        self.block = self._block(span)
        return rows

    def _block(self, span: Span) -> Block:
        """A block that counts from here."""
        return Block(span.modality, self.cursor.text_next, span.grid[1], span.grid[2], span.run)

    def _inside(self, span: Span) -> Rows:
        assert self.block is not None
        positions = self.block.extend(span.grid[0], span.audio_rows, self.clock)
        # The cursor follows at once: whatever comes next, the block's closing or the check of limits, goes on from it.
        self.block.leave(self.cursor, self.rule)
        return Rows(span.ids, positions, span.embeds, span.seen, self.family.atomic(span.modality))

    def _close(self) -> list[Rows]:
        if self.block is None:
            return []
        kind, self.block = self.block.kind, None
        ids = np.asarray(self.family.block_ids[kind][1], dtype=np.int64)
        rows, last = [], self.family.endings.get(kind)
        if last is not None:
            rows.append(Rows(ids[: len(last)], self.cursor.text(len(last)), last))
            ids = ids[len(last) :]
        return [*rows, Rows(ids, self._wrapper(kind, len(ids)))] if len(ids) else rows

    def _wrapper(self, kind: str, count: int) -> np.ndarray:
        """The two wrappers of a unit block may share a position; others count on."""
        share = kind == "unit" and self.family.data.unit_marks_share
        return self.cursor.together(count) if share else self.cursor.text(count)
