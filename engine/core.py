"""The engine without actors: load a checkpoint, then plan, run, commit, driven by hand. Synchronous; one thread.

The actors share out its three parts (scheduler, towers, language model); tests and offline use drive them here in one
place.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from ..codecs.decoders import Decoders
from ..codecs.limits import DEFAULT_LIMITS
from ..errors import ModelError
from ..streams.event import Event
from ..streams.options import with_defaults
from ..streams.prompt import check_counts, gather
from ..streams.request import Request, SamplingParams
from ..streams.segment import Segment
from ..streams.whole import decoded
from .config import EngineConfig
from .conversation.state import Input
from .family import Loaded
from .loading.checkpoint import Checkpoint, find
from .loading.int8 import quantize
from .loading.memory import Memory, host_pages, plan_memory
from .loading.placement import check_room, place
from .loading.weights import read
from .plan import Plan, Result
from .runner.attention import Backend, ReferenceBackend
from .runner.graphs import CudaRecorder
from .runner.language import LanguageModel
from .runner.library import transformers
from .runner.out_of_memory import is_out_of_memory
from .runner.threads import compute_threads
from .scheduling.scheduler import Scheduler, SchedulerConfig

BROOK = Path(__file__).parent / "brook"

_Made = TypeVar("_Made")

log = logging.getLogger("penstock.engine")


def load(
    path: str | Path | None, config: EngineConfig, revision: str | None = None, stop: threading.Event | None = None
) -> Loaded:
    """The checkpoint at `path`: a folder, or an id on the Hub; None: Brook, which comes with Penstock.

    revision: a branch, tag or commit of an id. Where `stop` is set by another thread, a download ends at its next
    piece. Raises ModelError that says why not.
    """
    if path is None and not (BROOK / "model.safetensors").is_file():
        raise ModelError(f"{BROOK}: expected the weights of Brook, which come with Penstock, got an incomplete copy")
    return opened(path, config, _load, revision, stop)


def opened(
    path: str | Path | None,
    config: EngineConfig,
    work: Callable[[Checkpoint, EngineConfig], _Made],
    revision: str | None = None,
    stop: threading.Event | None = None,
) -> _Made:
    """What `work` makes of a checkpoint, named as `load` has it. Whatever it raises is told as ModelError, in one line
    that names the checkpoint."""
    if config.quantize not in (None, "int8"):
        raise ModelError(f"quantize: expected int8 or nothing, got {config.quantize!r}")
    checkpoint = find(BROOK if path is None else path, revision, stop or threading.Event())
    try:
        return work(checkpoint, config)
    except ModelError as error:
        told = str(error).startswith(checkpoint.name)
        raise error if told else ModelError(f"{checkpoint.name}: {error}") from error
    except ImportError as error:
        raise ModelError(f"{checkpoint.name}: {_missing(' '.join(str(error).split()))}") from error
    except Exception as error:  # whatever the library raises over files that it does not expect
        raise ModelError(f"{checkpoint.name}: {_refusal(error)}") from error


def _load(checkpoint: Checkpoint, config: EngineConfig) -> Loaded:
    from .families import is_tried, rehearse

    named, load_family = known(checkpoint)
    if is_tried(named.model_type):
        rehearse(named.model_type, checkpoint.folder)
    weights = read(checkpoint.fetch_weights())
    placement = place(config, weights)
    check_room(weights, placement)
    loaded: Loaded = load_family(checkpoint.folder, getattr(torch, placement.dtype), torch.device(placement.device))
    loaded.family.data = msgspec.structs.replace(loaded.family.data, model=checkpoint.name)
    make_small(loaded, config)
    return loaded._replace(why=placement.why)


def known(checkpoint: Checkpoint) -> tuple[Any, Callable[..., Loaded]]:
    """The configuration of a checkpoint that may be served, and the `load` of its family. Raises ModelError."""
    from .families import check_config, loader

    config = transformers.AutoConfig.from_pretrained(checkpoint.folder)
    load_family = loader(config.model_type)
    check_config(config)
    return config, load_family


def make_small(loaded: Loaded, config: EngineConfig) -> None:
    """Exchange the decoder's linear layers where `quantize` asks for it."""
    if config.quantize is not None and quantize(loaded.text) == 0:
        raise ModelError("quantize: expected linear layers of float weights in the decoder, got none")


def _missing(why: str) -> str:
    """What the library says where it lacks a package, as one line that names it."""
    package = re.search(r"pip install (?:-U |--upgrade )?[\"']?([\w.-]+(?:[<>=!~]=?[\w.,<>=!~]+)?)", why)
    if package is None:
        return f"expected the packages that it needs, got: {why}"
    return f"expected the package {package[1]}, which this checkpoint needs, got none: pip install '{package[1]}'"


def _refusal(error: Exception) -> str:
    from .families import served

    why = " ".join(str(error).split())
    if is_out_of_memory(error):
        return f"expected room for its weights, got none ({why}); try a smaller model"
    if "trust_remote_code" in why:
        return (
            f"expected a checkpoint whose classes are all in transformers {transformers.__version__}, got one with "
            f"code of its own: code that comes with a checkpoint is never run; {served()}"
        )
    if "does not recognize this architecture" in why:
        named = re.search(r"model type `?([^`\s]+)`?", why)
        return (
            f"model type {named[1] if named else 'unknown'!r}: expected one that transformers "
            f"{transformers.__version__} has, got none; {served()}"
        )
    if not isinstance(error, OSError | ValueError | RuntimeError):  # some say no more than a name
        why = f"{type(error).__name__}: {why}"
    return f"expected a checkpoint that transformers can load, got: {why}"


def make_backend(config: EngineConfig, device: str) -> Backend:
    """The attention backend that `config` names, for a type of device. "auto": the compiled one on a CPU, Triton's on
    CUDA where the package is here, else the reference. ModelError where it cannot be had."""
    fitting = {"cpu": ["cpu"], "cuda": ["triton", "varlen"]}.get(device, [])
    name = next(iter(fitting), "reference") if config.backend == "auto" else config.backend
    if name == "reference":
        return ReferenceBackend()
    if name not in fitting:
        *others, last = ["auto", "reference", *fitting]
        raise ModelError(f"backend: expected {', '.join(others)} or {last} on {device}, got {config.backend!r}")
    if name == "cpu":
        from .runner.attention_cpu import CpuBackend

        return CpuBackend(compute_threads(config))
    if name == "varlen":
        from .runner.attention_varlen import VarlenBackend

        return VarlenBackend(_triton(config, device))
    return _triton(config, device)


def _triton(config: EngineConfig, device: str) -> Backend:
    try:
        from .runner.attention_triton import TritonBackend
    except ImportError as error:
        if config.backend == "triton":
            raise ModelError(f"backend triton: expected the package triton, got none: {error}") from error
        log.warning("attention: expected the package triton, got none (%s): the slow reference is used", error)
        return ReferenceBackend()
    # Two programs a multiprocessor keep a device busy that mostly waits for memory.
    return TritonBackend(2 * torch.cuda.get_device_properties(device).multi_processor_count)


def fit(loaded: Loaded, config: EngineConfig) -> Memory:
    """How a loaded checkpoint and its cache share the memory. On CUDA the largest step is run. Raises ModelError."""
    return plan_memory(loaded, config, make_backend(config, loaded.device.type))


def make_parts(loaded: Loaded, config: EngineConfig, memory: Memory | None = None) -> tuple[Scheduler, LanguageModel]:
    """A scheduler and a language model for a loaded checkpoint, of one size; `memory` as `fit` has it."""
    _check_cuda(loaded, config)
    memory = memory or fit(loaded, config)
    pages, page_tokens = memory.pages, memory.page_tokens
    sizes = SchedulerConfig(
        pages,
        page_tokens,
        config.slots,
        config.step_rows,
        config.append_rows,
        host_pages(config, memory, loaded.device.type),
        config.span_bytes,
    )
    backend = make_backend(config, loaded.device.type)
    record = CudaRecorder(loaded.device) if config.cuda_graphs else None
    return Scheduler(loaded.family, sizes), LanguageModel(loaded, pages, page_tokens, config.slots, backend, record)


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


class Core:
    """An engine whose steps are driven by hand."""

    def __init__(self, loaded: Loaded, config: EngineConfig) -> None:
        self.loaded = loaded
        self._config = config
        self.scheduler, self.language = make_parts(loaded, config)
        self._next: dict[int, int] = {}

    def open(self, stream: int, request: Request) -> None:
        request.check()
        self.scheduler.open(stream, self._whole(request))

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
        if kind == "ask":
            params = (params or self.scheduler.streams[stream].request.params).seeded()
        self.scheduler.accept(stream, Input(seq, kind, text, params, done=False))
        self.scheduler.spans(stream, list(self.loaded.towers.encode([(stream, segment) for segment in flushed])))
        self.scheduler.resolve(stream, seq)

    def prompt(self, stream: int, request: Request) -> None:
        """The request's own prompt; a reply starts."""
        gathered = gather(self._whole(request), DEFAULT_LIMITS)
        check_counts(gathered, self._config.limits_per_request)
        content = decoded(gathered, Decoders(DEFAULT_LIMITS, None), self.loaded.family.spec)
        prompt = self.loaded.towers.prompt(content)
        self.scheduler.accept(stream, Input(1, "prompt", params=request.params.seeded(), done=False))
        self.scheduler.spans(stream, [prompt])
        self.scheduler.resolve(stream, 1)

    def _whole(self, request: Request) -> Request:
        return with_defaults(request, self._config.processor, self.loaded.family.spec)

    def step(self) -> tuple[Plan, Result] | None:
        """Plan, run, commit; None where there was nothing to do."""
        plan = self.scheduler.plan()
        if plan is None:
            return None
        result = self.language.run(plan)
        self.scheduler.commit(plan, result)
        for stream in (*result.failed, *result.poisoned):
            self.scheduler.close(stream)
        return plan, result

    def run(self, steps: int = 10_000) -> list[tuple[int, Event]]:
        """Step until nothing is left to do; returns the events."""
        events = self.scheduler.events()
        for _ in range(steps):
            if self.step() is None:
                break
            events += self.scheduler.events()
        return events
