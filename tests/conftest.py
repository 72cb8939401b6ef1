"""What all tests share: hypothesis profiles, the wheels' mending before `transformers` is imported, fixture models.

`quick` is the default profile. Where slow tests are asked for (`-m slow`), all property tests run in the profile `deep`
beside those that are marked; `PENSTOCK_TESTS=deep` sets that profile for any choice of tests.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which libraries do by the way

settings.register_profile(
    "quick",
    max_examples=12,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("deep", settings.get_profile("quick"), max_examples=300, derandomize=False)


def slow_are_asked_for(config: pytest.Config) -> bool:
    chosen = str(config.getoption("markexpr", "") or "")
    return "slow" in chosen and "not slow" not in chosen


def pytest_configure(config: pytest.Config) -> None:
    from penstock.codecs.wheels import mend_wheels

    mend_wheels()  # any test file may import transformers
    deep = os.environ.get("PENSTOCK_TESTS") == "deep" or slow_are_asked_for(config)
    settings.load_profile("deep" if deep else "quick")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Where slow tests are asked for every property test is one, with time for it."""
    if slow_are_asked_for(item.config) and getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def omni_name(request: pytest.FixtureRequest) -> str:
    """The model that sees and hears: the Qwen2.5-Omni thinker, or the one that a test asks for (`both_omni`)."""
    return getattr(request, "param", "omni")


@pytest.fixture(scope="session")
def omni(omni_name: str) -> tuple[Any, Any]:
    """This model and its processor, loaded by plain `transformers`."""
    import transformers as hf
    from penstock.engine.brook.recipe import model_path

    path = model_path(omni_name)
    if omni_name == "qwen3_omni":
        model = hf.Qwen3OmniMoeThinkerForConditionalGeneration.from_pretrained(path)
        return model, hf.Qwen3OmniMoeProcessor.from_pretrained(path)
    model = hf.Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(path)
    return model, hf.Qwen2_5OmniProcessor.from_pretrained(path)


@pytest.fixture(scope="session")
def text_qwen() -> tuple[Any, Any]:
    """The small text Qwen and its tokenizer, loaded by plain `transformers`."""
    from penstock.engine.brook.recipe import model_path
    from transformers import AutoTokenizer, Qwen2ForCausalLM

    path = model_path("text")
    return Qwen2ForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def sight_name(request: pytest.FixtureRequest) -> str:
    """Each of the models in turn that see and do not hear."""
    return request.param


@pytest.fixture(scope="session")
def sight_plain(sight_name: str) -> tuple[Any, Any]:
    """Such a model and its processor, loaded by plain `transformers`."""
    from penstock.engine.brook.recipe import model_path
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = model_path(sight_name)
    return AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)


@pytest.fixture(scope="session", params=["llava", "llava_onevision", "gemma3", "smolvlm"])
def still_name(request: pytest.FixtureRequest) -> str:
    """Each of the models in turn whose rows stand on one axis of positions."""
    return request.param


@pytest.fixture(scope="session")
def still_plain(still_name: str) -> tuple[Any, Any]:
    """Such a model and its processor, loaded by plain `transformers`."""
    from penstock.engine.brook.recipe import model_path
    from transformers import AutoModelForImageTextToText, AutoProcessor

    path = model_path(still_name)
    return AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)
