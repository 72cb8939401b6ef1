"""The engine without actors: plan, run, commit, driven by hand. Synchronous; one thread.

The actors share out its three parts (scheduler, towers, language model); tests and offline use drive them here in one
place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..codecs.decoders import Decoders
from ..codecs.limits import DEFAULT_LIMITS
from ..errors import ModelError
from ..streams.event import Event
from ..streams.requests.options import with_defaults
from ..streams.requests.prompt import check_counts, gather
from ..streams.requests.request import Request, SamplingParams
from ..streams.requests.whole import decoded
from ..streams.segment import DroppedSegment, Sifted, TurnEnd
from .command import (
    Accept,
    Close,
    Input,
    LaidOut,
    MediaEnd,
    MediaInput,
    Open,
    PromptInput,
    Question,
    Resolved,
    Spans,
    TextInput,
)
from .config import EngineConfig
from .family import Loaded
from .loading.adapter import read_adapter
from .loading.fitting import fitted, try_out
from .loading.memory import Memory, host_pages, plan_memory
from .plan import Plan, Result
from .runner.backends import make_backend
from .runner.drafter import attach
from .runner.encoder import Encoder
from .runner.graphs import APPENDED, CudaRecorder, is_recorded
from .runner.language import LanguageModel
from .runner.lora import Adapter
from .scheduling.scheduler import Scheduler, SchedulerConfig


def fit(loaded: Loaded, config: EngineConfig) -> Memory:
    """How a loaded checkpoint and its cache share the memory. On CUDA the largest step is run. Raises ModelError."""
    return plan_memory(loaded, config, make_backend(config, loaded.device.type))


def make_parts(
    loaded: Loaded, config: EngineConfig, memory: Memory | None = None, spell_apart: bool = False
) -> tuple[Scheduler, LanguageModel]:
    """A scheduler and a language model for a loaded checkpoint, of one size; `memory` as `fit` has it, `spell_apart` as
    in `SchedulerConfig`."""
    _check_cuda(loaded, config)
    _check_cache(loaded, config)
    memory = memory or fit(loaded, config)
    pages, page_tokens, slots = memory.pages, memory.page_tokens, memory.streams or config.slots
    sizes = SchedulerConfig(
        pages,
        page_tokens,
        slots,
        config.step_rows,
        config.append_rows,
        host_pages(config, memory, loaded.device.type),
        config.span_bytes,
        spell_apart,
        config.prefix_cache and _finds(loaded),
        0 if config.speculative is None else config.speculative_tokens,
        loaded.draft is not None,
    )
    backend = make_backend(config, loaded.device.type)
    data = loaded.family.data
    recorded = is_recorded(config, str(loaded.device)) and not (data.stateful or data.crossing)
    record = CudaRecorder(loaded.device) if recorded else None
    appends = min(config.step_rows, APPENDED)
    language = LanguageModel(loaded, pages, page_tokens, slots, backend, record, appends, config.kv_dtype)
    if loaded.draft is not None:
        attach(loaded.draft, language)
    return Scheduler(loaded.family, sizes), language


def _finds(loaded: Loaded) -> bool:
    """Whether streams may go on with what others have computed: not where later rows change what is cached, nor where
    pages are not all there is of a row."""
    data = loaded.family.data
    return "F" not in data.classes.values() and not data.stateful


def _check_cuda(loaded: Loaded, config: EngineConfig) -> None:
    """Raise ModelError where what is asked for on CUDA cannot be there."""
    if config.cuda_graphs and loaded.device.type != "cuda":
        raise ModelError(f"cuda_graphs: expected a CUDA device, got {loaded.device.type}")
    if config.cuda_graphs and config.backend == "reference":
        raise ModelError("cuda_graphs: expected another backend than the reference, which asks for values")
    if config.backend != "varlen" or loaded.device.type != "cuda":
        return
    from .runner.attention_varlen import PAGE_TOKENS

    if loaded.dtype == torch.float32:
        raise ModelError("backend varlen: expected float16 or bfloat16, got float32")
    if config.page_tokens % PAGE_TOKENS:
        raise ModelError(f"backend varlen: expected pages of {PAGE_TOKENS} rows, got {config.page_tokens}")


def _check_cache(loaded: Loaded, config: EngineConfig) -> None:
    """Raise ModelError where keys and values in eight bits cannot be read."""
    if config.kv_dtype == "auto":
        return
    if loaded.device.type not in ("cpu", "cuda"):
        raise ModelError(f"kv_dtype {config.kv_dtype}: expected a CPU or CUDA, got {loaded.device.type}")
    if config.backend == "varlen":
        raise ModelError(f"kv_dtype {config.kv_dtype}: expected another backend than varlen, which reads floats only")


class Core:
    """An engine whose steps are driven by hand."""

    def __init__(self, loaded: Loaded, config: EngineConfig) -> None:
        self.loaded = loaded
        self._config = config
        self.scheduler, self.language = make_parts(loaded, config)
        spans, adapters = self.language.spans, self.language.adapters
        self.encoder = Encoder(loaded.towers, 0, spans, None, loaded.family, adapters)
        self._next: dict[int, int] = {}
        self._adapters: dict[str, Adapter] = {}

    def load_adapter(self, name: str, folder: str | Path) -> Adapter:
        """Streams may wear this adapter from now on. Raises InputError."""
        adapter = fitted(read_adapter(folder), self.loaded)
        try_out(adapter, self.loaded)
        self.language.adapters.add(adapter)
        self._adapters[name] = adapter
        return adapter

    def open(self, stream: int, request: Request) -> None:
        request.check()
        wears = None if request.adapter is None else self._adapters[request.adapter].wears
        self.encoder.wear(stream, wears)
        self.scheduler.apply(Open(stream, self._whole(request), wears))

    def append(self, stream: int, seq: int, segments: Sequence[Sifted]) -> None:
        """An input of media whose segments are all there: encoded and handed over at once."""
        self.give(stream, MediaInput(seq), segments)

    def text(self, stream: int, seq: int, text: str, flushed: Sequence[Sifted] = ()) -> None:
        """Words; `flushed` are the segments that they flush."""
        self.give(stream, TextInput(seq, text, done=False), flushed)

    def ask(
        self,
        stream: int,
        seq: int,
        text: str = "",
        params: SamplingParams | None = None,
        flushed: Sequence[Sifted] = (),
    ) -> None:
        """A question; `flushed` are the segments that it flushes. Without `params` the request's are taken."""
        params = (params or self.scheduler.streams[stream].request.params).seeded()
        self.give(stream, Question(seq, text, params, done=False), flushed)

    def end(self, stream: int, seq: int, flushed: Sequence[Sifted] = ()) -> None:
        """The end of the media."""
        self.give(stream, MediaEnd(seq, done=False), flushed)

    def give(self, stream: int, input: Input, segments: Sequence[Sifted]) -> None:
        """An input with all its segments, which are encoded at once. Turns of speech are not told here."""
        self.scheduler.apply(Accept(stream, input))
        pieces = [segment for segment in segments if not isinstance(segment, TurnEnd)]
        whole = [(stream, piece) for piece in pieces if not isinstance(piece, DroppedSegment)]
        encoded = iter(self.encoder.encode(whole))
        spans = [self.encoder.passed(one) if isinstance(one, DroppedSegment) else next(encoded) for one in pieces]
        self.scheduler.apply(Spans(stream, spans))
        self.scheduler.apply(Resolved(stream, input.seq))

    def prompt(self, stream: int, request: Request) -> None:
        """The request's own prompt; a reply starts."""
        gathered = gather(self._whole(request), DEFAULT_LIMITS)
        check_counts(gathered, self._config.limits_per_request)
        content = decoded(gathered, Decoders(DEFAULT_LIMITS, None), self.loaded.family.spec)
        prompt = self.encoder.prompt(content, stream)
        seq = 1
        self.scheduler.apply(Accept(stream, PromptInput(seq, request.params.seeded())))
        self.scheduler.apply(LaidOut(stream, seq, prompt))
        self.scheduler.apply(Resolved(stream, seq))

    def _whole(self, request: Request) -> Request:
        return with_defaults(request, self._config.processor, self.loaded.family.spec)

    def step(self) -> tuple[Plan, Result] | None:
        """Plan, run, commit; None where there was nothing to do."""
        plan = self.scheduler.plan()
        if plan is None:
            return None
        result = self.language.run(plan)
        for _, error in self.scheduler.commit(plan, result):
            raise error
        for stream in (*result.failed, *result.poisoned):
            self.scheduler.apply(Close(stream, "error"))
        return plan, result

    def run(self, steps: int = 10_000) -> list[tuple[int, Event]]:
        """Step until nothing is left to do; returns the events."""
        events = self.scheduler.events()
        for _ in range(steps):
            if self.step() is None:
                break
            events += self.scheduler.events()
        return events
