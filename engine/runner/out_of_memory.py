"""Which errors mean that memory ran out, and how it is told. It knows no streams."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from ...errors import ModelError

log = logging.getLogger("penstock.engine")

# What torch's allocators say: of a CPU (Linux, Windows), of Metal.
_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")


class NoRoom(ModelError):
    """What a model has to have at once does not fit beside its weights."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no room: torch says so in several ways."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def let_go() -> None:
    """Give back what torch keeps of freed memory on a GPU, so that other sizes fit. To be called where the error's
    traceback is gone, which holds tensors."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def moved(move: Callable[..., None], *what: Any) -> bool:
    """Whether `move` found room for what it moves."""
    try:
        move(*what)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning("moving pages or states ran out of memory: %s", error)
        return False
    return True
