"""From events to rows: wrappers, open blocks and positions of one stream, in the order in which its KV will hold them.

What comes in: text, spans, questions, ends of replies, in order. What goes out: `Rows`. It knows the stream's format
and the family's text, not pages, steps or sampling. Blocks are a pure function of that order: anything else in between
closes one.

Text that stands together is tokenised together: the template's and the user's words, up to a row that is no text or to
a reply. It is laid as it comes; where more text changes the last ids that were laid, these are taken back.
"""

from __future__ import annotations

import os.path

import msgspec
import numpy as np

from ...errors import InputError
from ...streams.format import Format, State, Transition
from ..family import Family
from ..positions import Block, Cursor
from ..span import Look, Prompt, Rows, Span
from ..words.spelling import Unspelled
from ..words.template import EDGE, TEXT

# The run of a block that no media continues.
_SEVERED = -1
# Text of more characters is cut where that changes nothing, so many before its end: it is tokenised at each input.
_LONG, _KEPT = 16_384, 4_096


class Layout:
    """The conversation state, the cursor, the open block and the open text of one stream. `trusted`: words may have
    control tokens."""

    def __init__(
        self,
        family: Family,
        format: Format,
        rule: str,
        grid_seconds: float,
        system: str | None,
        trusted: bool = False,
    ) -> None:
        self.family = family
        self.format = format
        self.rule = family.data.library_rule if rule == "transformers" else rule
        self.clock = family.clock(grid_seconds)
        self.trusted = trusted
        self._inside = system is not None and family.turns.system_in_user  # the system prompt has opened a turn
        self.state = State.USER if self._inside else State.CLOSED
        self.cursor = Cursor()
        self.block: Block | None = None
        # Dropped media outside a block of its kind, by that: from which position on, temporal patches, rows.
        self._passing: dict[str, tuple[int, int, int]] = {}
        self.shown: frozenset[str] = frozenset()  # the kinds of media that it has had, of those that are exclusive
        self.looks: tuple[Look, ...] = ()  # what words see of the prompt's media, where they read it by cross-attention
        self.taken_back = 0  # rows that were laid before the last event and are not part of the stream any more
        self._rows: list[Rows] = []  # of the event that is laid now
        self._last = EDGE  # the kind of the newest item in the open user turn
        self._first = True  # nothing but text has been laid
        self._said = family.opening(system, trusted)  # the template's part of the open text
        self._words: str | None = None  # the user's words after it, not yet covered
        self._ids: list[int] = []  # what is laid of it
        self._begin = Cursor()  # where it begins
        # Ids of long texts, by text and whether it stands after something; None: all ids are found at once.
        self.ready: dict[tuple[str, bool], list[int]] | None = None

    def copy(self) -> Layout:
        twin = object.__new__(Layout)
        twin.__dict__.update(self.__dict__)
        twin.cursor = self.cursor.copy()
        twin.block = None if self.block is None else self.block.copy()
        return twin

    def step(self, event: str) -> Transition | None:
        """What `event` would do now; None where it has to wait."""
        return self.format.step(self.state, event)

    def prompt(self, prompt: Prompt) -> list[Rows]:
        """A whole prompt, laid out elsewhere; a reply follows."""
        self.taken_back = 0
        self.state, self.looks = State.ASSISTANT, prompt.looks
        behind = int(prompt.rows[-1].positions.max()) + 1  # where the library's `generate` goes on
        self.cursor = Cursor(behind, behind)
        self._seal()
        runs = [run.ids for run in prompt.rows if run.seen is not None]
        alone = self.family.data.exclusive
        self.shown |= {kind for kind, id in alone.items() if any((ids == id).any() for ids in runs)}
        return prompt.rows

    def text(self, text: str) -> list[Rows]:
        return self._turn("text", text)

    def ask(self, question: str) -> list[Rows]:
        return self._turn("ask", question)

    def end(self) -> list[Rows]:
        """A reply has ended: the template's closing ids."""
        return self._turn("end", "")

    def media(self, span: Span) -> list[Rows]:
        """A span, inside the open block where it continues one, else in a block of its own.

        While an assistant turn is open each span is a block of its own, since tokens are sampled after it. InputError
        for a kind that is exclusive, where the stream has had another one.
        """
        self._show(span.modality)
        step = self._begin_event("media")
        if not self._continues(span):
            self._close()
            if step.state is State.USER:
                self._item("video" if span.modality == "unit" else span.modality)
            self._open(span)
        if span.before:
            self._lay(msgspec.structs.replace(self._plain(span.before), mark="before"))
        if span.before or span.places is not None:
            self.block = self._block(span)
        self._lay(self._in_block(span))
        if span.after:
            self._lay(msgspec.structs.replace(self._plain(span.after), mark="after"))
        if span.after or span.places is not None:
            self.block = self._block(span)
        if step.state is State.ASSISTANT:
            self._close()
        return self._end_event(step)

    def passes(self, span: Span) -> None:
        """A piece of media that was dropped, for which `span` stands: its time passes.

        What follows in the open block of its kind, and behind that, stands where it would if the piece were there.
        Where no block of its kind is open, the next block or words stand behind it; pieces of two kinds pass side by
        side. Nothing passes where positions say nothing of time: if it is told in words, and while an assistant turn is
        open, in which each piece is a block of its own.
        """
        by_rule = span.behind and self.rule != "max"
        patches, rows = span.grid[0], span.behind if by_rule else span.audio_rows
        if not (patches or rows) or self._first or self.state is State.ASSISTANT:
            return
        if self.block is not None and self.block.kind == span.modality:
            self.block.extend(patches, rows, self.clock)
            self.block.leave(self.cursor, self.rule)
            return
        start, most, many = self._passing.get(span.modality, (self.cursor.text_next, 0, 0))
        self._passing = {**self._passing, span.modality: (start, most + patches, many + rows)}

    def token(self, id: int) -> Rows:
        """One sampled token, about to be fed."""
        return Rows(np.array([id], dtype=np.int64), self.cursor.token())

    @property
    def replying(self) -> bool:
        """An assistant turn is open."""
        return self.state is State.ASSISTANT

    @property
    def open_rows(self) -> int:
        """So many of the newest rows may be taken back."""
        return len(self._ids)

    def sever(self) -> None:
        """Rows have left the window: media that comes now opens a block of its own."""
        if self.block is not None:
            self.block = msgspec.structs.replace(self.block, run=_SEVERED)

    def back_to(self, cursor: Cursor) -> None:
        """Forget what was laid after a reply token; `cursor` stands after it. The assistant turn is open again."""
        self.cursor = cursor
        self.block = None
        self.state = State.ASSISTANT
        self._seal()

    def _turn(self, event: str, words: str) -> list[Rows]:
        step = self._begin_event(event)
        if words:
            self._close()
            self._item(TEXT)
            self._words = (self._words or "") + words
        for name in step.after:
            self._wrap(name)
        return self._end_event(step)

    def _begin_event(self, event: str) -> Transition:
        step = self.step(event)
        assert step is not None
        self.taken_back, self._rows = 0, []
        for name in step.before:
            self._wrap(name)
        return step

    def _end_event(self, step: Transition) -> list[Rows]:
        self._flush()
        self.state = step.state
        if self.state is State.ASSISTANT:
            self._seal()
        rows, self._rows = self._rows, []
        return rows

    def _wrap(self, name: str) -> None:
        """One of the template's wrappers. What opens a turn hangs on its first item, and comes with that."""
        self._close()
        if name == "user_start":
            self._last = EDGE
        elif name == "user_end":
            self._item(EDGE)
        else:
            self._say(self.family.turns.wrappers[name])

    def _item(self, kind: str) -> None:
        """What stands before an item of this kind in the open user turn. The texts of a turn are one item where the
        template takes its content as one."""
        turns = self.family.turns
        if kind == self._last == TEXT and not turns.parts:
            return
        own = turns.between[self._last, kind]
        if self._inside:
            own, self._inside = own.removeprefix(turns.wrappers["user_start"]), False
        self._last = kind
        self._say(own)

    def _say(self, own: str) -> None:
        """The template's own text goes after the open text."""
        self._said, self._words = self._open_text() + own, None

    def _open_text(self) -> str:
        return self._said + ("" if self._words is None else self.family.words(self._words, trusted=self.trusted))

    def _flush(self) -> None:
        """Lay the open text. What was laid of it with other ids is taken back."""
        text = self._open_text()
        ids = self._spelled(text, self._first)
        if ids == self._ids:
            return
        if not self._ids:
            self._begin = self.cursor.copy()
        same = len(os.path.commonprefix([ids, self._ids]))
        self.taken_back = len(self._ids) - same
        self.cursor = self._begin.copy()
        self.cursor.text(same)
        self._rows.append(self._plain(ids[same:]))
        self._ids = ids
        if len(text) > _LONG:
            self._shorten(text)

    def _spelled(self, text: str, first: bool) -> list[int]:
        behind = not first
        if self.ready is None or len(text) <= _LONG:
            ids = self.family.spelling.ids(text, behind)
        elif (text, behind) in self.ready:
            ids = self.ready[text, behind]
        else:
            raise Unspelled(text, behind)
        return [*self.family.data.start_ids, *ids] if first else ids

    def _shorten(self, text: str) -> None:
        """The open text begins later, at a space where it falls into two without other ids."""
        place = text.rfind(" ", 0, len(text) - _KEPT)
        if place < 0 or (self._words is not None and self.family.turns.strips):
            return
        before, behind = self._spelled(text[:place], self._first), self._spelled(text[place:], False)
        if before + behind != self._ids:
            return
        self._said, self._words = text[place:], None if self._words is None else ""
        self._begin = self._begin.copy()
        self._begin.text(len(before))
        self._first, self._ids = False, behind

    def _seal(self) -> None:
        """What comes now does not stand together with the open text."""
        self._said, self._words, self._ids = "", None, []
        self._first = False

    def _lay(self, rows: Rows) -> None:
        """Rows that are no open text."""
        self._rows.append(rows)
        self._seal()

    def _plain(self, ids: list[int] | tuple[int, ...]) -> Rows:
        return Rows(np.asarray(ids, dtype=np.int64), self.cursor.text(len(ids)))

    def _show(self, kind: str) -> None:
        if kind not in self.family.data.exclusive:
            return
        if others := self.shown - {kind}:
            raise InputError(
                f"{kind}: expected none in a stream that has had {', '.join(sorted(others))}, since beside one another "
                f"they are other rows in this model; the request's own prompt takes them together"
            )
        self.shown |= {kind}

    def _continues(self, span: Span) -> bool:
        block = self.block
        if block is None or block.kind != span.modality or span.modality == "image":
            return False
        own = (block.run, block.clip_fps) == (span.run, span.clip_fps)
        return own and (block.height, block.width) == span.grid[1:]

    def _open(self, span: Span) -> None:
        self._mark(span.modality, 0)
        self._flush()
        self.block = self._block(span)

    def _go_on(self) -> None:
        """What comes now stands behind what passed while no block of its kind was open."""
        ends = [start + rows + self.clock.end(patches) for start, patches, rows in self._passing.values()]
        if max(ends, default=0) > self.cursor.text_next:
            self._seal()
            self.cursor.passed(np.array(max(ends) - 1))
        self._passing = {}

    def _close(self) -> None:
        self._go_on()
        if self.block is None:
            return
        kind, self.block = self.block.kind, None
        if kind in self.family.endings:
            ids = self.family.data.ending_ids[kind]
            rows = Rows(np.asarray(ids, dtype=np.int64), self.cursor.text(len(ids)), self.family.ending(kind))
            self._lay(msgspec.structs.replace(rows, content=f"the end of {kind}".encode(), mark="after"))
        self._mark(kind, 1)

    def _mark(self, kind: str, side: int) -> None:
        """What opens or closes a block. The two wrappers of a unit block may share a position; others are text."""
        if kind == "unit" and self.family.data.unit_marks_share:
            self._flush()
            ids = self.family.block_ids[kind][side]
            mark = "after" if side else "before"
            self._lay(Rows(np.asarray(ids, dtype=np.int64), self.cursor.together(len(ids)), mark=mark))
        else:
            self._say(self.family.data.blocks.get(kind, ("", ""))[side])

    def _block(self, span: Span) -> Block:
        """A block that counts from here."""
        return Block(span.modality, self.cursor.text_next, span.grid[1], span.grid[2], span.run, span.clip_fps)

    def _in_block(self, span: Span) -> Rows:
        assert self.block is not None
        fps, family = span.clip_fps, self.family
        clock = self.clock if fps is None else family.clock(family.grid_seconds(fps))
        if span.places is not None:
            positions = self.block.put(span.places, span.behind)
        else:
            positions = self.block.extend(span.grid[0], span.audio_rows, clock)
        # The cursor follows at once: whatever comes next, the block's closing or the check of limits, goes on from it.
        self.block.leave(self.cursor, self.rule)
        return Rows(span.ids, positions, span.stored, span.seen, self.family.atomic(span.modality), span.content)
