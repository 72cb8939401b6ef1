"""The run loop of an actor, and the one place that spawns tasks.

An actor reads its mailbox and handles one message after the other. What an actor raises ends the engine, loudly; what
belongs to one stream is caught where it happens and reported to that stream's client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import msgspec

from .mailbox import Mailbox, MailboxClosed

M = TypeVar("M", bound=msgspec.Struct)
log = logging.getLogger("penstock.actors")


class Supervisor:
    """Owns every task of an engine. `on_failure` is told of the first task that raises."""

    def __init__(self, on_failure: Callable[[str, BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_failure = on_failure

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` as a task called `name` until it ends or the engine stops."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task %s failed", task.get_name(), exc_info=error)
            self._on_failure(task.get_name(), error)


class Actor(Generic[M]):
    """Something that owns state and is told about the world by messages."""

    name: str
    mailbox: Mailbox[M]

    async def run(self) -> None:
        """Handle messages until the mailbox is closed."""
        try:
            while True:
                await self.handle(await self.mailbox.get())
        except MailboxClosed:
            return

    async def handle(self, message: M) -> None:
        raise NotImplementedError
