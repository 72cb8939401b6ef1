"""What cannot be served says so in one line when it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import ModelError

from tests.families.refused import REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_line_with_its_reason(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        load(REFUSED[name].build(tmp_path), EngineConfig())
    said = str(refused.value)
    assert REFUSED[name].reason in said
    assert "\n" not in said
