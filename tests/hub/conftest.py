"""Puts this folder on the path, so that its tests find `local_hub`, `visit` and `layout`; a Hub and a home for each."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from local_hub import LocalHub


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What HF_HOME is set to: an empty cache."""
    return tmp_path / "home"
