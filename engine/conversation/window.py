"""What leaves a stream's window, and when: the only place that decides it. Pages and numbers; no tensors, no clock.

What comes in: a stream's state, and how much room is needed. What goes out: its window begins at a later row, words go
to its fronts, and an `Evicted` event says so. It is called between two steps, while something is laid.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

from ...errors import InputError
from ...streams.event import Evicted
from ...streams.requests.request import Request
from ...streams.requests.window import Window
from ..family import Family
from ..pages import OutOfPages, PagePool
from ..plan import Recalled
from ..span import Rows
from .fronts import Fronts, OldRows
from .kept import Kept
from .laying import Limits
from .state import StreamState

# Rows leave in portions of the window, so that a slide costs the same however often it comes.
_PORTION = 8
_MOST_TEXT = 1024
# So many pages of a stream are not full at the most: the last that is pinned, both ends of the memory and the window.
_BROKEN_PAGES = 5
# First rows that attention leans on whatever they are (arXiv 2309.17453): they are pinned where there is no prompt.
_SINKS = 4


class Unfed(Exception):
    """There will be room as soon as what is laid has been fed."""


class Bounds(msgspec.Struct, frozen=True):
    """The most rows that a stream holds, the most of its text memory, and how many microseconds of media it keeps."""

    rows: int
    text_rows: int
    media_us: float | None


def bounds(request: Request, limits: Limits, family: Family, pool: PagePool) -> Bounds | None:
    """Those of a stream that may have `limits`, in pages of `pool`; None where it keeps all. Raises InputError where it
    cannot have its window.

    What is pinned, the text memory and the window begin and end in the middle of pages. So a stream which has the cache
    for itself cannot fill it to the last row: it would wait for ever for a page of its own.
    """
    window = request.window
    if window is None or (family.no_window and window == Window()):
        return None
    if family.no_window:
        raise InputError(f"window: expected none for this model, since {family.no_window}; got {window}")
    camera = request.policy == "latest" and request.reserve_tokens is None
    usual = (family.data.window_rows or limits.rows // 4) if camera else limits.rows
    whole = pool.pages * pool.page_tokens
    rows = min(window.rows or usual, limits.rows, max(whole - _BROKEN_PAGES * (pool.page_tokens - 1), whole // 2))
    text = min(rows // _PORTION, _MOST_TEXT) if window.text_rows is None else window.text_rows
    if text > rows // 2:
        raise InputError(f"window.text_rows: expected at most half of {rows} rows, got {text}")
    seconds = max((s for s in (window.video_seconds, window.audio_seconds) if s is not None), default=None)
    return Bounds(rows, text, None if seconds is None else seconds * 1e6)


class Sliding:
    """Lets the oldest rows of one stream go."""

    def __init__(self, family: Family, stream: StreamState, limits: Limits, bounds: Bounds, kept: Kept) -> None:
        self._stream, self._limits, self._bounds, self._kept = stream, limits, bounds, kept
        self._family = family
        window = stream.request.window
        self.pinned_turns = 0 if window is None else window.pinned_turns

    def make_room(self, count: int, last: int) -> bool:
        """Let rows go until `count` more fit, up to position `last`, as far as that can be. Returns whether any went.

        Raises Unfed where rows have to go and what is laid is still to be fed, or is in host memory.
        """
        stream, most = self._stream, self._limits.positions
        if not stream.laid or (stream.size + count <= self._bounds.rows and last - self._lowest() < most):
            return False
        self._await_fed()
        begin, over = stream.begin, stream.size + count - self._bounds.rows
        if over > 0:
            self._leave(begin + max(over, self._bounds.rows // _PORTION), begin + over)
        beyond = last + 1 - most - self._lowest()
        if beyond > 0:
            place = int(stream.laid[0].positions.min())
            self._leave(self._row_at(place + max(beyond, most // _PORTION)), self._row_at(place + beyond))
        return stream.begin > begin

    def expire(self, stop_us: int | None) -> None:
        """Let media go that is older than the window is long when media up to `stop_us` comes. Raises Unfed as
        `make_room` does."""
        length, stream = self._bounds.media_us, self._stream
        if length is None or stop_us is None or self._row_since(stop_us - length) <= stream.begin:
            return
        self._await_fed()
        self._leave(self._row_since(stop_us - length * (_PORTION - 1) / _PORTION), stream.begin)

    def _await_fed(self) -> None:
        """Raise Unfed unless all that is laid has been fed, but for the newest token of a reply. So what the rows that
        stay have seen does not depend on how fast they were fed."""
        stream, reply = self._stream, self._stream.reply
        said = reply is not None and bool(reply.places) and reply.places[-1] == stream.rows - 1
        if stream.away or stream.fed < stream.rows - said:
            stream.returns = True
            raise Unfed

    def _row_since(self, time_us: float) -> int:
        """The row of the first media that is newer, or behind all that is laid, if other media stands before it; else
        where the window begins."""
        older = False
        for start, run in zip(self._stream.starts, self._stream.laid, strict=True):
            if run.seen is not None and run.seen.stop_us is not None and run.seen.stop_us > time_us:
                return start if older else self._stream.begin
            older |= run.seen is not None
        return self._stream.rows if older else self._stream.begin

    def _lowest(self) -> int:
        """The position at which what the stream holds begins, as it counts now."""
        return 0 if self._stream.fronts is None else self._stream.fronts.lowest

    def _row_at(self, position: int) -> int:
        """The first row of a run that stands at this position or behind it."""
        runs = zip(self._stream.starts, self._stream.laid, strict=True)
        return next((start for start, run in runs if int(run.positions.min()) >= position), self._stream.rows)

    def _leave(self, wanted: int, needed: int) -> None:
        """The window begins at the first border from row `wanted` on, or at the last one that there is; if that is
        before row `needed`, nothing goes.

        A reply that runs, its question and what that was about go only if nothing else is enough. Of a prompt nothing
        goes while the reply to it runs.
        """
        stream, reply = self._stream, self._stream.reply
        newest = (start for start, run in zip(stream.starts[::-1], stream.laid[::-1], strict=True) if run.seen)
        last = min(stream.fed, stream.rows - max(1, stream.layout.open_rows), next(newest, stream.rows))
        steps = [last]
        if reply is not None and not stream.stays_open(reply.params):
            prompted = stream.begun is not None and stream.begun.seq == reply.seq
            steps = [min(last, stream.asked)] if prompted else [min(last, stream.asked), last]
        for most in steps:
            row = stream.begin
            for border in self._borders(most):
                row = border
                if row >= wanted:
                    break
            if row > stream.begin and row >= needed:
                self._slide(row)
                return

    def _borders(self, last: int) -> Iterator[int]:
        """Where the window may begin, up to row `last`: between two runs, but not between media and what stands around
        it."""
        stream = self._stream
        first = 0 if stream.fronts is not None else self._first_rows()
        opening = [ids for ids, _ in self._family.block_ids.values() if ids]
        for place in range(1, len(stream.starts)):
            row, run, before = stream.starts[place], stream.laid[place], stream.laid[place - 1]
            if row > last:
                return
            if run.mark == "after" or before.mark == "before":
                continue
            if run.seen is not None and before.seen is None:
                row -= max((len(ids) for ids in opening if before.ids[-len(ids) :].tolist() == ids), default=0)
            if row > max(stream.begin, first):
                yield row

    def _first_rows(self) -> int:
        """How many of the stream's first rows are pinned: the system prompt's, and the first turns where asked."""
        stream = self._stream
        if self.pinned_turns and stream.turns:
            return min(stream.turns[-1], self._bounds.rows // 2)
        words = stream.laid[0]
        if words.stored is not None:
            return 0
        system = self._family.system_ids(_system(stream.request))
        pairs = zip(words.ids.tolist(), system, strict=False)
        same = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(words), len(system)))
        return min(len(words), max(same, _SINKS))

    def _slide(self, row: int) -> None:
        stream = self._stream
        fronts = stream.fronts = stream.fronts or self._pinned()
        begin = max(stream.begin, fronts.most)
        places = [stream.table.row(place) for place in range(begin, row)]
        gone = stream.slide(row)
        self._kept.remove(gone)
        start, words = row - sum(len(run) for run in gone), list[tuple[int, Rows]]()
        for run in gone:
            if start + len(run) > begin and run.seen is None and run.stored is None and not run.mark:
                skip = max(0, begin - start)
                words.append((start + skip, run.part(skip, len(run))))
            start += len(run)
        recalled = self._recall(fronts, words, begin, places)
        stream.layout.sever()
        fronts.stand(int(stream.laid[0].positions.min()))
        stream.show_tables()
        seen = [run.seen for run in gone if run.seen is not None]
        first = min((one.start_us for one in seen if one.start_us is not None), default=None)
        stop = max((one.stop_us for one in seen if one.stop_us is not None), default=None)
        if stop is not None:
            stream.left_us = max(stop, stream.left_us or 0)
        stream.events.append(Evicted(begin, row - begin, recalled, first, stop))

    def _pinned(self) -> Fronts:
        """Fronts that hold the stream's first rows, and no text yet."""
        stream, first = self._stream, self._first_rows()
        fronts = Fronts(stream.table.pool, stream.slots[1:])
        fronts.most = first
        runs = [
            (start, msgspec.structs.replace(run.part(0, min(len(run), first - start)), stored=None))
            for start, run in zip(stream.starts, stream.laid, strict=True)
            if start < first
        ]
        stop = max((int(run.positions.max()) + 1 for _, run in runs), default=0)
        fronts.pinned = OldRows(stream.table.head(first), 0, stop)
        fronts.pinned.laid.extend(runs)
        return fronts

    def _recall(self, fronts: Fronts, words: list[tuple[int, Rows]], begin: int, places: list[int]) -> int:
        """Words that leave the window stay in the text memory, those of the question that is being answered behind what
        is pinned, as far as there are pages. Returns how many rows stay. `places`: where the rows from `begin` on lie
        in the cache."""
        stream, reply, moved = self._stream, self._stream.reply, Recalled(self._stream.id, [], [], [], [])
        if fronts.reply and (reply is None or reply.id != fronts.reply):
            fronts.pinned.cut(fronts.most)
            fronts.reply = 0
        asked = range(stream.asked, reply.row) if reply is not None else range(0)
        question = [(row, run) for row, run in words if row in asked and len(run) <= self._bounds.rows // _PORTION]
        if question and reply is not None:
            fronts.reply = reply.id
        others = [(row, run) for row, run in words if row not in asked]
        for front, run_rows, most in (
            (fronts.pinned, question, self._bounds.rows // _PORTION),
            (fronts.memory, others, self._bounds.text_rows),
        ):
            for row, run in self._plain(run_rows, most):
                self._add(front, row, run, moved, begin, places)
        fronts.memory.shorten(self._bounds.text_rows)
        if moved.sources:
            stream.changes.recalled.append(moved)
        return len(moved.sources)

    def _add(self, front: OldRows, row: int, run: Rows, moved: Recalled, begin: int, places: list[int]) -> None:
        """The words of a run, without marks of media, go to a front, if there are pages."""
        words = np.flatnonzero(~np.isin(run.ids, self._family.mark_ids))
        if not len(words):
            return
        try:
            edit, turns = front.add(row, Rows(run.ids[words], run.positions[:, words]))
        except OutOfPages:
            return
        moved.copies.extend(edit.copies)
        stop = front.table.length
        moved.targets.extend(front.table.row(place) for place in range(stop - len(words), stop))
        moved.sources.extend(places[row - begin + int(word)] for word in words)
        moved.turns.extend(turns.tolist())

    def _plain(self, words: list[tuple[int, Rows]], most: int) -> list[tuple[int, Rows]]:
        """The newest of these runs that have at most so many rows together, in order."""
        chosen, left = [], most
        for row, run in reversed(words):
            left -= len(run)
            if left < 0:
                break
            chosen.append((row, run))
        return chosen[::-1]


def _system(request: Request) -> str | None:
    """The system prompt of a request: a field of its own, or the first of its messages."""
    first = request.messages[0] if request.messages else {}
    if first.get("role") != "system":
        return request.system
    content = first.get("content")
    parts = [{"text": content}] if isinstance(content, str) else content or []
    return "".join(part.get("text", "") for part in parts if isinstance(part, dict))
