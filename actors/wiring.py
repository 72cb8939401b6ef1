"""The four actors of one engine, their mailboxes, threads and tasks: made together, stopped together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from ..codecs.decoders import Decoders
from ..codecs.limits import MediaLimits
from ..codecs.smart_turn import installed_file
from ..codecs.worker import WorkerPool
from ..engine.config import EngineConfig
from ..engine.core import make_parts
from ..engine.family import Loaded
from ..engine.loading.memory import Memory
from ..engine.record import Recorder, header
from ..engine.runner.encoder import Encoder
from ..engine.runner.gate import Gate
from ..engine.runner.threads import Crew, choose_threads
from ..engine.scheduling.admission import Admission
from ..engine.scheduling.pace import Pace, StepPace
from ..errors import InputError
from ..streams.listening.detectors import Hearing
from .actor import Actor, Supervisor
from .adapters import LoadedAdapters
from .copies import Copies
from .decode import Decode
from .encode import Encode
from .generate import Generate
from .grammars import Compiling
from .lookback import Keeping
from .mailbox import Mailbox, Observer
from .messages import DecodeMessage, EncodeMessage, GenerateMessage, ScheduleMessage, Tell
from .remote import RemoteTowers
from .schedule import Schedule
from .thread import WorkThread
from .words import Words

_LANE_BYTES = 256 << 20


def turn_model(config: EngineConfig) -> str | None:
    """The file of the model that hears whether somebody has finished, where there is one. InputError where the one that
    is named is not there."""
    if config.turn_model is not None and not Path(config.turn_model).is_file():
        raise InputError(f"turn_model: expected a file, got {config.turn_model}")
    return config.turn_model or installed_file()


class Wiring:
    """Owns the actors of one engine."""

    def __init__(
        self,
        loaded: Loaded,
        config: EngineConfig,
        limits: MediaLimits,
        observer: Observer | None,
        told: Callable[[Tell], None],
        broken: Callable[[str, BaseException], None],
        memory: Memory | None = None,
    ) -> None:
        def mailbox(name: str) -> Mailbox[Any]:
            return Mailbox(name, _LANE_BYTES, observer)

        def tell(message: Tell) -> None:
            if observer is not None:
                observer("client", "control", message)
            told(message)

        decode: Mailbox[DecodeMessage] = mailbox("decode")
        encode: Mailbox[EncodeMessage] = mailbox("encode")
        schedule: Mailbox[ScheduleMessage] = mailbox("schedule")
        generate: Mailbox[GenerateMessage] = mailbox("generate")
        chosen = choose_threads(config)
        self.keeping = Keeping(limits.max_lookback_bytes, limits.max_lookback_total_bytes, loaded.family.video_rate)
        self.compiling = Compiling(loaded.family.grammars, loaded.family.data.vocabulary)
        self._crew = None if chosen.said or loaded.device.type != "cpu" else Crew(chosen.count)
        self._compute_threads = chosen.count
        self._gate = gate = Gate(device=loaded.device, crew=self._crew)
        # On the thread that computes: it fills the cache with zeros, for which torch would make a second pool.
        scheduler, language = gate.step(lambda: make_parts(loaded, config, memory, spell_apart=True)).result()
        self._recorder: Recorder | None = None
        if config.record is not None:
            self._recorder = Recorder(config.record, header(loaded, config, scheduler.config), language.spans)
        scheduler.journal = self._recorder
        gate.watch(loaded.towers.blocks)
        threads = max(2, os.cpu_count() or 2)
        pool = WorkerPool(threads, limits) if config.decode == "workers" else None
        self._supervisor = Supervisor(broken)
        self._threads = [WorkThread("penstock-encode"), WorkThread("penstock-words")]
        hearing = Hearing(loaded.family.live_trained, turn_model(config))
        self.decode = Decode(
            loaded.family.spec, Decoders(limits, pool), self._supervisor, threads, decode, encode, schedule, hearing
        )
        encoder = Encoder(
            loaded.towers, config.encoder_cache_bytes, language.spans, gate, loaded.family, language.adapters
        )
        self._worn = language.adapters
        self.adapters = LoadedAdapters(loaded, self._worn, gate, self._threads[0], self._supervisor, self._recorder)
        self._remote = loaded.towers if isinstance(loaded.towers, RemoteTowers) else None
        self.encode = Encode(encoder, self._threads[0], encode, decode, schedule, config.encoder_seconds)
        steps = StepPace(config.step_ms, 16, config.append_rows, config.step_rows)
        turns = Pace(config.encoder_ms, 16, config.encoder_tokens)
        words = Words(loaded.family.spelling, self._supervisor, self._threads[1], schedule)
        admission = Admission(loaded.family.spec, config.admit)
        copies = Copies(self._supervisor, self._threads[1], generate, schedule)
        self.schedule = Schedule(scheduler, steps, turns, admission, schedule, encode, generate, tell, words, copies)
        self.generate = Generate(language, gate, generate, schedule)
        self._actors: list[Actor[Any]] = [self.decode, self.encode, self.schedule, self.generate]
        for actor in self._actors:
            self._supervisor.spawn(f"actor.{actor.name}", actor.run())

    async def stop(self) -> None:
        """Close the mailboxes, end the tasks, wait for the threads. A step that runs is waited for, never cut."""
        self.adapters.stop()
        for actor in self._actors:
            actor.mailbox.close()
        await self._supervisor.stop()
        await asyncio.to_thread(self._release)

    @property
    def failure(self) -> Exception | None:
        """What a step of the model raised, if one has."""
        return self.generate.failure

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of this engine."""
        return self._supervisor.spawn(name, work)

    def statistics(self) -> dict[str, Any]:
        mailboxes = {actor.name: actor.mailbox.statistics() for actor in self._actors}
        known = {
            "streams_decode": self.decode.streams,
            "streams_encode": self.encode.streams,
            "lookback_bytes": self.keeping.bytes,
            "adapters": len(self.adapters.infos),
            "adapter_bytes": self.adapters.nbytes,
            "encoder": None if self._remote is None else self._remote.statistics() | {"held": self.encode.held},
            "threads": self._compute_threads if self._crew is None else self._crew.count,
        }
        return {**self.schedule.statistics(), **known, "mailboxes": mailboxes}

    def _release(self) -> None:
        """Let go of what the actors own; no task of theirs runs any more."""
        if self._remote is not None:
            self._remote.line.close()  # the thread that encodes may wait for an answer
        for thread in (*self._threads, self.compiling):
            thread.stop()
        self._gate.stop()  # after the encoder, which may wait for a pass
        self.decode.stop()
        self.encode.stop()
        if self._recorder is not None:
            self._recorder.close()
        self._gate.unwatch()
        self._worn.clear()
