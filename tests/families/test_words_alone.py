"""A text model that the library lists among those that see: served as one of text."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.engine.rig import TOLERANCE, Rig
from tests.families.built import BUILDERS
from tests.families.suite import opened


def test_its_replies_equal_a_dense_pass(tmp_path: Path) -> None:
    tried = opened(BUILDERS["mistral4"].build(tmp_path))
    assert not tried.kinds
    rig = Rig(tried.loaded, page_tokens=4, append_rows=5)
    session = rig.open()
    session.ask("What do you see?", max_tokens=8)
    rig.run()
    ids, _ = session.transcript()
    with torch.inference_mode():
        logits = tried.model(torch.tensor([ids])).logits[0]
    assert len(session.draws) >= 8
    for row, (token, drawn) in session.draws.items():
        assert float((drawn - logits[row]).abs().max()) < TOLERANCE * max(1.0, float(logits[row].abs().max()))
        assert token == int(drawn.argmax())
