"""What all tests share: hypothesis profiles, the wheels' mending before `transformers` is imported, fixture models, one
server with Brook.

`quick` is the default profile: few examples, other ones in each run. The run's seed is printed at its end, and what has
failed once is kept (`database`) and tried first the next time. Where slow tests are asked for (`-m slow`), all property
tests run in the profile `deep` beside those that are marked; `PENSTOCK_TESTS=deep` sets that profile for any choice of
tests.
"""

from __future__ import annotations

import faulthandler
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.core
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from tests.fixtures.loaded import plain

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which libraries do by the way

CACHE = Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")
SEED = random.SystemRandom().getrandbits(32)
ANNOUNCED = "penstock: serving on "

settings.register_profile(
    "quick",
    max_examples=8,
    deadline=None,
    database=DirectoryBasedExampleDatabase(CACHE / "hypothesis"),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("deep", settings.get_profile("quick"), max_examples=300)


def slow_are_asked_for(config: pytest.Config) -> bool:
    chosen = str(config.getoption("markexpr", "") or "")
    return "slow" in chosen and "not slow" not in chosen


def pytest_configure(config: pytest.Config) -> None:
    from penstock.codecs.wheels import mend_wheels

    mend_wheels()  # any test file may import transformers
    deep = os.environ.get("PENSTOCK_TESTS") == "deep" or slow_are_asked_for(config)
    settings.load_profile("deep" if deep else "quick")
    if config.getoption("hypothesisseed", None) is None:
        hypothesis.core.global_force_seed = SEED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    seed = hypothesis.core.global_force_seed
    terminalreporter.write_line(f"the same examples again: --hypothesis-seed={seed}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Where slow tests are asked for every property test is one, with time for it."""
    if slow_are_asked_for(item.config) and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(3600))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """A test that may take longer than `faulthandler_timeout` is bounded by its own time alone."""
    own = item.get_closest_marker("timeout")
    if own is not None and own.args[0] > float(item.config.getini("faulthandler_timeout")):
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def brook_url() -> Iterator[str]:
    """The address of `penstock serve` with Brook, in a process of its own; one for the whole run."""
    serve = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCED), f"expected the server's address, got {line!r}"
            yield line.removeprefix(ANNOUNCED).strip()
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def omni_name(request: pytest.FixtureRequest) -> str:
    """The model that sees and hears: the Qwen2.5-Omni thinker, or the one that a test asks for (`both_omni`)."""
    return getattr(request, "param", "omni")


@pytest.fixture(scope="session")
def omni(omni_name: str) -> tuple[Any, Any]:
    """This model and its processor, loaded by plain `transformers`."""
    return plain(omni_name)


@pytest.fixture(scope="session")
def text_qwen() -> tuple[Any, Any]:
    """The small text Qwen and its tokenizer, loaded by plain `transformers`."""
    return plain("text")


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def sight_name(request: pytest.FixtureRequest) -> str:
    """Each of the models in turn that see and do not hear."""
    return request.param


@pytest.fixture(scope="session")
def sight_plain(sight_name: str) -> tuple[Any, Any]:
    """Such a model and its processor, loaded by plain `transformers`."""
    return plain(sight_name)


@pytest.fixture(scope="session", params=["llava", "llava_onevision", "gemma3", "smolvlm"])
def still_name(request: pytest.FixtureRequest) -> str:
    """Each of the models in turn whose rows stand on one axis of positions."""
    return request.param


@pytest.fixture(scope="session")
def still_plain(still_name: str) -> tuple[Any, Any]:
    """Such a model and its processor, loaded by plain `transformers`."""
    return plain(still_name)
