"""The fixture models, loaded by the engine once."""

from __future__ import annotations

import pytest
import torch
import transformers
from penstock.engine.brook.recipe import model_path
from penstock.engine.config import EngineConfig
from penstock.engine.core import load
from penstock.engine.family import Loaded

transformers.logging.set_verbosity_error()
# The models are so small that a second thread costs more than it gives.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def omni_loaded() -> Loaded:
    """The small Qwen2.5-Omni thinker as the engine serves it."""
    return load(model_path("omni"), EngineConfig())


@pytest.fixture(scope="session")
def text_loaded() -> Loaded:
    """The small text Qwen as the engine serves it."""
    return load(model_path("text"), EngineConfig())
