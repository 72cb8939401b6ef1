"""The generate actor: plans in, results out. The one that touches the language model and its cache."""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from ..engine.runner.gate import Gate
from ..engine.runner.language import LanguageModel
from .actor import Actor
from .mailbox import Mailbox
from .messages import Broken, GenerateMessage, ScheduleMessage

log = logging.getLogger("penstock.actors")


class Generate(Actor[GenerateMessage]):
    """Carries out one plan at a time on the thread that computes."""

    name = "generate"

    def __init__(
        self,
        language: LanguageModel,
        gate: Gate,
        mailbox: Mailbox[GenerateMessage],
        schedule: Mailbox[ScheduleMessage],
    ) -> None:
        self._language = language
        self._gate = gate
        self.mailbox = mailbox
        self._schedule = schedule
        self.failure: Exception | None = None  # What a step raised; the engine ends with it.

    async def handle(self, message: GenerateMessage) -> None:
        try:
            result = await asyncio.wrap_future(self._gate.step(partial(self._language.run, message)))
        except Exception as error:
            log.exception("step %d failed", message.number)
            self.failure = error
            self._schedule.put_control(Broken(f"{type(error).__name__}: {error}"))
            return
        self._schedule.put_control(result)
