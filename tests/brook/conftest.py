"""Words for Brook's world. Takes of espeak-ng where it is installed; tests that need real
words ask for `bank`."""

from __future__ import annotations

import shutil

import pytest
from penstock.demos.brook.sound import Bank
from penstock.demos.brook.world import WORDS


@pytest.fixture(scope="session")
def bank() -> Bank:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed: no words can be said")
    return Bank(range(20_000, 20_002), half=1, others=1)


@pytest.fixture(scope="session")
def word_seconds() -> dict[str, list[float]]:
    """How long words last, for scenes whose sound is not made."""
    return {word: [0.3, 0.45, 0.6] for word in (*WORDS, "other")}


@pytest.fixture(scope="session")
def server(bank: Bank, brook_url: str) -> str:
    """The URL of `penstock serve` with Brook. Films need words, so espeak-ng."""
    return brook_url
