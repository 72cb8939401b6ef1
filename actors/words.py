"""Long texts are cut into tokens in a thread of their own, so that no other stream waits for that. In: the texts that
the scheduler wants. Out: `Spelt` messages to it.
"""

from __future__ import annotations

from ..engine.command import Spelt
from ..engine.words.spelling import Spelling, Unspelled
from .actor import Supervisor
from .mailbox import Mailbox
from .messages import ScheduleMessage
from .thread import WorkThread


class Words:
    """One text at a time for each stream; all in one thread."""

    def __init__(
        self, spelling: Spelling, supervisor: Supervisor, thread: WorkThread, schedule: Mailbox[ScheduleMessage]
    ) -> None:
        self._spelling = spelling
        self._supervisor = supervisor
        self._thread = thread
        self._schedule = schedule
        self._busy: set[int] = set()

    def find(self, wanted: list[tuple[int, Unspelled]]) -> None:
        """Begin with these texts, but for those of streams of which one is under way."""
        for stream, unspelled in wanted:
            if stream not in self._busy:
                self._busy.add(stream)
                self._supervisor.spawn(f"words.{stream}", self._find(stream, unspelled.text, unspelled.behind))

    async def _find(self, stream: int, text: str, behind: bool) -> None:
        try:
            ids: list[int] | None = await self._thread.run(self._spelling.ids, text, behind)
        except Exception:  # whatever it raises it raises again where the input acts, and there it ends that input
            ids = None
        self._busy.discard(stream)
        self._schedule.put_control(Spelt(stream, text, behind, ids))
