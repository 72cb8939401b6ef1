"""Puts this folder on the path, so that its tests find the fake engine and the harness; names the engines."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["fake", "real"])
def engine_kind(request: pytest.FixtureRequest) -> str:
    """Which engine a test of the protocol runs with; see `harness.running_engine`."""
    return request.param
