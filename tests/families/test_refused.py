"""What a load says of families that it does not serve."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import ModelError

from tests.families.refused import REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line_that_says_why(name: str, tmp_path: Path) -> None:
    without = REFUSED[name].without
    if without is not None and find_spec(without):
        pytest.skip(f"{without} is installed")
    with pytest.raises(ModelError) as refusal:
        load(REFUSED[name].build(tmp_path), EngineConfig())
    assert REFUSED[name].reason in str(refusal.value)
    assert "\n" not in str(refusal.value)
