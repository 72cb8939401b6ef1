"""Which attention backend runs, and which fused kernels beside it. In: the configuration and a type of device. Out: a
backend, or ModelError; kernels, where there are such.

They are imported where they are chosen: each needs a package that may be missing.
"""

from __future__ import annotations

import logging

import torch

from ...errors import ModelError
from ..config import EngineConfig
from .attention import Backend, ReferenceBackend
from .pointwise import Pointwise
from .threads import compute_threads

log = logging.getLogger("penstock.engine")


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
        from .attention_cpu import CpuBackend

        return CpuBackend(compute_threads(config))
    if name == "varlen":
        from .attention_varlen import VarlenBackend

        return VarlenBackend(_triton(config, device))
    return _triton(config, device)


def fused_kernels(device: str) -> Pointwise | None:
    """Kernels for what the fast decoder computes between its linear layers and attention, for a type of device: those
    of Triton on CUDA, where the package is here. None: it takes torch's operators."""
    if device != "cuda":
        return None
    try:
        from .pointwise_triton import TritonPointwise
    except ImportError:
        return None
    return TritonPointwise()


def _triton(config: EngineConfig, device: str) -> Backend:
    try:
        from .attention_triton import TritonBackend
    except ImportError as error:
        if config.backend == "triton":
            raise ModelError(f"backend triton: expected the package triton, got none: {error}") from error
        log.warning("attention: expected the package triton, got none (%s): the slow reference is used", error)
        return ReferenceBackend()
    # Two programs a multiprocessor keep a device busy that mostly waits for memory.
    return TritonBackend(2 * torch.cuda.get_device_properties(device).multi_processor_count)
