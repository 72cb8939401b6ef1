"""One stream's own state: inputs in order, rows laid out, how far they are fed. It hands out no pages and runs nothing.

inputs      accepted, in the order in which they act; the first waits for its spans or for its turn
laid        rows in the order of the KV; of these

    [0, fed)        are where `where` says: in the cache or in host memory
    [fed, past)     were in the cache, and are fed once more as soon as there is anything new
    [past, rows)    have not been fed yet
    [0, announced)  have had their Appended events

            entries [0, head) of it are fed as wholes; entries [0, kept_from) have let their embeddings go

Its conversation and its own methods write it. The scheduler and the actors read it and call these methods.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from ...errors import ContextOverflowError
from ...streams.event import Appended, Event, Seen, TranscriptRow
from ...streams.requests.request import Request, SamplingParams
from ..pages import Edit, PageTable
from ..span import Rows
from ..words.spelling import Unspelled
from .keys import Keys
from .layout import Layout
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
        slot: int,
        request: Request,
        layout: Layout,
        table: PageTable,
        why: str = "",
        spell_apart: bool = False,
    ) -> None:
        self.id = id
        self.why = why  # its format was chosen
        self.slot = slot  # its row in the runner's page tables
        self.request = request
        self.layout = layout
        self.table = table
        self.inputs: deque[Waiting] = deque()
        self.laid: list[Rows] = []
        self.starts: list[int] = []  # first row of each entry of `laid`
        self.keys = Keys(request.cache_salt, table.pool.page_tokens)  # of its full pages
        self.rows = 0  # rows laid
        self.found = 0  # its first rows that it found in the cache, and did not compute
        self.host_bytes = 0  # host memory of what is laid: ids, positions and the embeddings that are still kept
        self.head = 0  # first entry of `laid` that is not wholly fed
        self.announced = 0  # rows [0, announced) have had their Appended events
        self.newest: Seen | None = None  # the newest span among the fed rows
        self.reply: ReplyState | None = None
        self.replies = 0
        self.begun: Begun | None = None  # the reply to the request's prompt
        self.media = MediaLife.EXPECTED
        self.losses = Losses()
        # `Layout.ready`, for the input that acts next.
        self.ready: dict[tuple[str, bool], list[int]] | None = {} if spell_apart else None
        self.unspelled: Unspelled | None = None  # the long text that this input waits for
        self.reader = Reader.READS
        self.away = 0  # pages in host memory; its table is empty then
        self.away_rows = 0
        self.cold = 0  # rows [0, cold) were in the cache
        self.since = 0  # age of its need
        self.whole = True  # every span that was laid is still kept
        self.kept_from = 0  # entries of `laid` before this have let their embeddings go
        self.events: list[Event] = []

    @property
    def fed(self) -> int:
        """Rows in the cache, wherever its pages are."""
        return self.away_rows if self.away else self.table.length

    @property
    def past(self) -> int:
        """Rows that are in the cache or have been."""
        fed = self.away_rows if self.away else self.table.length
        return fed if fed > self.cold else self.cold

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
        pages, rows = list(self.table.pages), self.table.length
        with self._happens_to_rows(What.SAVED):
            self.table.clear()
            self.away, self.away_rows = len(pages), rows
        return pages

    def lose(self) -> None:
        """Preempted: its pages are taken, and its rows are fed once more from what it keeps."""
        with self._happens_to_rows(What.TAKEN):
            self.head, self.cold, self.found = 0, max(self.cold, self.table.length), 0
            self.table.clear()

    def come_back(self) -> Edit:
        """Its turn to be fed: its rows come back from host memory. Returns the pages they go to."""
        with self._happens_to_rows(What.FED):
            edit = self.table.append(self.away_rows)
            self.away = 0
        return edit

    def recall(self) -> None:
        """It is forked while its pages are in host memory: it and its twin are fed once more."""
        with self._happens_to_rows(What.FORKED):
            self.head, self.cold, self.away, self.found = 0, self.past, 0, 0

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

    def lay_within(self, limits: Limits, lay: Callable[[Layout], list[Rows]], reserve: int) -> list[Rows]:
        """Rows from `lay(layout)`, laid if they fit the limits with `reserve` rows to spare; else nothing has changed.
        What the layout takes back goes out of the cache.

        Raises ContextOverflowError with the numbers, Unspelled where a long text has no ids yet.
        """
        trial = self.layout.copy()
        trial.ready = self.ready
        rows = lay(trial)
        trial.ready = None
        count, kept = sum(len(run) for run in rows), self.rows - trial.taken_back
        if kept + count + reserve > limits.rows:
            raise ContextOverflowError(
                f"the cache holds {limits.rows} rows for a stream: expected at most "
                f"{limits.rows - kept - reserve} more, got {count} ({kept} so far, {reserve} kept free)"
            )
        last = max((int(run.positions.max()) for run in rows if len(run)), default=0)
        if last + reserve >= limits.positions:
            raise ContextOverflowError(
                f"the model has {limits.positions} positions: expected at most "
                f"{limits.positions - reserve - 1}, got {last}"
            )
        if kept < self.rows:
            self.cut(kept)
        self.layout = trial
        self.lay(rows)
        return rows

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
        if self.reply is not None and self.starts[place] >= self.reply.row:
            self.reply.let_go(self.starts[place])
        return [run]

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
        self.found = min(self.found, row)
        self.announced = min(self.announced, row)
        self.cold = min(self.cold, row)
        self.head = min(self.head, keep)
        self.kept_from = min(self.kept_from, keep)
        fed = (self.laid[place].seen for place in range(self.head - 1, -1, -1))
        self.newest = next((seen for seen in fed if seen), None)
        if self.away:
            self.away_rows = min(self.away_rows, row)
        elif row < self.table.length:
            self.table.truncate(row)
        self.passed()  # a run that was fed in part may be whole now
        return gone

    def rewind(self) -> Begun:
        """Back to where the reply to the prompt begins. The prompt's last rows are fed once more, to draw from."""
        assert self.begun is not None
        self.cut(self.begun.rows)
        self.layout = self.begun.layout.copy()
        self.reply = None
        place = len(self.laid) - 1
        row = self.starts[place] if self.laid[place].atomic else self.rows - 1
        self.cold, self.found = min(self.cold, row), min(self.found, row)
        self.head = min(self.head, place)
        if row < self.table.length:
            self.table.truncate(row)
        return self.begun

    def transcript(self) -> list[TranscriptRow]:
        """What the KV cache holds or would be fed again, in order."""
        return [
            TranscriptRow(start, run.ids.tolist(), run.positions.tolist(), run.seen)
            for start, run in zip(self.starts, self.laid, strict=True)
            if start + len(run) <= self.past
        ]

    def fork(self, id: int, slot: int, before: int) -> StreamState:
        """The same stream once more, frozen here, with the inputs before `before` that still wait."""
        twin = object.__new__(StreamState)
        twin.__dict__.update(self.__dict__)
        twin.id, twin.slot = id, slot
        twin.why = f"fork of stream {self.id}"
        twin.layout, twin.keys = self.layout.copy(), self.keys.copy()
        twin.table = self.table.fork()
        twin.inputs = deque(input.copy() for input in self.inputs if input.seq < before)
        twin.laid, twin.starts = list(self.laid), list(self.starts)
        twin.reply = None if self.reply is None else self.reply.copy()
        twin.ready = None if self.ready is None else dict(self.ready)
        twin.losses = msgspec.structs.replace(self.losses)
        twin.reader = READER[self.reader, What.FORKED]
        twin.events = []
        return twin


class Limits(msgspec.Struct, frozen=True):
    """How many rows and positions one stream may have."""

    rows: int
    positions: int
