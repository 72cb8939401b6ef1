"""The fixture models, loaded by the engine once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from penstock.engine.family import Loaded
from penstock.engine.loading import compute

from tests.fixtures.loaded import WORDS, plain, served

transformers.logging.set_verbosity_error()
# The models are so small that a second thread costs more than it gives.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def omni_loaded(omni_name: str) -> Loaded:
    """The model that sees and hears as the engine serves it."""
    return served(omni_name)


@pytest.fixture(scope="session")
def text_loaded() -> Loaded:
    """The small text Qwen as the engine serves it."""
    return served("text")


@pytest.fixture(scope="session", params=WORDS)
def text_name(request: pytest.FixtureRequest) -> str:
    """Each of the text models in turn."""
    return request.param


@pytest.fixture(scope="session")
def text_plain(text_name: str) -> tuple[Any, Any]:
    """The text model and its tokenizer, loaded by plain `transformers`."""
    return plain(text_name)


@pytest.fixture(scope="session")
def text_served(text_name: str) -> Loaded:
    """The same text model as the engine serves it."""
    return served(text_name)


@pytest.fixture(scope="session")
def sight_served(sight_name: str) -> Loaded:
    """The same model as the engine serves it."""
    return served(sight_name)


@pytest.fixture(scope="session")
def still_served(still_name: str) -> Loaded:
    """The same model as the engine serves it."""
    return served(still_name)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """Free bytes by device, to be set by a test; a device that is not set has plenty."""
    given: dict[str, int | None] = {}
    monkeypatch.setattr(compute, "free_bytes", lambda device: given.get(device, 1 << 50))
    return given
