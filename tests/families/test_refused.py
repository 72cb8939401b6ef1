"""What cannot be served says so in one line when it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import ModelError

from tests.families.refused import REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    refusal = REFUSED[name]
    folder = refusal.build(tmp_path)
    with pytest.raises(ModelError) as refused:
        load(folder, EngineConfig())
    said = str(refused.value)
    assert refusal.words in said
    assert "\n" not in said
