"""Where CUDA is tested: without a device in Triton's interpreter and with fake tensors, with `-m gpu` on a real one.

tests/conftest.py has Triton interpreted where there is no device.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import torch

_COMPILED = pytest.StashKey[int]()
_ON_A_DEVICE = pytest.StashKey[list[str]]()
_passed: set[str] = set()


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


def _stamp() -> Path:
    """A file that is there once the kernels have been compiled as they are now."""
    engine = Path(__file__).parents[2] / "engine"
    names = ("runner/attention*.py", "runner/pointwise*.py", "runner/graphs.py", "runner/language.py", "families/*.py")
    sources = sorted(path for name in names for path in engine.glob(name))
    content = hashlib.blake2b(b"".join(path.read_bytes() for path in sources), digest_size=16).hexdigest()
    cache = Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")
    return cache / "compiled" / f"{content}-torch{torch.__version__}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed and Path(report.nodeid.split("::")[0]).name == "test_compiled.py":
        _passed.add(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What this run has seen compile, all of it, needs no second look."""
    if _passed and len(_passed) == session.config.stash.get(_COMPILED, 0):
        _stamp().parent.mkdir(parents=True, exist_ok=True)
        _stamp().touch()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Kernels that were compiled as they are now are compiled again only among the slow tests."""
    compiled = [item for item in items if item.path.name == "test_compiled.py"]
    config.stash[_COMPILED] = len(compiled)
    config.stash[_ON_A_DEVICE] = [item.name for item in items if item.get_closest_marker("gpu")]
    if _stamp().exists():
        for item in compiled:
            item.add_marker(pytest.mark.slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"needs a CUDA device; torch {torch.__version__} sees none"))


@pytest.fixture
def on_a_device(request: pytest.FixtureRequest) -> list[str]:
    """The names of the collected tests that `-m gpu` chooses."""
    return request.config.stash[_ON_A_DEVICE]
