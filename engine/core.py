"""The engine without actors: load a checkpoint, then plan, run, commit, driven by hand. Synchronous; one thread.

The actors share out its three parts (scheduler, towers, language model); tests and offline use drive them here in one
place.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError

from ..codecs.errors import ModelError
from ..streams.event import Event
from ..streams.request import Request, SamplingParams
from ..streams.segment import Segment
from .attention import Backend, ReferenceBackend
from .checkpoint import find
from .config import EngineConfig
from .family import Loaded
from .language import LanguageModel
from .library import transformers
from .plan import Plan, Result
from .scheduler import Scheduler, SchedulerConfig
from .stream import Input

BROOK = Path(__file__).parent / "brook"


def load(
    path: str | Path | None, config: EngineConfig, revision: str | None = None, stop: threading.Event | None = None
) -> Loaded:
    """The checkpoint at `path`: a folder, or an id on the Hub; None: Brook, which comes with Penstock.

    revision: a branch, tag or commit of an id. Where `stop` is set by another thread, a download ends at its next
    piece. Raises ModelError that says why not.
    """
    from .families import loader

    if path is None:
        path = BROOK
        if not (path / "model.safetensors").is_file():
            raise ModelError(f"{path}: expected the weights of Brook, which come with Penstock, got an incomplete copy")
    checkpoint = find(path, revision, stop or threading.Event())
    try:
        load_family = loader(transformers.AutoConfig.from_pretrained(checkpoint.folder).model_type)
        checkpoint.fetch_weights()
        loaded = load_family(checkpoint.folder, getattr(torch, config.dtype), torch.device(config.device))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{checkpoint.name}: {_refusal(' '.join(str(error).split()))}") from error
    loaded.family.data = msgspec.structs.replace(loaded.family.data, model=checkpoint.name)
    return loaded


def _refusal(why: str) -> str:
    if "trust_remote_code" in why:
        return (
            f"expected a checkpoint whose classes are all in transformers {transformers.__version__}, got one with "
            "code of its own: code that comes with a checkpoint is never run"
        )
    return f"expected a checkpoint that transformers can load, got: {why}"


def make_backend(config: EngineConfig) -> Backend:
    """The attention backend that `config` names; "auto": the compiled one on a CPU, else the reference."""
    if config.backend == "reference" or (config.backend == "auto" and config.device != "cpu"):
        return ReferenceBackend()
    from .attention_cpu import CpuBackend

    return CpuBackend()


def make_parts(loaded: Loaded, config: EngineConfig) -> tuple[Scheduler, LanguageModel]:
    """A scheduler and a language model for a loaded checkpoint, of one size."""
    backend = make_backend(config)
    page_tokens = config.page_tokens or backend.page_tokens
    pages = config.kv_tokens // page_tokens
    sizes = SchedulerConfig(
        pages, page_tokens, config.slots, config.step_rows, config.append_rows, config.host_pages, config.span_bytes
    )
    return Scheduler(loaded.family, sizes), LanguageModel(loaded, pages, page_tokens, config.slots, backend)


class Core:
    """An engine whose steps are driven by hand."""

    def __init__(self, loaded: Loaded, config: EngineConfig) -> None:
        self.loaded = loaded
        self.scheduler, self.language = make_parts(loaded, config)
        self._next: dict[int, int] = {}

    def open(self, stream: int, request: Request) -> None:
        request.check()
        self.scheduler.open(stream, request)

    def append(self, stream: int, seq: int, segments: list[Segment]) -> None:
        """An input of media whose segments are all there: encoded and handed over at once."""
        self.scheduler.accept(stream, Input(seq, "media", done=False))
        self.scheduler.spans(stream, list(self.loaded.towers.encode([(stream, segment) for segment in segments])))
        self.scheduler.resolve(stream, seq)

    def words(
        self,
        stream: int,
        seq: int,
        kind: str,
        text: str = "",
        params: SamplingParams | None = None,
        flushed: Sequence[Segment] = (),
    ) -> None:
        """Text, a question or the end of the media; `flushed` are the segments that it flushes."""
        self.scheduler.accept(stream, Input(seq, kind, text, params, done=False))
        self.scheduler.spans(stream, list(self.loaded.towers.encode([(stream, segment) for segment in flushed])))
        self.scheduler.resolve(stream, seq)

    def prompt(self, stream: int, request: Request) -> None:
        """The request's messages as a whole prompt; a reply starts."""
        assert request.messages is not None
        prompt = self.loaded.towers.prompt(request.messages, request.system, request.video_fps, request.audio_in_video)
        self.scheduler.accept(stream, Input(1, "prompt", params=request.params, done=False))
        self.scheduler.spans(stream, [prompt])
        self.scheduler.resolve(stream, 1)

    def step(self) -> tuple[Plan, Result] | None:
        """Plan, run, commit; None where there was nothing to do."""
        plan = self.scheduler.plan()
        if plan is None:
            return None
        result = self.language.run(plan)
        self.scheduler.commit(plan, result)
        return plan, result

    def run(self, steps: int = 10_000) -> list[tuple[int, Event]]:
        """Step until nothing is left to do; returns the events."""
        events = self.scheduler.events()
        for _ in range(steps):
            if self.step() is None:
                break
            events += self.scheduler.events()
        return events
