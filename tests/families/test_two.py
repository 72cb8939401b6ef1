"""The trial asks for two pieces in one prompt as well: a model that is right with one and wrong with two is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.embeddings import Embeddings, Features
from penstock.engine.families.tried_towers import TriedTowers
from penstock.engine.loading.open import load
from penstock.errors import ModelError

from tests.families.built import BUILDERS


@pytest.mark.parametrize(
    ("name", "kind", "given"),
    [
        ("vipllava", "image", "pixel_values"),
        ("llava_next_video", "video", "pixel_values_videos"),
        ("qwen2_audio", "audio", "input_features"),
    ],
)
def test_a_second_piece_that_becomes_other_rows_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str, given: str
) -> None:
    """Rows in another order, where there are two; the kind is left out, and a model that has no other is refused."""
    encode = TriedTowers.encode_prompt

    def turned(towers: TriedTowers, inputs: Any) -> Features:
        several = given in inputs and len(inputs[given]) > 1
        return [
            (one, id, [Embeddings(part.rows.flip(0)) for part in parts] if several and one == kind else parts)
            for one, id, parts in encode(towers, inputs)
        ]

    folder = BUILDERS[name].build(tmp_path)
    assert kind in load(folder, EngineConfig()).family.data.classes
    monkeypatch.setattr(TriedTowers, "encode_prompt", turned)
    words = "of two in one prompt, its logits over pages differ from the library's"
    if kind == "video":
        data = load(folder, EngineConfig()).family.data
        assert words in data.left_out["video"] and "image" in data.classes
        return
    with pytest.raises(ModelError, match=words):
        load(folder, EngineConfig())
