"""Who goes next and who holds what: the one owner of streams' lives and of pages. Plain Python: no tensors are
computed here.

What comes in: commands (`engine/command.py`). What goes out: a `Plan` for each step and, when its `Result` is
committed, events. Commands fall between steps only: after `plan()` comes `commit()`, then anything else. It knows no
model, no clock and no sockets.
"""

from __future__ import annotations

import itertools
import logging
from typing import Any

import msgspec

from ...errors import InputError, PenstockError
from ...streams.event import Event, TranscriptRow
from ...streams.format import BY_NAME, Format, choose
from ...streams.requests.request import Request
from ..command import (
    AppendRows,
    Close,
    Command,
    Due,
    Fork,
    Freeze,
    GuessCost,
    LaidOut,
    Open,
    Park,
    Spans,
    Spelt,
    Thaw,
    Unfreeze,
    Yield,
)
from ..conversation.conversation import Conversation
from ..conversation.freezing import thaw
from ..conversation.going_back import check_reach, go_back
from ..conversation.kept import Kept
from ..conversation.laying import Limits
from ..conversation.layout import Layout
from ..conversation.reply import guide_together
from ..conversation.rules import What
from ..conversation.silence import can_wait
from ..conversation.state import StreamState
from ..conversation.telling import tell
from ..conversation.twins import fork
from ..conversation.window import Sliding, bounds
from ..family import Family
from ..guessing.guessing import Guessing
from ..pages import PagePool, PageTable
from ..plan import Changes, Drawn, Feed, Plan, Result
from ..words.spelling import Unspelled
from .conservation import check
from .finding import Finding
from .freezing import Freezing
from .host import HostMemory
from .journal import Entry, Notes, Planned
from .needs import own_need, whole_needs
from .places import Places
from .policy import Budget, Decision, Need, within
from .policy import plan as choose_rows
from .precedence import Precedence

log = logging.getLogger("penstock.engine")


class SchedulerConfig(msgspec.Struct, frozen=True):
    """Sizes, fixed at start.

    host_pages: how many pages may lie in host memory. span_bytes: how many bytes of spans are kept to feed a stream
    again; when it is more, the oldest are let go, and such a stream can only be moved to the host whole. spell_apart:
    the ids of long texts are not found here, where all streams would wait, but come as `Spelt`. prefix_cache: streams
    go on with pages that hold their first rows already. guesses: the most tokens of a stream that are guessed in a
    step. drafts: the runner's draft model guesses them.
    """

    pages: int
    page_tokens: int
    slots: int = 256
    step_rows: int = 1024
    append_rows: int = 256
    host_pages: int = 1 << 16
    span_bytes: int = 1 << 30
    spell_apart: bool = False
    prefix_cache: bool = False
    guesses: int = 0
    drafts: bool = False


class Scheduler:
    """Streams, their pages, and the choice of the next step."""

    def __init__(self, family: Family, config: SchedulerConfig, journal: Notes | None = None) -> None:
        self.family = family
        self.config = config
        self._append_rows = config.append_rows  # of a step while some reply decodes
        self._yielding: dict[int, None] = {}  # streams whose replies wait for media where they can
        self._precedence = Precedence()
        self.journal = journal  # None: nothing is noted
        self.pool = PagePool(config.pages, config.page_tokens)
        self._finding = Finding(self.pool, config.prefix_cache)
        self.guessing = Guessing(config.guesses, config.step_rows, config.drafts)
        self.streams: dict[int, StreamState] = {}
        self.limits = Limits(config.pages * config.page_tokens, family.max_positions)
        self._places = Places(config.slots, self.limits)
        self._ages = itertools.count(1)
        self._numbers = itertools.count(1)
        self._changes = Changes()  # since the last plan
        self._talks: dict[int, Conversation] = {}
        self.kept = Kept(config.span_bytes)
        self._freezing = Freezing(self.kept)
        self._host = HostMemory(config.host_pages)

    def apply(self, command: Command) -> None:
        """Carry out a command; to be called between two steps. What is for a stream that has ended does nothing.

        Raises InputError where `Open`, `Fork` or `Thaw` is refused.
        """
        known = AppendRows(self._append_rows), GuessCost(self.guessing.cost), Yield([*self._yielding])
        if command in (*known, Due(self._precedence.due)):
            return
        self._note(command)
        match command:
            case Open():
                self._open(command)
            case Fork():
                self._fork(command)
            case Freeze():
                if command.stream in self.streams:
                    self._freezing.freeze(self.streams[command.stream], command)
            case Unfreeze(twin):
                self._freezing.let_go(twin)
                self._host.drop(twin)
            case Thaw():
                self._thaw(command)
            case Close(id):
                self._close(id)
            case AppendRows(rows):
                self._append_rows = min(rows, self.config.step_rows)
            case GuessCost(share):
                self.guessing.cost = share
            case Yield(streams):
                self._yielding = dict.fromkeys(streams)
            case Due(streams):
                self._precedence.due = streams
            case Park(id, parked):
                if id in self.streams:
                    self.streams[id].reads(What.PARKED if parked else What.READ)
            case Spelt(id, text, behind, ids):
                if id in self._talks:
                    self._talks[id].spelt(text, behind, ids)
            case _:
                self._come(command)
                talk = self._talks.get(command.stream)
                if talk is not None:
                    talk.stream.renew(next(self._ages))
                    tell(talk, command)

    def _come(self, command: Command) -> None:
        """What came from the encoder is counted, also where its stream has ended."""
        if isinstance(command, Spans):
            self.kept.come(command.spans)
        elif isinstance(command, LaidOut):
            self.kept.come(command.prompt)

    def _open(self, command: Open) -> None:
        format, why = choose(command.request.format, self.family.live_trained)
        stream, limits = self._new(command, command.request, format, why)
        self._add(stream, limits)

    def _thaw(self, command: Thaw) -> None:
        frozen = command.frozen
        like, limits = self._new(command, frozen.request, BY_NAME[frozen.format], frozen.why)
        try:
            stream = thaw(frozen.state, like, self.family, command.base)
            if stream.size > limits.rows:
                raise InputError(f"restore: expected a stream of at most {limits.rows} rows, got {stream.size}")
        except Exception:
            self._places.give(command.stream, like.slot)
            raise
        self._add(stream, limits)
        self.kept.handed([command.base + id for id in frozen.entries])
        self._host.thaw(stream)
        self.kept.add(stream.laid)
        self.kept.waits(stream.inputs)
        stream.renew(next(self._ages))
        self._talks[stream.id].advance()

    def turn_away(self, command: Thaw) -> None:
        """The stream does not begin: what was brought for it is let go."""
        self.kept.handed([command.base + id for id in command.frozen.entries])
        self._host.drop(command.stream)

    def _new(self, command: Open | Thaw, request: Request, format: Format, why: str) -> tuple[StreamState, Limits]:
        """A stream that has begun nothing, with its limits. Raises InputError where it cannot be."""
        self._places.check()
        self.family.check_format(format)
        self.family.check_media(request)
        bounds(request, self._places.limits(request), self.family, self.pool)
        seconds = self.family.grid_seconds(request.video_fps)
        layout = Layout(self.family, format, request.positions, seconds, request.system, trusted=request.control_tokens)
        tables, limits = self._places.take(command.stream, request)
        own = self._changes, why, self.config.spell_apart, self.family.data.stateful, command.wears
        return StreamState(command.stream, tables, request, layout, PageTable(self.pool), *own), limits

    def _fork(self, command: Fork) -> None:
        id, twin, again = command.stream, command.twin, command.again
        if id not in self.streams:
            raise InputError(f"fork: expected an open stream, got stream {id}, which has ended")
        stream = self.streams[id]
        mark = None if command.back is None else stream.marks.find(command.back)
        check_reach(stream, again is not None, mark)
        tables, limits = self._places.take(twin, stream.request)
        self._host.fork(stream, twin)
        self.guessing.fork(id, twin)
        state = fork(stream, twin, tables, command.before)
        begun = go_back(state, again is not None, mark)
        self._add(state, limits)
        if begun is not None and again is not None:
            state.renew(next(self._ages))
            self._talks[twin].begin(begun.seq, again)
        self.kept.add(state.laid)
        self.kept.waits(state.inputs)

    def _close(self, id: int) -> None:
        stream = self.streams.pop(id, None)
        if stream is None:
            return
        self._host.forget(stream)
        for table in stream.tables:
            table.clear()
        self._places.give(id, stream.slot)
        del self._talks[id]
        self.guessing.forget(id)
        self.kept.remove(stream.laid)
        self.kept.acted(stream.inputs)

    def unspelled(self) -> list[tuple[int, Unspelled]]:
        """The long texts that streams wait for, by stream: with `spell_apart` someone else cuts them into tokens, and
        brings them as `Spelt`."""
        return [(id, stream.unspelled) for id, stream in self.streams.items() if stream.unspelled is not None]

    def _add(self, stream: StreamState, limits: Limits) -> None:
        window = bounds(stream.request, limits, self.family, self.pool)
        sliding = None if window is None else Sliding(self.family, stream, limits, window, self.kept)
        self.streams[stream.id] = stream
        self._talks[stream.id] = Conversation(self.family, stream, limits, self.kept, sliding)

    def _note(self, entry: Entry) -> None:
        if self.journal is not None:
            self.journal.note(entry)

    # One step.

    def plan(self) -> Plan | None:
        """The next step, or None where there is nothing to do."""
        decision = self.decide()
        for id, _ in decision.grants:
            self._changes.edits += self._finding.chosen(self.streams[id])
        # Host memory goes first to those that cannot be fed again.
        moved = sorted((self.streams[id] for id in decision.moved), key=lambda stream: stream.whole)
        frozen, copied_away = self._freezing.moves()
        saves = [self._host.move(stream) for stream in moved]
        self.guessing.moved(decision.moved)
        copies: list[tuple[int, int]] = []
        restores: list[tuple[int, list[int]]] = []
        feeds: list[Feed] = []
        guide_together(self.family.grammars, (self.streams[id].reply for id, _ in decision.grants))
        for id, count in decision.grants:
            stream = self.streams[id]
            if stream.away:
                restores.append(self._host.bring(stream))
                if stream.rows == stream.fed or stream.pausing:
                    continue  # it came back for what has to leave
            feed, copied = stream.feed(count)
            feeds.append(feed)
            copies += copied
        feeds = self.guessing.add(feeds, self._talks)
        releases = self.kept.released()
        twins, drops = self._host.taken()
        twins += copied_away
        if not (feeds or restores or drops or releases or frozen or twins):
            return None
        changes = self._changes.taken()
        kept = [*frozen, *(save for save in saves if save is not None)]
        found = self._finding.taken()
        plan = Plan(
            *(next(self._numbers), kept, copies, changes.edits, restores, drops, feeds, releases, found),
            recalled=changes.recalled,
            twins=twins,
            states=changes.states,
        )
        self._note(Planned(plan.number))
        return plan

    def commit(self, plan: Plan, result: Result) -> list[tuple[int, PenstockError]]:
        """A step is done: events take effect, sampled tokens are laid. Streams that failed are to be closed then.

        Returns the streams whose own rules did not allow what came, and why: a fault of ours, for which they are to be
        closed. The others go on.
        """
        self._note(result)
        faults: list[tuple[int, PenstockError]] = []
        drawn, self.guessing.stayed = result.drawn(), []
        lost = {*result.failed, *result.poisoned}
        self._finding.spoiled(self.streams[id] for id in result.poisoned if id in self.streams)
        for feed in plan.feeds:
            if feed.stream in lost:
                continue
            tokens = [] if feed.draw is None else next(drawn)
            stream = self.streams.get(feed.stream)
            if stream is None:
                continue
            stream.report()
            if not tokens:
                stream.renew(next(self._ages))
            faults += self._stepped(feed.stream, feed, tokens)
            self._finding.fed(stream)
        fed = {feed.stream for feed in plan.feeds}
        for id, _ in plan.restores:  # some came back only so that rows can leave
            if id not in fed and id not in lost and id in self.streams:
                faults += self._stepped(id, None, [])
        self.kept.let_go(self.streams.values())
        self._freezing.commit(plan, result)
        return faults

    def _stepped(self, id: int, feed: Feed | None, tokens: list[Drawn]) -> list[tuple[int, PenstockError]]:
        try:
            self.guessing.take(self._talks[id], feed, tokens)
        except Exception as error:  # whatever it is, it is of this stream alone
            log.exception("stream %d: its step could not take effect", id)
            return [(id, PenstockError(f"a step could not take effect: {type(error).__name__}: {error}"))]
        return []

    def frozen(self) -> list[tuple[Freeze, StreamState | None]]:
        """Copies of streams whose pages have come to host memory, where they stay until `Unfreeze`; None where memory
        ran out."""
        return self._freezing.ready()

    def events(self) -> list[tuple[int, Event]]:
        """What has happened since the last call, per stream in order."""
        told = [stream for stream in self.streams.values() if stream.events]
        return [(stream.id, event) for stream in told for event in stream.take_events()]

    def transcript(self, id: int) -> list[TranscriptRow]:
        return self.streams[id].transcript()

    def check(self) -> None:
        """The laws of conservation. Raises PenstockError where they do not hold."""
        check(self.pool, self.kept, self._host.used, [*self.streams.values()], self._freezing.copies)

    def statistics(self) -> dict[str, Any]:
        """`span_bytes`: embeddings that are kept to feed streams again, each once; `bytes_by_stream`: what each stream
        holds in host memory, with the embeddings that it shares with forks; `window_by_stream`: how many rows it has,
        which one its window begins with, and since what media time, in microseconds."""
        return {
            "streams": len(self.streams),
            "pages": self.pool.pages,
            "pages_free": self.pool.free,
            "pages_host": self._host.used,
            **self._finding.statistics(),
            **self.guessing.statistics(),
            "span_bytes": self.kept.bytes,
            "bytes_by_stream": {id: stream.host_bytes for id, stream in self.streams.items()},
            "window_by_stream": {id: stream.reach() for id, stream in self.streams.items()},
        }

    # Planning.

    def _needs(self) -> list[Need]:
        """What every stream needs. Those that cannot be fed again are movable as far as host memory reaches for all."""
        streams = self.streams.values()
        needs = [(stream, self._own_need(stream), self._feeds(stream)) for stream in streams]
        return whole_needs(needs, self._host.room)

    def _own_need(self, stream: StreamState) -> Need:
        return own_need(stream, self._finding.ahead(stream), self.config.page_tokens, self.config.step_rows)

    def decide(self) -> Decision:
        """What the next step holds; streams that begin join pages that others hold. Most streams are idle, and pages
        are seldom short: then only those are looked at that have something to do."""
        budget = Budget(self.config.step_rows, self._append_rows, self.config.page_tokens)
        streams = self.streams.values()
        busy = [one for one in streams if (one.rows != one.table.length or one.returns) and self._feeds(one)]
        self._changes.edits += self._finding.look(busy)
        needs = [self._own_need(stream) for stream in busy]
        decision = within(needs, self.pool.free, budget, self._precedence.first(needs))
        decision = decision or choose_rows(self._needs(), self.pool.free, budget)
        self._precedence.took(decision)
        return decision

    def _feeds(self, stream: StreamState) -> bool:
        """Whether anything of it is to be fed now."""
        if stream.parked or ((stream.rows <= stream.past or stream.pausing) and not stream.returns):
            return False
        return stream.id not in self._yielding or not can_wait(self._talks[stream.id])
