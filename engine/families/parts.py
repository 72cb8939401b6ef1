"""A checkpoint's model without the weights of one side: of its towers and projectors, or of its decoder.

In: a class of `transformers`, and which side is wanted. Out: that class without the modules of the other side, so that
the library reads no weights for them; behind it, the modules again on "meta", with shapes and no numbers: a family asks
them for sizes, and nothing runs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Literal

import torch

from ...errors import ModelError

Side = Literal["language", "towers"]
_SIDE: ContextVar[Side | None] = ContextVar("side", default=None)
_ASK: ContextVar[Callable[[], Any] | None] = ContextVar("ask", default=None)


@contextlib.contextmanager
def only(side: Side | None, ask: Callable[[], Any] | None = None) -> Iterator[None]:
    """What is loaded inside has the weights of this side alone; None: of both. `ask` tells what the other side's trial
    has found, of a model that is tried (findings.py); None: nobody knows."""
    before, asked = _SIDE.set(side), _ASK.set(ask)
    try:
        yield
    finally:
        _SIDE.reset(before)
        _ASK.reset(asked)


def wanted() -> Side | None:
    return _SIDE.get()


def other_side() -> Callable[[], Any] | None:
    """Whom to ask what the other side's trial has found."""
    return _ASK.get()


def left_out(whole: Any, side: Side) -> list[str]:
    """The names of the modules of `whole` that a model of this side lacks."""
    names = {module: name for name, module in whole.named_modules()}
    head = whole.get_output_embeddings()
    decoder = names[whole.get_decoder()]
    if side == "towers":
        return [decoder, *([] if head is None else [names[head]])]
    above = decoder.split(".")
    parents = [".".join(above[:depth]) for depth in range(len(above))]
    found = []
    for parent in parents:
        module = whole.get_submodule(parent)
        beside = {f"{parent}.{name}".lstrip("."): child for name, child in module.named_children()}
        kept = (*parents, decoder)
        found += [
            name for name, child in beside.items() if child is not head and name not in kept and not embeds_words(child)
        ]
    return found


def embeds_words(module: Any) -> bool:
    """Whether a tower's projector embeds words, too (far_words.py)."""
    return hasattr(module, "vocab_offset") and hasattr(module, "embedding")


def let_go(whole: Any, side: Side, decoder: Any, head: Any) -> None:
    """Take the numbers from what a model of this side lacks, of one that was opened with all of its weights. Towers
    keep what stands in the decoder before its layers: words between the rows of a medium are embedded by it."""
    if side == "towers":
        gone = {part for layer in (*getattr(decoder, "layers", ()), head) for part in layer.modules()}
    else:
        gone = {part for name in left_out(whole, side) for part in whole.get_submodule(name).modules()}
        gone -= {*decoder.modules(), *head.modules()}
    for module in gone:
        for name, weight in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(_bare(weight), requires_grad=False)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = _bare(buffer)


def _bare(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def check_here(*modules: Any) -> None:
    """ModelError where one of these has shapes and no numbers."""
    for module in modules:
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_meta:
                raise ModelError(f"expected all weights of {type(module).__name__} without its towers, got no {name}")


def without(make: Any, names: list[str]) -> Any:
    """The class whose models have None in place of these modules."""

    def build(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        make.__init__(self, config, *args, **kwargs)
        for name in names:
            put(self, name, None)

    own = {
        "__init__": build,
        "__module__": make.__module__,
        "__qualname__": make.__qualname__,
        "_keys_to_ignore_on_load_unexpected": [".*"],
    }
    if wanted() == "towers":  # an output layer that is tied to the embeddings is gone with them
        own["_tied_weights_keys"] = None
    return type(make.__name__, (make,), own)


def put(model: Any, name: str, module: Any) -> None:
    """Set the submodule of this name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
