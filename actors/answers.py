"""What a stream has asked of its engine and waits for, by number."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from ..errors import PenstockError

A = TypeVar("A")


def settle(future: asyncio.Future[A], value: A) -> None:
    """What waits for the future gets this value, if it still waits."""
    if not future.done():
        future.set_result(value)


def refuse(future: asyncio.Future, error: PenstockError) -> None:
    """What waits for the future gets this error; nobody has to."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # a caller that has gone is no news to the event loop


class Answers(Generic[A]):
    """Answers of one kind."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[A]] = {}

    async def wait(self, number: int) -> A:
        """Wait for the answer with this number. Raises what `refuse` is told. Safe to cancel."""
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(future)

    def tell(self, number: int, answer: A) -> None:
        """It has come."""
        future = self._waiting.pop(number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def refuse(self, error: PenstockError) -> None:
        """None will come any more."""
        for future in self._waiting.values():
            refuse(future, error)
