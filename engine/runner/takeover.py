"""Whether the fast decoder computes what the library's module computes, on this very checkpoint. In: a loaded
checkpoint. Out: the same with a fast decoder, or as it was, with the reason in the log.

The library's module runs a dozen rows of the checkpoint's own words. What each layer was given is then given to the
fast one, and to a copy of the library's layer in the next wider type of number. From that copy the fast layer may be
twice as far as the library's layer is, by the root mean square: so the bound follows from the library's own rounding,
in every type. Norms are tried alone too, over small rows, where their eps counts. Between the layers nothing may
happen that the fast decoder does not do. Fused kernels go through the same trial after it: where they fail, the fast
decoder goes on with plain operators.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from ...errors import ModelError
from ..family import Loaded
from ..plan import Feed
from ..span import Rows
from .angles import InFloat64
from .attention import NAME, Step, paged_attention
from .backends import fused_kernels
from .batch import batched
from .beside import Beside
from .decoder import Asked, FastDecoder
from .language import LanguageModel
from .library import transformers
from .linears import Packing
from .out_of_memory import is_out_of_memory
from .pointwise import Norm, Pointwise

log = logging.getLogger("penstock.engine")

_ROWS = 12
_PAGE = 4
_FARTHEST = 4096
# Errors of the fast decoder over those of the library's module, at most.
_TIMES = 2.0
_DEEP = "deepstack_visual_embeds"
# Rows as large as embeddings, and so small that the eps of a norm counts.
_SIZES = (1.0, 1e-3)
_WIDER = {torch.float32: torch.float64, torch.bfloat16: torch.float32, torch.float16: torch.float32}


@torch.no_grad()
def take_over(loaded: Loaded) -> Loaded:
    """`loaded` with a fast decoder, its linear layers as this machine has them fastest; or as it was."""
    try:
        fast = fast_decoder(loaded)
    except (AttributeError, IndexError, KeyError, ModelError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        why = error if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        log.info("the decoder runs as the library has it: %s", why)
        return loaded
    packing = Packing()
    for linear in fast.linears:
        linear.pack(packing)
    tied = loaded.head.weight is loaded.text.get_input_embeddings().weight  # which is read by rows, as it lies
    return loaded._replace(fast=fast, head=loaded.head if tied else packing(loaded.head))


@torch.no_grad()
def fast_decoder(loaded: Loaded) -> FastDecoder:
    """The decoder of `loaded` as a fast one, its layers not yet packed. ModelError that says what it does otherwise."""
    if loaded.family.data.stateful:
        raise ModelError("expected layers of attention alone, got some that keep states")
    if loaded.family.data.crossing:
        raise ModelError("expected layers that see rows of words, got some that see media alone")
    trial = _Trial(loaded)
    fast = FastDecoder(loaded.text, loaded.family.data.axes, loaded.family.max_positions, trial.asked)
    check(fast, trial)
    kernels = fused_kernels(loaded.device.type)
    if kernels is not None:
        _fuse(fast, kernels, trial)
    return fast


def _fuse(fast: FastDecoder, kernels: Pointwise, trial: _Trial) -> None:
    """Have the fast decoder use `kernels`, if with them it still computes what the library's module does."""
    plain, fast.pointwise = fast.pointwise, kernels
    try:
        check(fast, trial)
    except Exception as error:  # whatever a compiler raises, too
        if is_out_of_memory(error):
            raise
        why = error if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
        log.warning("the decoder runs without fused kernels: %s", why)
        fast.pointwise = plain


class _Trial:
    """What the library's module did with a dozen rows."""

    def __init__(self, loaded: Loaded) -> None:
        text = loaded.text
        takes = inspect.signature(type(text).forward).parameters.keys()
        beside = Beside(loaded).names | ({"deepstack_features"} & takes)
        if beside:
            raise ModelError(f"expected layers that take rows alone, got {', '.join(sorted(beside))}")
        if any(module._forward_hooks or module._forward_pre_hooks for module in text.modules()):
            raise ModelError("expected modules without hooks, got some with hooks")
        language = LanguageModel(loaded._replace(fast=None), -(-_ROWS // _PAGE), _PAGE, slots=1)
        self._backend = language.backend  # which a step only numbers
        size = text.get_input_embeddings().weight.shape[0]
        ids = np.linspace(0, size - 1, _ROWS).astype(np.int64)
        longest = min(_FARTHEST, loaded.family.data.max_positions)
        positions = np.random.default_rng(0).integers(0, longest, (3, _ROWS))
        language.cache.tables[0] = torch.arange(len(language.cache.tables[0]))
        self.step = language._attention(batched([Feed(0, 0, 0, [Rows(ids, positions)], None)]))
        self.embeds = language.embed(torch.from_numpy(ids).to(loaded.device))
        self.positions = torch.from_numpy(positions).to(loaded.device)
        self.deep: list[torch.Tensor] = []
        self.calls: list[_Call] = []
        hooks = [layer.register_forward_hook(self._called, with_kwargs=True) for layer in text.layers]
        try:
            with _listening() as heard:
                self.hidden = language._decoded(self.embeds, self.positions, self.step, self._deep(language))
        finally:
            for hook in hooks:
                hook.remove()
        self.asked = [heard[layer.self_attn] for layer in text.layers]

    def _called(self, layer: Any, args: Any, kwargs: Any, output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        self.calls.append(_Call(args, kwargs, given[0], _rows(output)))

    def _deep(self, language: LanguageModel) -> dict[str, Any]:
        """What is added after the first layers, where the library's module takes such."""
        if _DEEP not in inspect.signature(type(language.text).forward).parameters:
            return {}
        self.deep = [self.embeds.flip(0), self.embeds.roll(1, 0)]
        return language._deep(torch.stack(self.deep))


class _Call(NamedTuple):
    """Of one layer of the library's module: its arguments, the rows `(rows, width)` in them, and what it gave."""

    args: Any
    kwargs: Any
    given: torch.Tensor
    gave: torch.Tensor


@contextmanager
def _listening() -> Iterator[dict[Any, Asked]]:
    """How each layer asks for attention meanwhile, by its module."""
    heard: dict[Any, Asked] = {}

    def listen(module: Any, query: torch.Tensor, *others: Any, **how: Any) -> Any:
        scale = how.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        heard[module] = Asked(scale, how.get("sliding_window"), how.get("softcap") or 0.0)
        return paged_attention(module, query, *others, **how)

    transformers.AttentionInterface.register(NAME, listen)
    try:
        yield heard
    finally:
        transformers.AttentionInterface.register(NAME, paged_attention)


def check(fast: FastDecoder, trial: _Trial) -> None:
    """ModelError where the fast decoder does not do what the library's module did."""
    text = fast.text
    if len(trial.calls) != len(fast.layers):
        raise ModelError(f"expected each of {len(fast.layers)} layers to run once, got {len(trial.calls)} runs")
    follows = [*(call.given for call in trial.calls), None]
    if not torch.equal(trial.calls[0].given, trial.embeds):
        raise ModelError("expected embeddings to go into the first layer as they are, got others")
    turns = fast.turns(trial.positions, trial.embeds.dtype)
    for layer, module, call, turn in zip(fast.layers, text.layers, trial.calls, turns, strict=True):
        what = f"layer {layer.number}"
        _check_norms(what, module, layer.norms, fast.pointwise)
        args, kwargs = _wide((call.args, call.kwargs), call.given.dtype)
        exact = _rows(_exactly(module, *args, **kwargs))
        for pool in (trial.step.keys, trial.step.values):  # what is not written again is seen
            pool[layer.number].fill_(float("nan"))
        rows = fast.pointwise.normed(call.given, layer.before)
        following = fast.following(layer.number)
        hidden, _ = layer(call.given, rows, turn, trial.step, fast.pointwise, following)
        _compare(what, hidden, call.gave, exact)
        left, next_given = fast.deepened(layer.number, call.gave, trial.deep), follows[layer.number + 1]
        if next_given is not None and not torch.equal(left, next_given):
            raise ModelError(f"expected what {what} gives to go into the next, got something else")
    _check_norms("the decoder", text, {"norm": fast.norm}, fast.pointwise)
    if not torch.equal(text.norm(left[None])[0], trial.hidden):
        raise ModelError("expected hidden states to be the last norm's, got others")


def _check_norms(where: str, module: Any, norms: dict[str, Norm], pointwise: Pointwise) -> None:
    """Each norm alone, over rows of several sizes."""
    for name, norm in norms.items():
        library = module.get_submodule(name)
        width = library.weight.shape[0]
        for size in _SIZES:
            rows = size * torch.sin(torch.arange(4 * width, device=library.weight.device)).view(4, width)
            rows = rows.to(library.weight.dtype)
            exact = _exactly(library, rows.to(_WIDER[rows.dtype]))
            _compare(f"{name} of {where}", pointwise.normed(rows, norm), library(rows), exact)


def _compare(what: str, ours: torch.Tensor, library: torch.Tensor, exact: torch.Tensor) -> None:
    """ModelError where `ours` is farther from `exact` than `library` is, twice over and one rounding more."""
    error, own = (_size(rows.double() - exact.double()) for rows in (ours, library))
    most = _TIMES * own + torch.finfo(library.dtype).eps / 4 * _size(exact.double())
    log.debug("%s: %.3g of %.3g, %.3g", what, error, own, most)
    if not error <= most:
        raise ModelError(f"{what} is {error:.2g} from the exact one, expected at most {most:.2g}")


def _size(numbers: torch.Tensor) -> float:
    return float(numbers.pow(2).mean().sqrt())


def _exactly(module: Any, *args: Any, **kwargs: Any) -> Any:
    """What a copy of `module` in the next wider type gives."""
    with InFloat64():
        return copy.deepcopy(module).to(_WIDER[next(module.parameters()).dtype])(*args, **kwargs)


def _wide(given: Any, dtype: torch.dtype) -> Any:
    """What a layer was given, in the next wider type; its cache empty."""
    if isinstance(given, dict):
        return {name: _wide(value, dtype) for name, value in given.items()}
    if isinstance(given, Step):
        keys, values = (
            [torch.zeros_like(part, dtype=_WIDER[dtype]) for part in parts] for parts in (given.keys, given.values)
        )
        return given._replace(keys=keys, values=values)
    if isinstance(given, tuple | list):
        return type(given)(_wide(value, dtype) for value in given)
    return given.to(_WIDER[dtype]) if isinstance(given, torch.Tensor) and given.dtype == dtype else given


def _rows(output: Any) -> torch.Tensor:
    return (output[0] if isinstance(output, tuple) else output)[0]
