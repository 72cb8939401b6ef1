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

from ..conversation.conversation import Conversation
from ..conversation.reply import ReplyState
from ..conversation.rules import Life
from ..conversation.state import StreamState
from ..plan import Drawn, Feed, Guesses, TableEdit
from .chance import Chance
from .lookup import Script, continued

# What a guess costs until that was measured, in tokens that a reply says meanwhile.
_COST = 0.1
# Every so many steps have no guesses: what a step takes then is measured, too.
_PLAIN_EVERY = 64


class Guessing:
    """Of one scheduler. `tokens`: the most guesses of a stream in a step; 0: there are none. `cost`: what one guess
    costs, as a share of a step without."""

    def __init__(self, tokens: int, step_rows: int) -> None:
        self._most, self._step_rows = tokens, step_rows
        self.cost = _COST
        self._steps = 0
        self._streams: dict[int, tuple[Chance, Script]] = {}
        self._guessed = self._right = 0
        self.stayed: list[tuple[int, int]] = []  # guesses whose rows have stayed in the last step, by stream

    def forget(self, stream: int) -> None:
        """It has ended."""
        self._streams.pop(stream, None)

    def statistics(self) -> dict[str, int]:
        """`guesses`: tokens that were guessed; `guesses_right`: those of them that were said."""
        return {"guesses": self._guessed, "guesses_right": self._right}

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
                room -= len(guesses.ids)
                feed = msgspec.structs.replace(feed, guesses=guesses)
            added.append(feed)
        return added

    def _guesses(self, talk: Conversation, room: int, cost: float) -> Guesses | None:
        stream, reply = talk.stream, talk.stream.reply
        assert reply is not None
        if not reply.ids or reply.guide is not None or _awaits(stream):
            return None
        chance, script = self._streams.setdefault(stream.id, (Chance(), Script()))
        count = chance.worth(min(self._most, room, _fitting(talk, reply)), cost)
        if count < 1:
            return None
        ids = continued(script.read(stream), count)
        if not ids:
            return None
        edit = stream.table.reserve(len(ids))
        if edit.pages:
            stream.changes.edits.append(TableEdit(stream.slot, edit.index, edit.pages))
        first = stream.layout.cursor.reply_next
        positions = np.broadcast_to(np.arange(first, first + len(ids), dtype=np.int64), (3, len(ids)))
        return Guesses(positions, [reply.draw(1 + place) for place in range(len(ids))], ids)

    def take(self, talk: Conversation, feed: Feed | None, drawn: list[Drawn]) -> None:
        """The tokens of a feed take effect, one after the other. Without a feed the stream's rows came back."""
        if feed is None or feed.guesses is None:
            talk.stepped(*(drawn[0] if drawn else (None, None)))
            return
        stream, reply, begin = talk.stream, talk.stream.reply, talk.stream.begin
        guesses, right, stayed = len(feed.guesses.draws), len(drawn) - 1, 0
        if stream.id in self._streams:
            self._streams[stream.id][0].learn(right, guesses)
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
        self.stayed.append((stream.id, stayed))


def _awaits(stream: StreamState) -> bool:
    """Something that has come is to act next."""
    first = stream.inputs[0] if stream.inputs else None
    return first is not None and (first.done or bool(first.spans) or first.prompt is not None)


def _fitting(talk: Conversation, reply: ReplyState) -> int:
    """How many rows of guesses a reply may have: as many tokens as it may say, and as the stream and the free pages
    hold."""
    stream, limits, pool = talk.stream, talk.limits, talk.stream.table.pool
    rows = min(limits.rows - stream.size - talk.reserve, limits.positions - stream.layout.cursor.reply_next)
    pages = -stream.table.length % pool.page_tokens + pool.free * pool.page_tokens
    return min(reply.params.max_tokens - len(reply.ids) - 1, rows, pages)
