"""Which tokens are guessed in a step, and what becomes of them.

A reply that speaks may have guesses behind its newest token: their rows are computed in the same step, a token is drawn
behind each, and those up to the first wrong guess are said. Each of these takes effect as if it came from a step of its
own. Where something else happens to the stream at one of them, those behind it are let go, and drawn again. So a reply
says what it would say without guesses.

In: feeds, conversations, what a step gave. Out: feeds with guesses. It chooses no streams, and takes pages only of
those that are free until the step is done.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from ..command import PromptInput
from ..conversation.conversation import Conversation
from ..conversation.reply import ReplyState
from ..conversation.rules import Life
from ..conversation.state import StreamState
from ..plan import Drawn, Feed, Guesses, TableEdit
from .chance import Chance
from .lookup import Script, continued
from .reading import DraftReading

# What a guess costs until that was measured, in tokens that a reply says meanwhile.
_COST = 0.1
# Every so many steps have no guesses: what a step takes then is measured, too.
_PLAIN_EVERY = 64


class _Known:
    """Of one stream."""

    def __init__(self) -> None:
        self.chance, self.script, self.reading = Chance(), Script(), DraftReading()


class Guessing:
    """Of one scheduler. `tokens`: the most guesses of a stream in a step; 0: there are none. `drafts`: the draft model
    finds them; else they are what followed the same words before. `cost`: what one guess costs, as a share of a step
    without."""

    def __init__(self, tokens: int, step_rows: int, drafts: bool) -> None:
        self._most, self._step_rows, self._drafts = tokens, step_rows, drafts
        self.cost = _COST
        self._steps = 0
        self._streams: dict[int, _Known] = {}
        self._guessed = self._right = 0
        self.stayed: list[tuple[int, int]] = []  # guesses whose rows have stayed in the last step, by stream

    def forget(self, stream: int) -> None:
        """It has ended."""
        self._streams.pop(stream, None)

    def fork(self, stream: int, twin: int) -> None:
        """The twin has the same pages, which the draft model has read as far."""
        if stream in self._streams:
            self._streams[twin] = _Known()
            self._streams[twin].reading = self._streams[stream].reading.copy()

    def moved(self, streams: list[int]) -> None:
        """These have given up their pages."""
        for stream in streams:
            if stream in self._streams:
                self._streams[stream].reading = DraftReading()

    def statistics(self) -> dict[str, float]:
        """`guesses`: tokens that were guessed; `guesses_right`: those of them that were right with all before them;
        `guess_cost`: what one adds to a step, as a share of it."""
        return {"guesses": self._guessed, "guesses_right": self._right, "guess_cost": self.cost}

    def add(self, feeds: list[Feed], talks: Mapping[int, Conversation]) -> list[Feed]:
        """The feeds of a step, with guesses where they are worth it. A step that appends has none, since those whose
        rows these are wait for it."""
        if not self._most or any(feed.draw is None or len(feed.rows) > 1 or len(feed.rows[0]) > 1 for feed in feeds):
            return feeds
        self._steps += 1
        if not self._steps % _PLAIN_EVERY:
            return feeds
        room = self._step_rows - len(feeds)
        added = []
        for feed in feeds:
            guesses = self._guesses(talks[feed.stream], room, self.cost * len(feeds))
            if guesses is not None:
                room -= len(guesses.draws) + sum(len(run) for run in guesses.unread)
                feed = msgspec.structs.replace(feed, guesses=guesses)
            added.append(feed)
        return added

    def _guesses(self, talk: Conversation, room: int, cost: float) -> Guesses | None:
        stream, reply = talk.stream, talk.stream.reply
        assert reply is not None
        if not reply.ids or reply.guide is not None or _awaits(stream):
            return None
        known = self._streams.setdefault(stream.id, _Known())
        count = known.chance.worth(min(self._most, room, _fitting(talk, reply)), cost)
        if count < 1:
            return None
        if self._drafts:
            return self._drafted(stream, reply, known.reading, count, room)
        ids = continued(known.script.read(stream), count)
        return _behind(stream, reply, len(ids), ids) if ids else None

    def _drafted(
        self, stream: StreamState, reply: ReplyState, reading: DraftReading, count: int, room: int
    ) -> Guesses | None:
        """What the draft model has not read it reads first, as many rows as a step has room for."""
        if stream.fronts is not None:
            return None
        last, first = stream.fed - 1, reading.upto(stream)
        unread = reading.unread(stream, last, room)
        upto = first + sum(len(run) for run in unread)
        count = min(count, room - (upto - first)) if upto == last else 0
        if not count:
            reading.reads(stream, upto)
        return msgspec.structs.replace(_behind(stream, reply, count), unread=unread, first=first)

    def take(self, talk: Conversation, feed: Feed | None, drawn: list[Drawn]) -> None:
        """The tokens of a feed take effect, one after the other. Without a feed the stream's rows came back."""
        if feed is None or feed.guesses is None:
            talk.stepped(*(drawn[0] if drawn else (None, None)))
            return
        stream, reply, begin = talk.stream, talk.stream.reply, talk.stream.begin
        guesses, right, stayed, first = len(feed.guesses.draws), len(drawn) - 1, 0, stream.fed
        known = self._streams[stream.id]
        if guesses:
            known.chance.learn(right, guesses)
        self._guessed, self._right = self._guessed + guesses, self._right + right
        talk.stepped(*drawn[0])
        for one in drawn[1:]:
            goes_on = stream.reply is reply and reply is not None and reply.life is Life.SPEAKING
            if not goes_on or stream.begin != begin or stream.rows != stream.fed + 1:
                break
            stream.table.append(1)  # the row of the guess, which was right
            stream.report()
            talk.stepped(*one)
            stayed += 1
        stream.table.trim()
        if self._drafts and guesses:  # the last guess was not read
            known.reading.reads(stream, min(first + min(stayed, guesses - 1), stream.fed))
        self.stayed.append((stream.id, stayed))


def _behind(stream: StreamState, reply: ReplyState, count: int, ids: tuple[int, ...] = ()) -> Guesses:
    """So many guesses behind the newest token, with pages for their rows."""
    edit = stream.table.reserve(count)
    if edit.pages:
        stream.changes.edits.append(TableEdit(stream.slot, edit.index, edit.pages))
    first = stream.layout.cursor.reply_next
    positions = np.broadcast_to(np.arange(first, first + count, dtype=np.int64), (3, count))
    return Guesses(positions, [reply.draw(1 + place) for place in range(count)], ids)


def _awaits(stream: StreamState) -> bool:
    """Something that has come goes in behind one of the next tokens."""
    first, layout = stream.inputs[0] if stream.inputs else None, stream.layout
    if first is None or isinstance(first.input, PromptInput) or layout.format.rests:
        return False
    return layout.step(first.input.event) is not None and (first.done or bool(first.spans))


def _fitting(talk: Conversation, reply: ReplyState) -> int:
    """How many rows of guesses a reply may have: as many tokens as it may say, and as the stream and the free pages
    hold."""
    stream, limits, pool = talk.stream, talk.limits, talk.stream.table.pool
    lowest = 0 if stream.fronts is None else stream.fronts.lowest
    positions = limits.positions + lowest - stream.layout.cursor.reply_next
    rows = min(limits.rows - stream.size - talk.reserve, positions)
    pages = -stream.table.length % pool.page_tokens + pool.free * pool.page_tokens
    return min(reply.params.max_tokens - len(reply.ids) - 1, rows, pages)
