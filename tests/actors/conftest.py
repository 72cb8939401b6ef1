"""Engines with the small Omni model; a test that leaves tasks, threads, pages or streams behind fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.runner.library import transformers

from tests.actors.encoded import encode_all
from tests.fixtures.recipe import model_path

transformers.logging.set_verbosity_error()

SECONDS = 60.0
Work = Coroutine[Any, Any, Any]


def run_in(loop_factory: Callable[[], asyncio.AbstractEventLoop], work: Work) -> Any:
    """Run `work` to its end in a loop of its own; no task and no thread of an engine may be left, nothing be logged."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        result = runner.run(_watched(work))
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock-")]
    return result


async def _watched(work: Work) -> Any:
    loud: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loud.append(context))
    async with asyncio.timeout(SECONDS):
        result = await work
    assert not [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not loud
    return result


class House:
    """Makes engines for one test, and runs it."""

    def __init__(self, loaded: Loaded, encoded: bool) -> None:
        self.loaded = loaded
        self.encoded = encoded

    def run(self, work: Work) -> Any:
        return run_in(uvloop.new_event_loop if self.encoded else asyncio.new_event_loop, work)

    @contextlib.asynccontextmanager
    async def engine(
        self,
        loaded: Loaded | None = None,
        observer: Callable[[str, str, Any], None] | None = None,
        parked_seconds: float = 60.0,
        **config: Any,
    ) -> AsyncIterator[Engine]:
        """An engine that is closed at the end; then no page is held and nothing waits."""
        setup = EngineConfig(**{"kv_tokens": 8192, **config})
        with pytest.MonkeyPatch.context() as patch:
            if self.encoded:
                encode_all(patch)
            engine = Engine(loaded or self.loaded, setup, observer=observer, parked_seconds=parked_seconds)
        try:
            yield engine
        finally:
            await engine.close()
        if engine.failed is None:
            engine.check()
            figures = engine.statistics()
            assert figures["streams"] == 0
            assert figures["pages_free"] == figures["pages"]
            assert figures["span_bytes"] == 0
            assert figures["segments_waiting"] == 0
            assert figures["lookback_bytes"] == 0


@pytest.fixture(scope="session")
def loaded() -> Loaded:
    """The small Qwen2.5-Omni thinker as the engine serves it. Its towers are shared by all engines of the run."""
    return load(model_path("omni"), EngineConfig())


# Tests of what is said between actors run a second time, on uvloop and with all messages encoded and decoded.
ENCODED = ("test_stream", "test_failure", "test_fork")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "house" in metafunc.fixturenames:
        both = metafunc.definition.path.stem in ENCODED
        ways = ["plain", "encoded"] if both else ["plain"]
        metafunc.parametrize("house", ways, indirect=True)


@pytest.fixture
def house(request: pytest.FixtureRequest, loaded: Loaded) -> House:
    """On asyncio, or on uvloop with all messages encoded and decoded."""
    return House(loaded, request.param == "encoded")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Work], Any]:
    """Runs a coroutine that needs no engine."""
    return lambda work: run_in(request.param, work)
