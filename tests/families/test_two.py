"""The trial asks for two pieces in one prompt as well: a model that is right with one and wrong with two is refused.
What an attempt that fails has found holds no longer."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.embeddings import Embeddings, Features
from penstock.engine.families.together import Ahead, Together
from penstock.engine.families.trial import FamilyTrial
from penstock.engine.families.tried_towers import TriedTowers
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from penstock.streams.segment import Segment

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


def test_other_rows_beside_another_kind_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they are fewer. InternVL's pictures and frames share a placeholder: each has the rows of both."""
    encode = TriedTowers.encode_prompt

    def fewer(towers: TriedTowers, inputs: Any) -> Features:
        mixed = len(inputs["pixel_values"]) == 5  # a picture and four frames
        return [
            (kind, id, [Embeddings(part.rows[:-1]) for part in parts] if mixed else parts)
            for kind, id, parts in encode(towers, inputs)
        ]

    folder = BUILDERS["internvl"].build(tmp_path)
    monkeypatch.setattr(TriedTowers, "encode_prompt", fewer)
    data = load(folder, EngineConfig()).family.data
    assert data.classes == {"image": "A"}
    assert data.left_out["video"] == "its rows of a picture are others in a prompt with frames too"


def test_what_an_attempt_that_fails_has_found_holds_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first finds rows that see one another, and fails; the second finds none such, and is right. What a kind had
    goes with it."""
    look, calls, found = TriedTowers.look, itertools.count(), iter([Ahead(Together.PIECE, True)])

    def other_at_first(towers: TriedTowers, segment: Segment) -> Any:
        laid, seen = look(towers, segment)
        return laid, seen if next(calls) else Embeddings(seen.rows.flip(0))

    monkeypatch.setattr(TriedTowers, "look", other_at_first)
    monkeypatch.setattr(FamilyTrial, "_rules", lambda *_: next(found, Ahead()))
    monkeypatch.setattr(FamilyTrial, "_over_pages", lambda *_: None)
    loaded = load(BUILDERS["vipllava"].build(tmp_path), EngineConfig())
    towers: Any = loaded.towers
    assert towers.senses["image"].encode is None  # the second way
    assert loaded.family.data.classes == {"image": "A"} and not loaded.ahead_in_windows
    towers.ways["image"] = Ahead(Together.PIECE, True)
    assert towers.ahead_in_windows
    towers.leave_out("image")
    assert not towers.ahead_in_windows
