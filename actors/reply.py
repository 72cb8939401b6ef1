"""The client's side of one reply. Knows its tokens and who has read how many; no events, no messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self

from ..errors import InputError, PenstockError
from ..streams.event import Token


class Speech:
    """The tokens of one reply while it comes, and how it ends. The same in process and over the network.

    Several tasks may read it, and each sees all tokens.
    """

    def __init__(self, id: int, seq: int | None = None, held: bool = False) -> None:
        self.id = id
        self.seq = seq  # the number of the question among the stream's inputs, once it is known
        self.held = held  # it does not end by itself while media is expected
        self.reason: str | None = None  # how it ended; None while it runs
        self.error: PenstockError | None = None  # what it ended with
        self.rest = ""  # what follows its last token: text that a stop string had held back
        self.since_us: int | None = None  # media before this time had left the window when it ended
        self._tokens: list[Token] = []
        self._more = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Token]:
        """The tokens from the first on, as `Token`. The loop ends when the reply does.

        Raises the error that the reply ended with, if it did. A cancelled wait has taken no token. An interrupt
        may still cut a token that was read: `ReplyDone` says how many the reply keeps.
        """
        return _Reader(self)

    async def text(self) -> str:
        """The complete text, when the reply has ended.

        Raises the error of the stream if the reply ended with one, and InputError for a held reply that runs, because
        it has no end to wait for. A cancelled wait changes nothing.
        """
        if self.held and self.reason is None:
            raise InputError(
                "text(): expected a reply that ends by itself, got one that is held open (hold=True): read its tokens "
                "with `async for`, or end it first with `stream.interrupt()` or `stream.end()`"
            )
        async for _ in self:
            pass
        return "".join(token.text for token in self._tokens) + self.rest

    def token(self, place: int) -> Token | None:
        """Token number `place` of those that are here, for somebody who reads it; None where there is none yet."""
        return self._tokens[place] if place < len(self._tokens) else None

    async def more(self) -> None:
        """Wait for a token or for the end."""
        self._more.clear()
        await self._more.wait()

    def _put(self, token: Token) -> None:
        self._tokens.append(token)
        self._more.set()

    def _end(self, reason: str, rest: str, error: PenstockError | None, since_us: int | None) -> None:
        self.reason, self.rest, self.error, self.since_us = reason, rest, error, since_us
        self._more.set()


class Reply(Speech):
    """One reply while it comes. Several tasks may read it, and each sees all tokens.

    In a fork, a reply that was running begins with the next token after the fork.

    id: its number in the stream: 1, 2, 3, ...
    seq: the number of the question that it answers.
    held: the reply is held open: it does not end by itself while media is expected.
    reason: why it ended: "stop", "length", "interrupted", "overtaken" or "error" (`ReplyDone`). `None` while it runs.
    error: the error that it ended with, which mostly is that of its stream, otherwise `None`.
    taken: how many of its tokens somebody has read. An interrupt without `at` keeps so many.
    rest: words that follow its last token. They were held back because they could have become a stop string.
    since_us: media before this time had left the stream's window when the reply ended, in microseconds on the stream's
        clock. `None` while it runs, and if no media had left (`ReplyDone`).
    """

    seq: int

    def __init__(self, id: int, seq: int, read: Callable[[], None], held: bool = False, first: int = 0) -> None:
        super().__init__(id, seq, held)
        self.taken = first  # tokens that somebody has read
        self.rests = False  # it has said what there is to say for now
        self._read = read  # called when somebody reads
        self._first = first
        self._held: list[Token] = []  # tokens after `_limit`, sent only where the reply turns out to keep them
        self._limit: int | None = None

    @property
    def unread(self) -> int:
        return max(0, self._first + len(self._tokens) - self.taken)

    @property
    def count(self) -> int:
        """How many tokens it has so far, those before a fork included."""
        return self._first + len(self._tokens)

    def put(self, token: Token) -> bool:
        """Take the next token; False where it lies after an interrupt."""
        self.rests = False
        if self._limit is not None and token.index >= self._limit:
            self._held.append(token)
            return False
        self._put(token)
        return True

    def hold(self, keep: int) -> None:
        """The reply is about to be cut after its first `keep` tokens: the others are not told."""
        self._limit = keep if self._limit is None else min(self._limit, keep)
        place = max(0, self._limit - self._first)
        self._held = self._tokens[place:] + self._held
        del self._tokens[place:]

    def end(
        self,
        reason: str,
        keep: int | None = None,
        rest: str = "",
        error: PenstockError | None = None,
        since_us: int | None = None,
    ) -> None:
        """It has ended with `keep` tokens (None: those that were told) and the words `rest` after them."""
        if keep is not None:
            self._tokens = (self._tokens + self._held)[: max(0, keep - self._first)]
            self.taken = min(self.taken, keep)
        self._held = []
        self._end(reason, rest, error, since_us)

    def token(self, place: int) -> Token | None:
        """As of any speech, and it is marked as read."""
        token = super().token(place)
        if token is not None:
            self.taken = max(self.taken, self._first + place + 1)
            self._read()
        return token


class _Reader:
    """One reader's place in a reply."""

    def __init__(self, reply: Speech) -> None:
        self._reply = reply
        self._place = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token:
        while (token := self._reply.token(self._place)) is None:
            if self._reply.reason is not None:
                if self._reply.error is not None:
                    raise self._reply.error
                raise StopAsyncIteration
            await self._reply.more()
        self._place += 1
        return token
