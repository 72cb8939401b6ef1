"""Who goes next and who holds what: the one owner of streams' lives and of pages. Plain Python: no tensors are
computed here.

What comes in: accepted inputs, spans, interrupts. What goes out: a `Plan` for each step and, when its `Result` is
committed, events. Calls fall between steps only: after `plan()` comes `commit()`, then anything else. It knows no
model, no clock and no sockets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec

from ...errors import InputError, PenstockError
from ...streams.event import Appended, Error, Event, TranscriptRow
from ...streams.format import choose
from ...streams.request import Request, SamplingParams
from ..conversation.conversation import Conversation
from ..conversation.kept import Kept
from ..conversation.layout import Layout
from ..conversation.state import Input, Limits, StreamState
from ..family import Family
from ..pages import PagePool, PageTable
from ..plan import Draw, Feed, Plan, Result, TableEdit
from ..span import Prompt, Rows, Span
from ..words.spelling import Unspelled
from .journal import Journal
from .policy import Budget, Need
from .policy import plan as choose_rows


class SchedulerConfig(msgspec.Struct, frozen=True):
    """Sizes, fixed at start.

    host_pages: how many pages may lie in host memory. span_bytes: how many bytes of spans are kept to feed a stream
    anew; when it is more, the oldest are let go, and such a stream can only be moved to the host whole.
    """

    pages: int
    page_tokens: int
    slots: int = 256
    step_rows: int = 1024
    append_rows: int = 256
    host_pages: int = 1 << 16
    span_bytes: int = 1 << 30


class Scheduler:
    """Streams, their pages, and the choice of the next step."""

    def __init__(self, family: Family, config: SchedulerConfig, journal: Journal | None = None) -> None:
        self.family = family
        self.config = config
        self._append_rows = config.append_rows  # of a step while some reply decodes
        self.journal = journal  # notes every call that changes something; None: nothing is noted
        self._reserved: dict[int, int] = {}  # rows that streams have declared as their most
        self.pool = PagePool(config.pages, config.page_tokens)
        self.streams: dict[int, StreamState] = {}
        self.limits = Limits(config.pages * config.page_tokens, family.max_positions)
        self._slots = list(range(config.slots - 1, -1, -1))
        self._ages = itertools.count(1)
        self._numbers = itertools.count(1)
        self._edits: list[TableEdit] = []  # changes since the last plan
        self._drops: list[int] = []
        self._talks: dict[int, Conversation] = {}
        self.kept = Kept(config.span_bytes)
        self._host_used = 0
        self._spells_apart = False

    # Streams' lives.

    def open(self, id: int, request: Request) -> tuple[str, str]:
        """Begin a stream; returns (format in force, why). Raises InputError where all slots are taken."""
        if not self._slots:
            raise InputError(f"expected at most {self.config.slots} open streams, got one more")
        format, why = choose(request.format, self.family.live_trained)
        self.family.check_format(format)
        self.family.check_rate(request.video_fps, request.audio_in_video)
        seconds = self.family.grid_seconds(request.video_fps)
        layout = Layout(self.family, format, request.positions, seconds, request.system, trusted=request.control_tokens)
        limits = self._admit(id, request)
        self._note("open", id, request)
        self._add(StreamState(id, self._slots.pop(), request, layout, PageTable(self.pool)), limits)
        return format.name, why

    def _admit(self, id: int, request: Request) -> Limits:
        """The limits of a new stream. What it declares as its most is reserved, or refused with the numbers."""
        declared = request.reserve_tokens
        if declared is None:
            return self.limits
        free = self.limits.rows - sum(self._reserved.values())
        if declared > free:
            raise InputError(f"reserve_tokens: expected at most {free} of {self.limits.rows} tokens, got {declared}")
        self._reserved[id] = declared
        return Limits(declared, self.limits.positions)

    def fork(self, id: int, twin: int, before: int, again: SamplingParams | None = None) -> tuple[str, str]:
        """Begin stream `twin` as a copy of stream `id` as it stands, with its inputs before number `before`.

        With `again` the twin goes back to the end of the request's prompt and begins the reply to it anew. Returns
        (format in force, why), as `open` does.
        """
        if not self._slots:
            raise InputError(f"expected at most {self.config.slots} open streams, got one more")
        stream = self.streams[id]
        if again is not None and stream.begun is None:
            raise InputError("again: expected a stream whose prompt has a reply, got one that has none yet")
        if stream.away and not stream.whole:
            raise InputError(
                "fork: expected a stream whose pages are in the cache, got one that is moved to host memory"
            )
        limits = self._admit(twin, stream.request)
        self._note("fork", id, twin, before, again)
        if stream.away:
            self._recall_for_fork(stream)
        state = stream.fork(twin, self._slots.pop(), before)
        begun = None if again is None else state.rewind()
        self._add(state, limits)
        if begun is not None and again is not None:
            self._renew(state)
            self._talks[twin].begin(begun.seq, again)
        self._edits.append(TableEdit(state.slot, 0, list(state.table.pages)))
        self.kept.add(state.laid)
        return state.layout.format.name, f"fork of stream {id}"

    def close(self, id: int) -> None:
        """End a stream and free what it holds.

        A reply that runs ends with it, of which no event tells, and events that nobody has taken are lost: who closes a
        stream takes them before, and tells its client of the end. Does nothing for an unknown stream.
        """
        stream = self.streams.pop(id, None)
        if stream is None:
            return
        self._note("close", id)
        self._reserved.pop(id, None)
        self._forget_away(stream)
        stream.table.clear()
        self._slots.append(stream.slot)
        del self._talks[id]
        self.kept.remove(stream.laid)

    def spell_apart(self) -> None:
        """From now on the ids of long texts are not found here, where all streams would wait: `unspelled` tells which
        are wanted, `spelt` takes them."""
        self._note("spell_apart")
        self._spells_apart = True

    def unspelled(self) -> list[tuple[int, Unspelled]]:
        """The long texts that streams wait for, by stream."""
        return [(id, stream.unspelled) for id, stream in self.streams.items() if stream.unspelled is not None]

    def spelt(self, id: int, text: str, behind: bool, ids: list[int] | None) -> None:
        """The ids of a text that was `unspelled`; None where the tokenizer refuses it."""
        if id in self.streams:
            self._note("spelt", id, text, behind, ids)
            self._talks[id].spelt(text, behind, ids)

    def _add(self, stream: StreamState, limits: Limits) -> None:
        if self._spells_apart and stream.ready is None:
            stream.ready = {}
        self.streams[stream.id] = stream
        self._talks[stream.id] = Conversation(self.family, stream, limits, self.kept)

    def _note(self, call: str, *arguments: Any) -> None:
        if self.journal is not None:
            self.journal.note(call, *arguments)

    def park(self, id: int, parked: bool) -> None:
        """Feed nothing to a stream whose client does not read, or go on."""
        if id in self.streams:
            self._note("park", id, parked)
            self.streams[id].parked = parked

    # Inputs, in order.

    def accept(self, id: int, input: Input) -> None:
        """The next input of a stream; dropped where the stream has ended."""
        self._note("accept", id, input)
        self._tell(id, lambda talk: talk.accept(input.copy()))

    def spans(self, id: int, spans: list[Span | Prompt]) -> None:
        """Spans of inputs that were accepted; those of a stream that has ended are dropped."""
        self._note("spans", id, list(spans))
        self._tell(id, lambda talk: talk.spans(spans))

    def resolve(self, id: int, seq: int) -> None:
        """No further spans will come for input `seq`."""
        self._note("resolve", id, seq)
        self._tell(id, lambda talk: talk.resolve(seq))

    def refuse(self, id: int, error: Error) -> None:
        """Something of input `error.seq` could not be decoded or encoded, as its client has been told."""
        self._note("refuse", id, error)
        self._tell(id, lambda talk: talk.refuse(error))

    def hurry(self, id: int, seq: int) -> None:
        """Let question `seq` wait no longer for media before it that is still being decoded or encoded."""
        self._note("hurry", id, seq)
        self._tell(id, lambda talk: talk.hurry(seq))

    def interrupt(self, id: int, at: int | None = None, reply: int | None = None, until: int | None = None) -> None:
        """End the running reply behind its token `at`, or behind its last; keep its KV up to there. `reply` and `until`
        as in `Conversation.interrupt`."""
        self._note("interrupt", id, at, reply, until)
        self._tell(id, lambda talk: talk.interrupt(at, reply, until))

    def _tell(self, id: int, change: Callable[[Conversation], None]) -> None:
        talk = self._talks.get(id)
        if talk is None:
            return
        self._renew(talk.stream)
        change(talk)

    def _renew(self, stream: StreamState) -> None:
        """A stream that has nothing to do begins a new need."""
        if stream.past == stream.rows or stream.pausing:
            stream.since = next(self._ages)

    # One step.

    def pace(self, append_rows: int) -> None:
        """How many rows a step may append while some reply decodes, at most what the configuration says."""
        if append_rows != self._append_rows:
            self._note("pace", append_rows)
            self._append_rows = min(append_rows, self.config.append_rows)

    def plan(self) -> Plan | None:
        """The next step, or None where there is nothing to do."""
        self._note("step")
        needs = self._needs()
        budget = Budget(self.config.step_rows, self._append_rows, self.config.page_tokens)
        decision = choose_rows(needs, self.pool.free, budget)
        # Host memory goes first to those that cannot be fed anew.
        moved = sorted((self.streams[id] for id in decision.moved), key=lambda stream: stream.whole)
        saves = [self._move_away(stream) for stream in moved]
        copies: list[tuple[int, int]] = []
        restores: list[tuple[int, list[int]]] = []
        feeds: list[Feed] = []
        for id, count in decision.grants:
            stream = self.streams[id]
            if stream.away:
                restores.append(self._bring_back(stream))
            first, rows = stream.fed, stream.take(count)
            edit = stream.table.append(count)
            copies += edit.copies
            if edit.pages:
                self._edits.append(TableEdit(stream.slot, edit.index, edit.pages))
            feeds.append(Feed(id, stream.slot, first, rows, self._draw(stream)))
        if not feeds and not self._drops:
            return None
        edits, self._edits = self._edits, []
        drops, self._drops = self._drops, []
        kept = [save for save in saves if save is not None]
        return Plan(next(self._numbers), kept, copies, edits, restores, drops, feeds)

    def commit(self, plan: Plan, result: Result) -> None:
        """A step is done: events take effect, sampled tokens are laid. Streams that failed are to be closed then."""
        tokens = iter(zip(result.tokens, result.likely or [None] * len(result.tokens), strict=True))
        lost = {*result.failed, *result.poisoned}
        for feed in plan.feeds:
            if feed.stream in lost:
                continue
            token, likely = (None, None) if feed.draw is None else next(tokens)
            stream = self.streams.get(feed.stream)
            if stream is None:
                continue
            for row, run in stream.passed():
                self._report(stream, row, run)
            talk = self._talks[feed.stream]
            if token is None:
                self._renew(stream)
            else:
                talk.sampled(token, likely)
            talk.advance()
        self.kept.let_go(self.streams.values())

    def events(self) -> list[tuple[int, Event]]:
        """What has happened since the last call, per stream in order."""
        found = [(stream.id, event) for stream in self.streams.values() for event in stream.events]
        for stream in self.streams.values():
            stream.events = []
        return found

    def transcript(self, id: int) -> list[TranscriptRow]:
        return self.streams[id].transcript()

    def check(self) -> None:
        """The laws of conservation: raises PenstockError where held pages are not those that live streams reach, or
        counted bytes not those of what is laid."""
        self.pool.check(stream.table for stream in self.streams.values())
        away = sum(stream.away for stream in self.streams.values())
        if away != self._host_used:
            raise PenstockError(f"host copies: expected {away} pages by walk, got {self._host_used}")
        for stream in self.streams.values():
            held = sum(run.nbytes for run in stream.laid)
            if held != stream.host_bytes:
                raise PenstockError(f"stream {stream.id}: expected {held} bytes by walk, got {stream.host_bytes}")

    def statistics(self) -> dict[str, Any]:
        """`span_bytes`: embeddings that are kept to feed streams anew, each once; `bytes_by_stream`: what each stream
        holds in host memory, with the embeddings that it shares with forks."""
        return {
            "streams": len(self.streams),
            "pages": self.pool.pages,
            "pages_free": self.pool.free,
            "pages_host": self._host_used,
            "span_bytes": self.kept.bytes,
            "bytes_by_stream": {id: stream.host_bytes for id, stream in self.streams.items()},
        }

    # Planning.

    def _needs(self) -> list[Need]:
        """What every stream needs. Those that cannot be fed anew are movable as far as host memory reaches for all."""
        needs, left = [], self.config.host_pages - self._host_used
        for stream in self.streams.values():
            pages = len(stream.table.pages)
            needs.append(self._need(stream, stream.whole or pages <= left))
            left -= pages if not stream.whole and pages <= left else 0
        return needs

    def _need(self, stream: StreamState, movable: bool) -> Need:
        table = stream.table
        size = self.config.page_tokens
        length = stream.fed
        pieces: tuple[tuple[int, bool], ...] = ()
        token = False
        if stream.rows > stream.past and not stream.parked and not stream.pausing:
            runs = stream.waiting(self.config.step_rows)
            pieces = tuple((len(run), run.atomic) for run in runs)
            token = stream.reply is not None and bool(stream.reply.places) and stream.reply.places[-1] == length
        return Need(
            stream.id,
            stream.since,
            pieces,
            token,
            room=-length % size,
            copy=int(not stream.away and length % size != 0 and self.pool.shared(table.pages[-1])),
            away=stream.away,
            own=table.own,
            shared=table.shared,
            movable=movable,
        )

    def _draw(self, stream: StreamState) -> Draw | None:
        if stream.reply is None or stream.table.length < stream.rows:
            return None
        return stream.reply.draw()

    def _move_away(self, stream: StreamState) -> tuple[int, list[int]] | None:
        """Take a stream's pages: to host memory, or, where that is full, to be fed anew from what it keeps."""
        pages = list(stream.table.pages)
        rows = stream.table.length
        stream.table.clear()
        if self._host_used + len(pages) > self.config.host_pages:
            stream.head, stream.cold = 0, max(stream.cold, rows)
            return None
        stream.away, stream.away_rows = len(pages), rows
        self._host_used += len(pages)
        return stream.id, pages

    def _bring_back(self, stream: StreamState) -> tuple[int, list[int]]:
        edit = stream.table.append(stream.away_rows)
        self._edits.append(TableEdit(stream.slot, 0, edit.pages))
        self._host_used -= stream.away
        stream.away = 0
        return stream.id, edit.pages

    def _recall_for_fork(self, stream: StreamState) -> None:
        """A stream whose pages are away is forked by feeding both anew."""
        stream.head, stream.cold = 0, stream.past
        self._forget_away(stream)

    def _forget_away(self, stream: StreamState) -> None:
        if stream.away:
            self._drops.append(stream.id)
            self._host_used -= stream.away
            stream.away = 0

    # Committing.

    def _report(self, stream: StreamState, row: int, run: Rows) -> None:
        if run.seen is None:
            return
        stream.newest = run.seen
        if row + len(run) > stream.announced:
            stream.announced = row + len(run)
            seen = run.seen
            place = int(run.positions[:, 0].min())
            stream.events.append(Appended(seen.seq, seen.modality, seen.start_us, seen.stop_us, row, len(run), place))
