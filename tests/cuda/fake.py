"""Fake CUDA tensors on any machine: shapes, types and devices without values, and what would make a real host wait."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from penstock.engine.runner.attention import operator, write_and_attend
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
_MASKED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)

_BRACKETS = (torch.Tensor.__getitem__, torch.Tensor.__setitem__, torch.Tensor.copy_)

_READS = (*(getattr(torch.Tensor, f"__{name}__") for name in ("int", "float", "bool", "index")),)
_READS += (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.nonzero)


class Watch(TorchDispatchMode):
    """Fails where a real device would make the host wait though fake tensors do not; counts what leaves the device."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in (aten._to_copy, aten.to):
            return self._move(func, args, kwargs)
        result = func(*args, **kwargs)
        if func in (aten.copy_.default, aten.copy.default) and args[0].device != args[1].device:
            assert kwargs.get("non_blocking") or args[2:3] == (True,), "a copy between host and device waits"
        if func in _MASKED:
            assert not any(index is not None and index.dtype == torch.bool for index in args[1]), "a mask is counted"
        return result

    def _move(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        source, device = args[0], given.get("device")
        if source.device.type == "cpu" and device is not None and torch.device(device).type == "cuda":
            assert given.get("non_blocking"), "a copy to the device waits"
            return torch.empty(source.shape, dtype=given.get("dtype") or source.dtype, device="cuda")
        result = func(*args, **kwargs)
        self.left += (source.device.type, result.device.type) == ("cuda", "cpu")
        return result


class Operators(TorchFunctionMode):
    """Reading a value of a fake CUDA tensor fails. Brackets, `copy_` and `contiguous` go to the operators that they
    come to: torch's own code for them asks for a guard of the device, which a CPU build lacks. What is written is
    checked and, as there are no values, not kept."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is operator:  # what its backend does is watched, rather than what it says of its shapes
            with self:
                return write_and_attend(*args, **kwargs)
        if func is torch.Tensor.numpy and not isinstance(args[0], FakeTensor):
            with unset_fake_temporarily():  # what lies on the host has values
                return func(*args, **kwargs)
        known = func in _BRACKETS or func in _READS or func is torch.Tensor.contiguous
        if not known or not isinstance(args[0], FakeTensor) or args[0].device.type != "cuda":
            return func(*args, **kwargs)
        assert func not in _READS, f"{func.__name__} waits for the device"
        if func is torch.Tensor.contiguous:
            return (
                args[0]
                if args[0].is_contiguous()
                else aten.clone.default(args[0], memory_format=torch.contiguous_format)
            )
        if func is torch.Tensor.copy_:
            aten.copy.default(*args, **kwargs)
            return args[0]
        view, indices = _picked(args[0], args[1])
        if func is torch.Tensor.__getitem__:
            return aten.index.Tensor(view, indices) if indices else view
        value = args[2] if isinstance(args[2], torch.Tensor) else view.new_full((), args[2])
        if indices:
            aten.index_put_.default(view, indices, value)
        else:
            aten.copy.default(view, value)
        return None


def _picked(view: torch.Tensor, key: Any) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
    """A view by the integers, slices and new axes of `key`, and its tensors, one an axis or None."""
    keys = key if isinstance(key, tuple) else (key,)
    taken = sum(part is not None and part is not Ellipsis for part in keys)
    indices: list[torch.Tensor | None] = []
    for part in keys:
        axis = len(indices)
        if part is Ellipsis:
            indices += [None] * (view.dim() - axis - (taken - sum(index is not None for index in indices)))
        elif part is None:
            view = view.unsqueeze(axis)
            indices.append(None)
        elif isinstance(part, slice):
            start, stop, step = part.indices(view.shape[axis])
            view = aten.slice.Tensor(view, axis, start, max(start, stop), step)
            indices.append(None)
            taken -= 1
        elif isinstance(part, torch.Tensor):
            indices.append(part)
        else:
            view = aten.select.int(view, axis, int(part))
            taken -= 1
    return view, indices if any(index is not None for index in indices) else []


FROM_NUMPY = torch.from_numpy


def _host(values: Any) -> torch.Tensor:
    """What lies on the host has values."""
    with unset_fake_temporarily():
        return FROM_NUMPY(values)


class Device:
    """Makes fake CUDA tensors and runs what takes them, watched."""

    def __init__(self) -> None:
        self.mode, self.watch = FakeTensorMode(allow_non_fake_inputs=True), Watch()

    def copied(self, whole: Any) -> Any:
        """A copy whose tensors are fake; what is shared stays shared."""

        def fake(tensor: torch.Tensor, _: Any) -> torch.Tensor:
            with self.mode:
                made = torch.empty_like(tensor, device="cuda", requires_grad=False)
                return torch.nn.Parameter(made, False) if isinstance(tensor, torch.nn.Parameter) else made

        with ExitStack() as stack:
            for kind in (torch.Tensor, torch.nn.Parameter):
                stack.enter_context(mock.patch.object(kind, "__deepcopy__", fake))
            return copy.deepcopy(whole)

    def call(self, work: Any, *args: Any) -> Any:
        with ExitStack() as stack:
            for mode in (mock.patch.object(torch, "from_numpy", _host), self.mode, self.watch, Operators()):
                stack.enter_context(mode)
            return work(*args)
