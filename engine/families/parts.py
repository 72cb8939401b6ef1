"""A checkpoint's model without the weights of one side: of its towers and projectors, or of its decoder.

In: a class of `transformers`, and which side is wanted. Out: that class without the modules of the other side, so that
the library reads no weights for them; behind it, the modules again on "meta", with shapes and no numbers: a family asks
them for sizes, and nothing runs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

Side = Literal["language", "towers"]
_SIDE: ContextVar[Side | None] = ContextVar("side", default=None)


@contextlib.contextmanager
def only(side: Side | None) -> Iterator[None]:
    """What is loaded inside has the weights of this side alone; None: of both."""
    before = _SIDE.set(side)
    try:
        yield
    finally:
        _SIDE.reset(before)


def wanted() -> Side | None:
    return _SIDE.get()


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
        found += [name for name, child in beside.items() if child is not head and name not in (*parents, decoder)]
    return found


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
