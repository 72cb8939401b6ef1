"""What a request and its parameters may hold. What may not is told by name, with what was expected and what came."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.errors import InputError
from penstock.streams.requests.request import MOST_STOP_CHARACTERS, MOST_STOPS, Request, SamplingParams

PARAMS = (
    ({"stop": "END"}, "stop: expected `array`, got `str`"),  # it would stop at an E
    ({"stop": (1,)}, r"stop\[0\]: expected `str`, got `int`"),
    ({"stop": ("a", "")}, "stop: expected strings that are not empty"),
    ({"stop": ("a",) * (MOST_STOPS + 1)}, f"stop: expected at most {MOST_STOPS} strings, got {MOST_STOPS + 1}"),
    ({"stop": ("a" * (MOST_STOP_CHARACTERS + 1),)}, f"stop: expected at most {MOST_STOP_CHARACTERS} characters"),
    ({"seed": "42"}, r"seed: expected `int \| null`, got `str`"),
    ({"seed": 1.5}, r"seed: expected `int \| null`, got `float`"),
    ({"top_k": 2.5}, r"top_k: expected `int \| null`, got `float`"),
    ({"logprobs": True}, r"logprobs: expected `int \| null`, got `bool`"),
    ({"logit_bias": {1.5: 1.0}}, "a key of logit_bias: expected `int`, got `float`"),
    ({"stop_token_ids": (1.5,)}, r"stop_token_ids\[0\]: expected `int`, got `float`"),
    ({"temperature": -1}, r"temperature: expected in \[0, 100\], got -1"),
    ({"temperature": float("nan")}, r"temperature: expected in \[0, 100\], got nan"),
)
REQUESTS = (
    ({"system": 5}, r"system: expected `str \| null`, got `int`"),
    ({"format": ["live"]}, "format: expected `str`, got `array`"),
    ({"video_fps": 1e-305}, r"video_fps: expected a number in \[0.01, 60\], got 1e-305"),
    ({"video_fps": float("inf")}, r"video_fps: expected a number in \[0.01, 60\], got inf"),
    ({"expected_frames": 2.5}, r"expected_frames: expected `int \| null`, got `float`"),
    ({"lateness_us": 10**15}, "lateness_us: expected 0 to 60000000, got 10{15}"),
    ({"prompt_ids": [1.5]}, r"prompt_ids\[0\]: expected `int`, got `float`"),
    ({"processor": "large"}, "processor: expected a dictionary, got str"),
    ({"messages": "Hello."}, "messages: expected a list of {'role': ..., .*}, got 'Hello.'"),
    ({"messages": ["Hello."]}, r"messages\[0\]: expected {'role': ..., .*}, got 'Hello.'"),
    ({"media": 1, "prompt": "a"}, "media: expected a list, got int"),
    ({"prompt": "a\ud800"}, r"prompt: expected Unicode text, got half a character \('\\ud800'\) at 1"),
    ({"params": 3}, "params: expected SamplingParams, got int"),
    ({"params": SamplingParams(seed="a")}, "seed: expected"),  # pyright: ignore[reportArgumentType]
)


@pytest.mark.parametrize(("given", "told"), PARAMS, ids=[str(given)[:40] for given, _ in PARAMS])
def test_parameters_that_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        SamplingParams(**given).check()


@pytest.mark.parametrize(("given", "told"), REQUESTS, ids=[str(given)[:40] for given, _ in REQUESTS])
def test_requests_that_cannot_be(given: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        Request(**given).check()


def test_what_can_be() -> None:
    SamplingParams(stop=["a"], temperature=1, logit_bias={5: 1}, seed=2**70).check()  # pyright: ignore
    Request(prompt_ids=[1, 2], video_fps=0.01, lateness_us=60_000_000).check()
