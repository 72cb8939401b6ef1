"""Copies of streams become plain data in a thread, so that no other stream waits for that. In: copies that the
scheduler has ready. Out: `Snapshot` messages, to generate for their rows, or to schedule where there is none.
"""

from __future__ import annotations

import contextlib
import logging

from ..engine.command import Freeze
from ..engine.conversation.state import StreamState
from ..engine.frozen import Snapshot
from ..engine.scheduling.freezing import snapshot
from ..errors import OutOfMemoryError
from ..streams.event import Error
from .actor import Supervisor
from .mailbox import Mailbox, MailboxClosed
from .messages import GenerateMessage, ScheduleMessage
from .thread import WorkThread

log = logging.getLogger("penstock.actors")


def lost(command: Freeze, error: Exception) -> Snapshot:
    """The answer to a command that came to nothing."""
    told = Error("internal", f"the stream could not be copied: {type(error).__name__}: {error}")
    if isinstance(error, OutOfMemoryError):
        told = Error(error.code, str(error))
    return Snapshot(command.stream, command.twin, command.frozen, lost=told)


class Copies:
    """One copy after the other."""

    def __init__(
        self,
        supervisor: Supervisor,
        thread: WorkThread,
        generate: Mailbox[GenerateMessage],
        schedule: Mailbox[ScheduleMessage],
    ) -> None:
        self._supervisor = supervisor
        self._thread = thread
        self._generate = generate
        self._schedule = schedule

    def take(self, ready: list[tuple[Freeze, StreamState | None]]) -> None:
        """Begin with these; None: memory ran out."""
        for command, copy in ready:
            self._supervisor.spawn(f"copy.{command.twin}", self._take(command, copy))

    async def _take(self, command: Freeze, copy: StreamState | None) -> None:
        with contextlib.suppress(MailboxClosed):
            try:
                if copy is None:
                    raise OutOfMemoryError("memory ran out while the stream was copied; the stream goes on")
                self._generate.put_control(await self._thread.run(snapshot, command, copy))
            except MailboxClosed:
                raise
            except Exception as error:  # whatever it is, the stream itself goes on
                if not isinstance(error, OutOfMemoryError):
                    log.exception("copying stream %d failed", command.stream)
                self._schedule.put_control(lost(command, error))
