"""The generate actor: plans in, results out. The one that touches the language model and its cache."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import partial
from typing import assert_never

import msgspec

from ..engine.frozen import Snapshot
from ..engine.plan import Plan, Result
from ..engine.runner.gate import Gate
from ..engine.runner.language import LanguageModel
from .actor import Actor
from .mailbox import Mailbox
from .messages import Bring, Broken, GenerateMessage, ScheduleMessage

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
        match message:
            case Plan():
                await self._step(message)
            case Snapshot():
                taken = self._gate.step(partial(self._language.taken, message))
                self._schedule.put_control(await asyncio.wrap_future(taken))
            case Bring(stream, snapshot, base):
                await asyncio.wrap_future(self._gate.step(partial(self._language.bring, stream, snapshot, base)))
            case _:
                assert_never(message)

    async def _step(self, message: Plan) -> None:
        try:
            patience = math.inf if message.patience_ms is None else message.patience_ms / 1000
            result = await asyncio.wrap_future(self._gate.step(partial(self._run, message), patience))
        except Exception as error:
            log.exception("step %d failed", message.number)
            self.failure = error
            self._schedule.put_control(Broken(f"{type(error).__name__}: {error}"))
            return
        self._schedule.put_control(result)

    def _run(self, plan: Plan) -> Result:
        began = time.perf_counter()
        result = self._language.run(plan)
        return msgspec.structs.replace(result, ms=(time.perf_counter() - began) * 1000)
