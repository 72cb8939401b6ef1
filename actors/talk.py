"""What is the same of a stream in process and of one over the network. Knows neither engine nor wire."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

from ..streams.event import Event
from ..streams.requests.request import SamplingParams
from ..streams.requests.turns import TurnDetection
from .reply import Speech

R = TypeVar("R", bound=Speech)


class Talk(ABC, Generic[R]):
    """A stream as its client uses it: an async iterator of its events, and an async context manager that closes it."""

    @abstractmethod
    async def ask(
        self,
        question: str = "",
        params: SamplingParams | None = None,
        *,
        wait_ms: int | None = None,
        hold: bool | None = None,
        ignore_failed: bool = False,
        lookback: float | None = None,
    ) -> R:
        """Ask; returns the reply when it begins."""

    @abstractmethod
    async def interrupt(self, at: int | None = None) -> None:
        """End the running reply."""

    @abstractmethod
    async def listen(self, turn_detection: TurnDetection | None) -> None:
        """Listen for speech in this way, or no longer."""

    @abstractmethod
    async def fork(
        self, again: SamplingParams | None = None, *, back_to: int | None = None, back_to_us: int | None = None
    ) -> Self:
        """A copy of this stream as it is now, or as it was."""

    @abstractmethod
    async def close(self) -> None:
        """End the stream."""

    @abstractmethod
    async def __anext__(self) -> Event:
        """The next event."""

    async def watch(self, request: str = "", params: SamplingParams | None = None) -> R:
        """`ask` with a held reply: it tells what happens while media comes, in `live`, `per-frame` and `units`.

        The reply ends when it is interrupted, at `max_tokens`, with the media (`end`) or at the next question. When it
        has nothing more to say for now, a `Resting` event comes. It raises, and can be cancelled, as `ask` does.
        """
        return await self.ask(request, params, hold=True)

    @asynccontextmanager
    async def aside(
        self, question: str, params: SamplingParams | None = None, *, lookback: float | None = None
    ) -> AsyncIterator[R]:
        """Ask beside what runs: `async with stream.aside("...") as reply`.

        A copy of the stream as it is now (`fork`) answers, and is closed at the end of the block. A reply that this
        stream speaks goes on in it, and what is asked and answered aside never becomes part of it. With `lookback` the
        copy first sees the last so many seconds again, at their full frame rate (`ask`). It raises what `fork` and
        `ask` raise. Where it is cancelled the copy is closed as well.
        """
        async with await self.fork() as copy:
            await copy.interrupt()
            yield await copy.ask(question, params, lookback=lookback)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
