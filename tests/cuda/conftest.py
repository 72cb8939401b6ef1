"""Where CUDA is tested: without a device in Triton's interpreter and with fake tensors, with `-m gpu` on a real one.

tests/conftest.py has Triton interpreted where there is no device.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    if not torch.cuda.is_available():
        _mend_interpreter()


def _mend_interpreter() -> None:
    """Triton's interpreter keeps bfloat16 as bit patterns and multiplies these in `tl.dot`; they are widened first."""
    try:
        import triton.language as tl  # pyright: ignore[reportMissingImports]
        from triton.runtime import interpreter as triton  # pyright: ignore[reportMissingImports]
    except ImportError:
        return  # not Linux; test_triton.py says so
    dot = triton.InterpreterBuilder.create_dot

    def wide(handle: Any) -> Any:
        if handle.dtype != tl.bfloat16:
            return handle
        data = triton._convert_float(handle.data, tl.bfloat16, tl.float32, None).view("float32")
        return triton.TensorHandle(data, tl.float32)

    def create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
        return dot(self, wide(a), wide(b), d, input_precision, max_num_imprecise_acc)

    triton.InterpreterBuilder.create_dot = create_dot


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"needs a CUDA device; torch {torch.__version__} sees none"))
