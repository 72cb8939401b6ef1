"""Who goes next and who holds what: the one owner of streams' lives and of pages. Plain Python: no tensors are computed here.

What comes in: accepted inputs, spans, interrupts. What goes out: a `Plan` for each step and, when its `Result` is committed,
events. Calls fall between steps only: after `plan()` comes `commit()`, then anything else. It knows no model, no clock and no
sockets.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec

from ..codecs.errors import InputError, PenstockError
from ..streams.event import Appended, Error, Event, ReplyDone, ReplyStarted, Token
from ..streams.format import State, choose
from ..streams.request import Request, SamplingParams
from .detokenize import Detokenizer
from .family import Family
from .layout import Layout
from .pages import PagePool, PageTable, Sequence
from .plan import Draw, Feed, Plan, Result, TableEdit
from .policy import Budget, Need
from .policy import plan as choose_rows
from .reply import Reply, Splice
from .span import Prompt, Rows, Span
from .stream import Input, Limits, StreamState, TranscriptRow

class SchedulerConfig(msgspec.Struct, frozen=True):
    """Sizes, fixed at start.

    host_pages: how many pages may lie in host memory. span_bytes: how many bytes of spans are kept to feed a stream anew; when
    it is more, the oldest are let go, and such a stream can only be moved to the host whole.
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

    def __init__(self, family: Family, config: SchedulerConfig) -> None:
        self.family = family
        self.config = config
        self.pool = PagePool(config.pages, config.page_tokens)
        self.streams: dict[int, StreamState] = {}
        self.limits = Limits(config.pages * config.page_tokens, family.max_positions)
        self._slots = list(range(config.slots - 1, -1, -1))
        self._ages = itertools.count(1)
        self._numbers = itertools.count(1)
        self._edits: list[TableEdit] = []  # changes since the last plan
        self._drops: list[int] = []
        self._kept_bytes = 0
        self._host_used = 0
        # The closing ids of a turn, one row for a token that is still to be fed, and one for a first token.
        self.reserve = len(family.turn_ids["assistant_end"]) + 2

    # Streams' lives.

    def open(self, id: int, request: Request) -> tuple[str, str]:
        """Begin a stream; returns (format in force, why). Raises InputError where all slots are taken."""
        if not self._slots:
            raise InputError(f"expected at most {self.config.slots} open streams, got one more")
        format, why = choose(request.format, self.family.live_trained)
        self.family.check_format(format.name)
        layout = Layout(self.family, format, request.positions, self.family.grid_seconds(request.video_fps), request.system)
        sequence = Sequence({"full": PageTable(self.pool)})
        self.streams[id] = StreamState(id, self._slots.pop(), request, layout, sequence)
        return format.name, why

    def fork(self, id: int, twin: int, before: int) -> tuple[str, str]:
        """Begin stream `twin` as a copy of stream `id` as it stands, with its inputs before number `before`.

        Returns (format in force, why), as `open` does.
        """
        if not self._slots:
            raise InputError(f"expected at most {self.config.slots} open streams, got one more")
        stream = self.streams[id]
        if stream.away:
            self._recall_for_fork(stream)
        state = self.streams[twin] = stream.fork(twin, self._slots.pop(), before)
        self._edits.append(TableEdit(state.slot, 0, list(state.sequence.tables["full"].pages)))
        self._count_kept(state.laid)
        return state.layout.format.name, f"fork of stream {id}"

    def close(self, id: int) -> None:
        """End a stream and free what it holds. A reply that runs ends "interrupted". Does nothing for an unknown stream."""
        stream = self.streams.pop(id, None)
        if stream is None:
            return
        self._forget_away(stream)
        stream.sequence.clear()
        self._slots.append(stream.slot)
        self._kept_bytes -= sum(_bytes(run) for run in stream.laid)

    def park(self, id: int, parked: bool) -> None:
        """Feed nothing to a stream whose client does not read, or go on."""
        if id in self.streams:
            self.streams[id].parked = parked

    # Inputs, in order.

    def accept(self, id: int, input: Input) -> None:
        """The next input of a stream. Where it is not `done`, spans may follow, and `resolve` ends them."""
        if id not in self.streams:
            return
        stream = self.streams[id]
        stream.inputs.append(input)
        self._advance(stream)

    def spans(self, id: int, spans: list[Span | Prompt]) -> None:
        """Spans of inputs that were accepted; those of a stream that has ended are dropped."""
        if id not in self.streams:
            return
        stream = self.streams[id]
        for span in spans:
            for input in stream.inputs:
                if isinstance(span, Prompt) or input.seq == span.seq:
                    input.spans.append(span)
                    break
        self._advance(stream)

    def resolve(self, id: int, seq: int) -> None:
        """No further spans will come for input `seq`."""
        if id not in self.streams:
            return
        stream = self.streams[id]
        for input in stream.inputs:
            if input.seq == seq:
                input.done = True
        self._advance(stream)

    def hurry(self, id: int, seq: int) -> None:
        """Let question `seq` wait no longer for media before it that is still being decoded or encoded."""
        if id not in self.streams:
            return
        stream = self.streams[id]
        input = next((input for input in stream.inputs if input.seq == seq), None)
        if input is None:
            return
        if not input.done:  # what it flushes comes behind it
            rest = Input(seq, "media", done=False)
            stream.inputs.insert(stream.inputs.index(input) + 1, rest)
            input.done = True
        before = itertools.takewhile(lambda other: other is not input, stream.inputs)
        late = next((place for place, other in enumerate(before) if not other.done), None)
        if late is not None:
            stream.inputs.remove(input)
            stream.inputs.insert(late, input)
        self._advance(stream)

    def interrupt(self, id: int, at: int | None = None) -> None:
        """End the running reply behind its token `at` (None: behind its last), keep its KV up to there, and go on from it."""
        stream = self.streams.get(id)
        if stream is None or stream.reply is None:
            return
        self._cut(stream, self._keep(stream.reply, at), "interrupted")
        self._advance(stream)

    # One step.

    def plan(self) -> Plan | None:
        """The next step, or None where there is nothing to do."""
        needs = [self._need(stream) for stream in self.streams.values()]
        budget = Budget(self.config.step_rows, self.config.append_rows, self.config.page_tokens)
        decision = choose_rows(needs, self.pool.free, budget)
        saves = [self._move_away(self.streams[id]) for id in decision.moved]
        copies: list[tuple[int, int]] = []
        restores: list[tuple[int, list[int]]] = []
        feeds: list[Feed] = []
        for id, count in decision.grants:
            stream = self.streams[id]
            if stream.away:
                restores.append(self._bring_back(stream))
            first = stream.fed
            edit = stream.sequence.append(count)["full"]
            copies += edit.copies
            if edit.pages:
                self._edits.append(TableEdit(stream.slot, edit.index, edit.pages))
            feeds.append(Feed(id, stream.slot, first, self._take(stream, first, count), self._draw(stream)))
        if not feeds and not self._drops:
            return None
        edits, self._edits = self._edits, []
        drops, self._drops = self._drops, []
        kept = [save for save in saves if save is not None]
        return Plan(next(self._numbers), kept, copies, [], edits, restores, drops, feeds)

    def commit(self, plan: Plan, result: Result) -> None:
        """A step is done: events take effect, sampled tokens are laid."""
        tokens = iter(result.tokens)
        for feed in plan.feeds:
            token = None if feed.draw is None else next(tokens)
            stream = self.streams.get(feed.stream)
            if stream is None:
                continue
            for row, run in stream.passed():
                self._report(stream, row, run)
            stream.since = next(self._ages) if stream.fed == stream.rows and token is None else stream.since
            if token is not None:
                self._sampled(stream, token)
            self._advance(stream)
        self._let_go()

    def events(self) -> list[tuple[int, Event]]:
        """What has happened since the last call, per stream in order."""
        found = [(stream.id, event) for stream in self.streams.values() for event in stream.events]
        for stream in self.streams.values():
            stream.events = []
        return found

    def transcript(self, id: int) -> list[TranscriptRow]:
        return self.streams[id].transcript()

    def check(self) -> None:
        """The conservation law: raises PenstockError where held pages are not those that live streams reach."""
        self.pool.check(table for stream in self.streams.values() for table in stream.sequence.tables.values())
        away = sum(stream.away for stream in self.streams.values())
        if away != self._host_used:
            raise PenstockError(f"host copies: expected {away} pages by walk, got {self._host_used}")

    def statistics(self) -> dict[str, int]:
        return {
            "streams": len(self.streams),
            "pages": self.pool.pages,
            "pages_free": self.pool.free,
            "pages_host": self._host_used,
            "span_bytes": self._kept_bytes,
        }

    # Planning.

    def _need(self, stream: StreamState) -> Need:
        table = stream.sequence.tables["full"]
        size = self.config.page_tokens
        length = stream.fed
        pieces: tuple[tuple[int, bool], ...] = ()
        token = False
        if stream.rows > length and not stream.parked:
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
            movable=stream.whole or self._host_used + len(table.pages) <= self.config.host_pages,
        )

    def _take(self, stream: StreamState, first: int, count: int) -> list[Rows]:
        runs, left = [], count
        for place in range(stream.head, len(stream.laid)):
            run, start = stream.laid[place], stream.starts[place]
            run = run.part(max(0, first - start), len(run)) if start < first else run
            run = run.part(0, left) if len(run) > left else run
            runs.append(run)
            left -= len(run)
            if left == 0:
                break
        return runs

    def _draw(self, stream: StreamState) -> Draw | None:
        if stream.reply is None or stream.sequence.length < stream.rows:
            return None
        return stream.reply.draw()

    def _move_away(self, stream: StreamState) -> tuple[int, list[int]] | None:
        """Take a stream's pages: to host memory, or, where that is full, to be fed anew from what it keeps."""
        pages = list(stream.sequence.tables["full"].pages)
        rows = stream.sequence.length
        stream.sequence.clear()
        if self._host_used + len(pages) > self.config.host_pages:
            stream.head = 0
            return None
        stream.away, stream.away_rows = len(pages), rows
        self._host_used += len(pages)
        return stream.id, pages

    def _bring_back(self, stream: StreamState) -> tuple[int, list[int]]:
        edit = stream.sequence.append(stream.away_rows)["full"]
        self._edits.append(TableEdit(stream.slot, 0, edit.pages))
        self._host_used -= stream.away
        stream.away = 0
        return stream.id, edit.pages

    def _recall_for_fork(self, stream: StreamState) -> None:
        """A stream whose pages are away is forked by feeding both anew."""
        if not stream.whole:
            raise InputError("fork: expected a stream whose pages are in the cache, got one that is moved to host memory")
        self._forget_away(stream)
        stream.head = 0

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
            stream.events.append(
                Appended(seen.seq, seen.modality, seen.start_us, seen.stop_us, row, len(run), place)
            )

    def _sampled(self, stream: StreamState, id: int) -> None:
        reply = stream.reply
        assert reply is not None
        reply.held = False
        if id in self.family.stop_ids or id in reply.params.stop_token_ids:
            if stream.layout.format.holds and not stream.over and id not in reply.params.stop_token_ids:
                reply.held = True
            else:
                self._finish(stream, "stop")
            return
        index = len(reply.ids)
        text = reply.text.push(id)
        reply.ids.append(id)
        self._lay_token(stream, reply, id)
        stream.events.append(Token(reply.id, index, id, text, stream.newest))
        stopped = reply.text.stopped
        if stopped is not None:
            self._cut(stream, reply.text.kept(stopped), "stop")
        elif len(reply.ids) >= reply.params.max_tokens or self._full(stream):
            self._finish(stream, "length")

    def _lay_token(self, stream: StreamState, reply: Reply, id: int) -> None:
        rows = stream.layout.token(id)
        reply.places.append(stream.rows)
        reply.positions.append(int(rows.positions[0, 0]))
        stream.lay([rows])

    def _full(self, stream: StreamState) -> bool:
        """The next token would not leave room for the closing of its turn."""
        closing = self.reserve - 1
        return (
            stream.rows + closing > self.limits.rows or stream.layout.cursor.reply_next + closing > self.limits.positions
        )

    def _finish(self, stream: StreamState, reason: str, close: bool = True) -> None:
        reply = stream.reply
        assert reply is not None
        stream.reply = None
        stream.events.append(ReplyDone(reply.id, reason, len(reply.ids), reply.text.finish(len(reply.ids))))
        if close:
            stream.lay(stream.layout.end())

    def _keep(self, reply: Reply, at: int | None) -> int:
        """How many tokens stay when a reply is cut behind token `at`."""
        return len(reply.ids) if at is None else max(0, min(at + 1, len(reply.ids)))

    def _cut(self, stream: StreamState, keep: int, reason: str) -> None:
        """End a reply at its first `keep` tokens: the KV is truncated there, spans behind the cut are laid again in order."""
        reply = stream.reply
        assert reply is not None
        row, position, behind = reply.cut(keep)
        self._uncount_from(stream, row)
        stream.cut(row)
        self._truncate(stream, row)
        stream.layout.back_to(position)
        for splice in behind:
            rows = stream.layout.media(splice.input) if isinstance(splice.input, Span) else stream.layout.text(splice.input)
            stream.lay(rows)
            self._count_kept(rows)
        self._finish(stream, reason)

    def _truncate(self, stream: StreamState, row: int) -> None:
        if stream.away:
            stream.away_rows = min(stream.away_rows, row)
        elif row < stream.sequence.length:
            stream.sequence.truncate(row)

    # Inputs becoming rows.

    def _advance(self, stream: StreamState) -> None:
        """Let inputs act, in order, as far as their spans have come and the conversation allows."""
        if stream.fed == stream.rows:
            stream.since = next(self._ages)
        while stream.inputs:
            input = stream.inputs[0]
            if not self._act(stream, input):
                return
            stream.inputs.popleft()

    def _act(self, stream: StreamState, input: Input) -> bool:
        """Lay what has come of an input, then the input itself; True when that is done."""
        if input.kind == "prompt":
            return self._lay_prompt(stream, input)
        if not self._lay_media(stream, input) or not input.done:
            return False
        match input.kind:
            case "media":
                return True
            case "end":
                return self._end_media(stream)
            case _:
                return self._lay_words(stream, input)

    def _lay_media(self, stream: StreamState, input: Input) -> bool:
        while input.spans:
            if stream.layout.step("media") is None or self._mid_character(stream):
                return False
            span = input.spans.popleft()
            assert isinstance(span, Span)
            if self._laid(stream, input.seq, lambda layout, span=span: layout.media(span)) and stream.reply is not None:
                stream.reply.splices.append(Splice(len(stream.reply.ids), span))
        return True

    def _lay_prompt(self, stream: StreamState, input: Input) -> bool:
        if not input.spans:
            return input.done
        prompt = input.spans.popleft()
        assert isinstance(prompt, Prompt)
        if self._laid(stream, input.seq, lambda layout: layout.prompt(prompt)):
            self._start(stream, input)
        return True

    def _lay_words(self, stream: StreamState, input: Input) -> bool:
        reply, layout = stream.reply, stream.layout
        if reply is not None and input.kind in layout.format.cuts:
            self._cut(stream, self._keep(reply, input.at), "interrupted")
            reply = None
        if layout.step(input.kind) is None or self._mid_character(stream):
            return False
        if not input.text and (input.kind == "text" or layout.state is not State.USER):
            message = f"{input.kind}: expected words, or a question behind media in the open turn; got neither"
            stream.events.append(Error("input", message, input.seq))
        elif input.kind == "text":
            if self._laid(stream, input.seq, lambda layout: layout.text(input.text)) and reply is not None:
                reply.splices.append(Splice(len(reply.ids), input.text))
        elif self._laid(stream, input.seq, lambda layout: layout.ask(input.text)):
            if reply is not None:
                self._finish(stream, "stop", close=False)
            self._start(stream, input)
        return True

    def _end_media(self, stream: StreamState) -> bool:
        stream.over = True
        if stream.reply is not None and stream.reply.held:
            self._finish(stream, "stop")
        return True

    def _laid(self, stream: StreamState, seq: int, lay: Callable[[Layout], list[Rows]]) -> bool:
        """Lay rows if they fit; else tell the client, with the numbers, and go on without them."""
        try:
            self._count_kept(stream.lay_within(self.limits, lay, self.reserve))
        except PenstockError as error:
            stream.events.append(Error(error.code, str(error), seq))
            return False
        return True

    def _start(self, stream: StreamState, input: Input) -> None:
        stream.replies += 1
        params = input.params or stream.request.params
        text = Detokenizer(self.family.tokenizer, params.stop)
        stream.reply = Reply(stream.replies, input.seq, params, text, stream.rows, stream.layout.cursor.reply_next)
        stream.events.append(ReplyStarted(stream.replies, input.seq))

    def _mid_character(self, stream: StreamState) -> bool:
        """A running reply is inside a character: what is to be spliced waits for its end."""
        return stream.reply is not None and not stream.reply.held and stream.reply.text.open

    # What is kept to feed a stream anew.

    def _count_kept(self, rows: list[Rows]) -> None:
        self._kept_bytes += sum(_bytes(run) for run in rows)

    def _uncount_from(self, stream: StreamState, row: int) -> None:
        for place in range(len(stream.laid) - 1, -1, -1):
            if stream.starts[place] < row:
                break
            self._kept_bytes -= _bytes(stream.laid[place])

    def _let_go(self) -> None:
        """Keep the spans within their bytes: the oldest fed ones go first, of the stream that keeps most entries."""
        while self._kept_bytes > self.config.span_bytes:
            stream = max(self.streams.values(), key=lambda stream: stream.head - stream.kept_from, default=None)
            if stream is None or stream.kept_from >= stream.head:
                return
            run = stream.laid[stream.kept_from]
            if run.embeds is not None:
                self._kept_bytes -= _bytes(run)
                stream.laid[stream.kept_from] = msgspec.structs.replace(run, embeds=None)
                stream.whole = False
            stream.kept_from += 1


def _bytes(run: Rows) -> int:
    return 0 if run.embeds is None else run.embeds.numel() * run.embeds.element_size()
