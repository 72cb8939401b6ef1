"""What a structured reply may ask for, checked without a model."""

from __future__ import annotations

from typing import Any

import pytest
from penstock.errors import InputError
from penstock.streams.requests.request import SamplingParams
from penstock.streams.requests.structured import MOST_CHARACTERS, MOST_CHOICES, Structured

DEEP: dict[str, Any] = {}
for _ in range(100_000):
    DEEP = {"items": DEEP}
ROUND: dict[str, Any] = {}
ROUND["items"] = ROUND


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, "structured: expected exactly one of json_schema, json_object, regex, choice, grammar, got none"),
        ({"regex": "a", "json_object": True}, "structured: expected exactly one of .*, got json_object and regex"),
        ({"json_schema": ["a"]}, "structured.json_schema: expected `str | object | null`, got `array`"),
        ({"json_object": 1}, "structured.json_object: expected `bool`, got `int`"),
        ({"regex": 5}, "structured.regex: expected `str | null`, got `int`"),
        ({"choice": ["a", 5]}, "structured.choice: expected `str`, got `int`"),
        ({"choice": []}, "structured.choice: expected 1 to 4096 texts, got 0"),
        ({"choice": ["a"] * (MOST_CHOICES + 1)}, "structured.choice: expected 1 to 4096 texts, got 4097"),
        ({"choice": ["a", ""]}, "structured.choice: expected texts that are not empty, got one at 1 that is"),
        ({"regex": ""}, "structured.regex: expected at least one character, got none"),
        ({"grammar": "a" * (MOST_CHARACTERS + 1)}, "structured.grammar: expected at most 65536 characters, got 65537"),
        (
            {"json_schema": {"enum": ["a" * MOST_CHARACTERS]}},
            "structured.json_schema: expected at most 65536 characters",
        ),
        ({"json_schema": {"const": float("nan")}}, "structured.json_schema: expected JSON, got a value that is none"),
        ({"json_schema": {"const": {1, 2}}}, "structured.json_schema: expected JSON, got a value that is none"),
        ({"json_schema": ROUND}, "structured.json_schema: expected (JSON|less)"),
        ({"json_schema": DEEP}, "structured.json_schema: expected (JSON|less)"),
        ({"regex": "\ud800"}, "structured.regex: expected Unicode text, got half a character"),
        ({"choice": ["\ud800"]}, "structured.choice: expected Unicode text, got half a character"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said_with_its_place(given: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=f"^{error}"):
        SamplingParams(structured=Structured(**given)).check()


def test_what_is_right_passes() -> None:
    right: list[dict[str, Any]] = [
        {"json_schema": {}},
        {"json_schema": "{"},
        {"json_object": True},
        {"choice": ["ü"]},
        {"regex": "a"},
    ]
    for given in right:
        SamplingParams(structured=Structured(**given)).check()
