"""One stream's own state: inputs in order, rows laid out, how far they are fed. It hands out no pages and runs nothing.

inputs      accepted, in the order in which they act; the first waits for its spans or for its turn
laid        rows in the order of the KV, the window, from row `begin` on; rows are numbered from the stream's first
            one, also when that is gone; of these

    [begin, fed)    are where `where` says: in the cache or in host memory
    [fed, past)     were in the cache, and are fed once more as soon as there is anything new
    [past, rows)    have not been fed yet
    [0, announced)  have had their Appended events

            entries [0, head) of it are fed as wholes; entries [0, kept_from) have let their embeddings go
fronts      what is held from before row `begin`; None until the stream slides
carried     where its states lie; None where the model's layers keep none

Its conversation and its own methods write it. The scheduler and the actors read it and call these methods.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ...streams.event import Appended, Event, Seen, TranscriptRow
from ...streams.requests.request import Request, SamplingParams
from ..pages import Edit, PageTable
from ..plan import Changes, Feed, TableEdit, Wears
from ..span import Rows
from ..words.spelling import Unspelled
from .carried import Carried
from .fronts import Fronts
from .keys import Keys
from .layout import Layout
from .marks import Marks
from .reply import ReplyState
from .rules import MEDIA, READER, WHERE, Life, MediaLife, Reader, What, Where
from .waiting import Losses, Waiting


class Begun(msgspec.Struct, frozen=True, eq=False):
    """Where the reply to a prompt begins: after `rows` rows, laid out as `layout` says, to input `seq`."""

    seq: int
    rows: int
    layout: Layout


class StreamState:
    """Everything about one stream but its place in the scheduler."""

    def __init__(
        self,
        id: int,
        slots: list[int],
        request: Request,
        layout: Layout,
        table: PageTable,
        changes: Changes,
        why: str = "",
        spell_apart: bool = False,
        stateful: bool = False,
        wears: Wears | None = None,
    ) -> None:
        self.id = id
        self.why = why  # its format was chosen
        self.slots = slots  # the numbers of its page tables in the runner: the window's, and its fronts'
        self.request, self.wears = request, wears
        self.layout = layout
        self.table = table
        self.changes = changes  # of page tables, since the last plan
        self.fronts: Fronts | None = None
        self.carried = Carried(slots[0]) if stateful else None
        self.inputs: deque[Waiting] = deque()
        self.laid: list[Rows] = []
        self.starts: list[int] = []  # first row of each entry of `laid`
        self.keys = Keys(request.cache_salt, table.pool.page_tokens, wears)  # of its full pages
        self.marks = Marks()
        self.rows = 0  # rows laid
        self.found = 0  # its first rows that it found in the cache, and did not compute
        self.host_bytes = 0  # host memory of what is laid: ids, positions and the embeddings that are still kept
        self.head = 0  # first entry of `laid` that is not wholly fed
        self.announced = 0  # rows [0, announced) have had their Appended events
        self.newest: Seen | None = None  # the newest span among the fed rows
        self.reply: ReplyState | None = None
        self.replies = 0
        self.turn = 0  # somebody has begun to speak in this turn of the user: turns before it ask nothing
        self.begun: Begun | None = None  # the reply to the request's prompt
        self.asked = 0  # the first row of the newest question
        self.turns: list[int] = []  # the row behind each of its first turns, as many as are pinned
        self.media = MediaLife.EXPECTED
        self.left_us: int | None = None  # media up to this time has left its window
        self.losses = Losses()
        # `Layout.ready`, for the input that acts next.
        self.ready: dict[tuple[str, bool], list[int]] | None = {} if spell_apart else None
        self.unspelled: Unspelled | None = None  # the long text that this input waits for
        self.reader = Reader.READS
        self.away = 0  # pages in host memory; its tables have none then
        self.returns = False  # its rows are to be in the cache although nothing new is to be fed
        self.cold = 0  # rows [0, cold) were in the cache
        self.again = 0  # rows [0, again) were too, or hold what was there before a cut
        self.since = 0  # age of its need
        self.whole = True  # every span that was laid is still kept
        self.kept_from = 0  # entries of `laid` before this have let their embeddings go
        self.events: list[Event] = []

    @property
    def fed(self) -> int:
        """Rows that are in the cache, wherever its pages are, with those that have left it."""
        return self.table.length

    @property
    def past(self) -> int:
        """Rows that are in the cache or have been."""
        fed = self.table.length
        return fed if fed > self.cold else self.cold

    @property
    def slot(self) -> int:
        """The number of its window's page table."""
        return self.slots[0]

    @property
    def begin(self) -> int:
        """The first row of its window."""
        return self.table.begin

    @property
    def size(self) -> int:
        """Rows that it has in the cache or is to have there."""
        return self.rows - self.table.begin + (0 if self.fronts is None else self.fronts.rows)

    @property
    def tables(self) -> list[PageTable]:
        """Its page tables, the window's last."""
        fronts = self.fronts
        return [self.table] if fronts is None else [fronts.pinned.table, fronts.memory.table, self.table]

    @property
    def pages(self) -> int:
        """How many pages it has in the cache."""
        return sum(len(table.pages) for table in self.tables)

    @property
    def pausing(self) -> bool:
        """Its reply has said what one unit of media allows: nothing is fed until something is laid."""
        return self.reply is not None and self.reply.life is Life.PAUSED

    @property
    def parked(self) -> bool:
        """Its client does not read: nothing is fed."""
        return self.reader is Reader.PARKED

    @property
    def where(self) -> Where:
        """Where the rows are that have been fed."""
        return Where.HOST if self.away else Where.CACHE

    @contextmanager
    def _happens_to_rows(self, what: What) -> Iterator[None]:
        """Inside, the rows go where the table has it. KeyError for what cannot happen to them."""
        after = WHERE[self.where, what]
        yield
        assert self.where is after, f"{what}: expected rows {after}, got {self.where}"

    def renew(self, age: int) -> None:
        """A stream that has nothing to do begins a new need, of this age."""
        if self.past == self.rows or self.pausing:
            self.since = age

    def reads(self, what: What) -> None:
        """Its client stops reading, or reads."""
        self.reader = READER[self.reader, what]

    def save(self) -> list[int]:
        """Preempted: its pages go to host memory. Returns them."""
        with self._happens_to_rows(What.SAVED):
            pages = [page for table in self.tables for page in table.vacate()]
            self.away = len(pages)
        return pages

    def lose(self) -> None:
        """Preempted: its pages are taken, and its rows are fed once more from what it keeps."""
        with self._happens_to_rows(What.TAKEN):
            self.head, self.cold, self.found = 0, max(self.cold, self.table.length), 0
            self.table.clear()
            if self.carried is not None:
                self.carried.back_to(0)

    def come_back(self) -> list[int]:
        """Its turn to be fed: its rows come back from host memory. Returns the pages they go to."""
        with self._happens_to_rows(What.FED):
            pages = [page for table in self.tables for page in table.fill().pages]
            self.away = 0
            self.returns = self.fed < self.rows and not self.pausing
        self.show_tables()
        return pages

    def show_tables(self) -> None:
        """The runner's page tables are to be as its own are now."""
        window, *others = self.slots
        numbers = [window] if self.fronts is None else [*others, window]
        for number, table in zip(numbers, self.tables, strict=True):
            self.changes.edits.append(TableEdit(number, 0, list(table.pages)))

    def join(self, pages: list[int]) -> Edit:
        """Nothing is computed yet, and these pages hold its next rows. Returns where they stand in its table."""
        edit = self.table.join(pages)
        self.found = self.table.length
        self.report()
        return edit

    def report(self) -> None:
        """Tell of the media that is wholly fed now, each piece once."""
        for row, run in self.passed():
            seen = run.seen
            if seen is None:
                continue
            self.newest = seen
            if row + len(run) > self.announced:
                self.announced = row + len(run)
                place = int(run.positions[:, 0].min())
                self.events.append(Appended(seen.seq, seen.modality, seen.start_us, seen.stop_us, row, len(run), place))

    def take_events(self) -> list[Event]:
        """What has happened since the last call."""
        events, self.events = self.events, []
        return events

    def happens_to_media(self, what: What) -> None:
        """A piece went in, or did not fit, or no more will come."""
        self.media = MEDIA[self.media, what]

    def stays_open(self, params: SamplingParams) -> bool:
        """Whether a reply with these does not end by itself: media that it may speak of is still expected."""
        return self.layout.format.holds and params.hold and self.media is not MediaLife.OVER

    def lay(self, rows: list[Rows]) -> None:
        for run in rows:
            count = len(run)
            if count:
                self.laid.append(run)
                self.starts.append(self.rows)
                self.rows += count
                self.host_bytes += run.nbytes

    def waiting(self, limit: int, ahead: int = 0) -> list[Rows]:
        """Rows to be fed next, from the front, about `limit` rows of them, without the first `ahead`."""
        runs, total, first = [], 0, self.fed + ahead
        for place in range(self.head, len(self.laid)):
            run, start = self.laid[place], self.starts[place]
            if start + len(run) <= first:
                continue
            if start < first:
                run = run.part(first - start, len(run))
            runs.append(run)
            total += len(run)
            if total >= limit:
                break
        return runs

    def take(self, count: int) -> list[Rows]:
        """The next `count` rows to be fed."""
        run = self.laid[self.head]
        if len(run.ids) == count and self.starts[self.head] == self.fed:
            return [run]
        runs = self.waiting(count)
        over = sum(len(run) for run in runs) - count
        return [*runs[:-1], runs[-1].part(0, len(runs[-1]) - over)] if over else runs

    def feed(self, count: int) -> tuple[Feed, list[tuple[int, int]]]:
        """Its next `count` rows, as a step takes them, with pages for them; and pages to be copied before."""
        table, first, rows = self.table, self.fed, self.take(count)
        said = self.reply is not None and self.reply.places[-1:] == [first]
        use = self.carried and self.carried.feed(first, count, said, self.laid, self.starts, self.firm)
        edit = table.append(count)
        if edit.pages:
            self.changes.edits.append(TableEdit(self.slot, edit.index, edit.pages))
        self.returns = self.returns and table.length < self.rows
        speaks = self.reply if table.length == self.rows and not self.pausing else None
        draw = None if speaks is None else speaks.draw()
        base, seen = table.base, () if self.fronts is None else self.fronts.seen
        worn = 0 if self.wears is None else self.wears.number
        place = self.id, self.slot, first - base, rows, draw, table.begin - base, seen
        return Feed(*place, states=use, adapter=worn, looks=self.layout.looks), edit.copies

    def passed(self) -> list[tuple[int, Rows]]:
        """Move the head after what is fed; return (first row, run) of the runs that are wholly fed now."""
        done = []
        while self.head < len(self.laid) and self.starts[self.head] + len(self.laid[self.head]) <= self.fed:
            done.append((self.starts[self.head], self.laid[self.head]))
            self.head += 1
        return done

    def let_go(self) -> list[Rows]:
        """Let the embeddings of the next entry go, the oldest first. Returns it where it had any."""
        place, self.kept_from = self.kept_from, self.kept_from + 1
        run = self.laid[place]
        if run.stored is None:
            return []
        self.laid[place] = msgspec.structs.replace(run, stored=None)
        self.host_bytes -= run.stored.nbytes
        self.whole = False
        if self.carried is not None:
            self.carried.lost = self.starts[place] + len(run)
        if self.reply is not None and self.starts[place] >= self.reply.row:
            self.reply.let_go(self.starts[place])
        return [run]

    @property
    def spare(self) -> int:
        """Entries of `laid` before this are fed, and never again unless the stream loses its pages."""
        if self.carried is None:
            return self.head
        return min(self.head, bisect_right(self.starts, self.carried.oldest(self.firm)) - 1)

    @property
    def least_row(self) -> int:
        """From which row on it can be cut anywhere, by its states."""
        return 0 if self.carried is None else self.carried.least_row

    @property
    def firm(self) -> int:
        """Rows before this are not taken back for words that follow."""
        return self.rows - self.layout.open_rows

    def take_out(self, row: int) -> None:
        """The rows from `row` on leave the cache. With states, some before are to be fed once more."""
        if row >= self.table.length:
            return
        back = row
        if self.carried is not None:
            back, self.cold = self.carried.back_to(row), max(self.cold, row)
            self.head = min(self.head, max(0, bisect_right(self.starts, back) - 1))
        self.table.truncate(back)

    def cut(self, row: int) -> list[Rows]:
        """Forget what is laid from `row` on, and take it out of the cache. Returns the runs that went whole; part of a
        text may stay."""
        keep = bisect_left(self.starts, row)
        self.host_bytes -= sum(run.nbytes for run in self.laid[max(0, keep - 1) :])
        if keep and self.starts[keep - 1] + len(self.laid[keep - 1]) > row:
            self.laid[keep - 1] = self.laid[keep - 1].part(0, row - self.starts[keep - 1])
        gone = self.laid[keep:]
        del self.laid[keep:], self.starts[keep:]
        self.host_bytes += sum(run.nbytes for run in self.laid[max(0, keep - 1) :])
        self.rows = row
        self.keys.cut(row)
        self.marks.cut(row)
        self.found = min(self.found, row)
        self.announced = min(self.announced, row)
        self.cold, self.again = min(self.cold, row), min(self.again, row)
        self.head = min(self.head, keep)
        self.kept_from = min(self.kept_from, keep)
        fed = (self.laid[place].seen for place in range(self.head - 1, -1, -1))
        self.newest = next((seen for seen in fed if seen), None)
        self.take_out(row)
        self.passed()  # a run that was fed in part may be whole now
        return gone

    def slide(self, row: int) -> list[Rows]:
        """Its window begins at `row` from now on, and whole pages before it go. Returns the runs that went, in order;
        the first rows of the next run may be the last of them."""
        keep = bisect_right(self.starts, row) - 1
        gone, count = self.laid[:keep], row - self.starts[keep]
        del self.laid[:keep], self.starts[:keep]
        self.host_bytes -= sum(run.nbytes for run in gone)
        if count:
            run = self.laid[0]
            gone.append(run.part(0, count))
            self.laid[0], self.starts[0] = run.part(count, len(run)), row
            self.host_bytes += self.laid[0].nbytes - run.nbytes
        self.head, self.kept_from = max(0, self.head - keep), max(0, self.kept_from - keep)
        self.whole = False
        self.keys.cut(0)
        self.marks.slide(row)
        self.table.slide(row)
        if self.reply is not None and row > self.reply.row:
            self.reply.let_go(row)
        if self.begun is not None and self.begun.rows <= row:
            self.begun = None
        return gone

    def reach(self) -> dict[str, int | None]:
        """How far back it reaches."""
        times = (run.seen.start_us for run in self.laid if run.seen is not None)
        since = next((time for time in times if time is not None), None)
        return {"rows": self.size, "begin": self.begin, "since_us": since}

    def transcript(self) -> list[TranscriptRow]:
        """What the KV cache holds or would be fed again, in order."""
        window = [
            TranscriptRow(start, run.ids.tolist(), run.positions.tolist(), run.seen)
            for start, run in zip(self.starts, self.laid, strict=True)
            if start + len(run) <= self.past
        ]
        return window if self.fronts is None else self.fronts.transcript() + window
