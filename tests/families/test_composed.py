"""Any tower with any decoder that a LLaVA's configuration puts together: each pair is right, or refused with its
reason.

One prompt with two pictures equals `generate`; pictures before and in a reply equal a dense pass over all that the
cache holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families import composed as composed_family
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from penstock.streams.requests.request import Request, SamplingParams
from PIL import Image

from tests.engine.rig import TOLERANCE, Rig
from tests.engine.test_oracle1 import REPLY, generated, stock, turn
from tests.engine.test_tried_pictures import SMALL, TALL, WIDE, dense
from tests.families.composed import PAIRS, REFUSED, SERVED, compose
from tests.families.compositions import PAGE

# Of each way one is looked at in every run; the others are slow.
QUICK = [("pixtral", "olmo2"), ("clip", "gemma2")]
QUICK_REFUSED = [("clip", "gpt_oss"), ("siglip2", "qwen2")]


def quick(pairs: list[tuple[str, str]], chosen: list[tuple[str, str]]) -> list[object]:
    assert set(chosen) <= set(pairs)
    marks = {True: (), False: (pytest.mark.slow,)}
    return [pytest.param(*pair, id=" and ".join(pair), marks=marks[pair in chosen]) for pair in pairs]


@pytest.mark.parametrize(("sight", "text"), quick(SERVED, QUICK))
def test_a_pair_that_is_served_is_right(sight: str, text: str, tmp_path: Path) -> None:
    loaded = load(compose(tmp_path, sight, text), EngineConfig())
    # The fast attention of transformers 5.17 leaves out Gemma 2's caps.
    model = hf.AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager")
    processor = hf.AutoProcessor.from_pretrained(tmp_path)
    ids, logits, _ = generated(
        loaded,
        Request(
            messages=[turn(("image", WIDE), ("image", SMALL), "What do you see?")],
            positions="transformers",
            params=SamplingParams(max_tokens=REPLY),
        ),
    )
    shown = [("image", Image.fromarray(pixels)) for pixels in (WIDE, SMALL)]
    wanted, by_library = stock(model, processor, [turn(*shown, "What do you see?")])
    assert ids == wanted
    torch.testing.assert_close(torch.stack(logits), by_library, rtol=0, atol=bound(by_library))
    assert_in_mid_reply(loaded, model, processor)


def bound(logits: torch.Tensor) -> float:
    """How far logits may be from these."""
    return TOLERANCE * max(1.0, float(logits.abs().max()) / 10)


def assert_in_mid_reply(loaded: Loaded, model: object, processor: object) -> None:
    rig = Rig(loaded, page_tokens=4, append_rows=7)
    session = rig.open(format="live")
    session.image(WIDE)
    rig.step(2)
    session.image(SMALL)
    session.ask("What do you see?", max_tokens=12)
    rig.step(6)
    session.image(TALL)
    rig.run()
    transcript, _ = session.transcript()
    logits, other = (dense(model, processor, transcript, [WIDE, SMALL, last]) for last in (TALL, TALL[::-1].copy()))
    for row, (token, drawn) in session.draws.items():
        assert float((drawn - logits[row]).abs().max()) < bound(logits[row])
        assert token == int(drawn.argmax())
    assert max(float((drawn - other[row]).abs().max()) for row, (_, drawn) in session.draws.items()) > 0.1  # it sees


@pytest.mark.parametrize(("sight", "text"), quick([*REFUSED], QUICK_REFUSED))
def test_a_pair_that_is_not_served_says_why_in_one_line(sight: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        load(compose(tmp_path, sight, text), EngineConfig())
    assert REFUSED[sight, text] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_tower_that_gives_other_rows_than_its_family_counts_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that look it would be laid with wrong rows."""
    monkeypatch.setattr(composed_family, "_TOWERS", ())
    folder = compose(tmp_path, "clip", "llama")
    assert type(load(folder, EngineConfig()).towers).__name__ == "LlavaTowers"
    monkeypatch.setattr("penstock.engine.families.llava.LlavaTowers.rows", lambda towers, segment: 7)
    assert type(load(folder, EngineConfig()).towers).__name__ == "TriedTowers"


def test_a_decoder_without_its_towers_is_compared_as_well(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its logits over pages differ"):
        load(compose(tmp_path, "clip", "gpt_oss"), EngineConfig(language_only=True))


def test_the_page_has_a_line_for_each_pair() -> None:
    found = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| (.*) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [(sight, text) for sight, text, *_ in found] == PAIRS
    for sight, text, how, why in found:
        assert bool(how.strip()) == ((sight, text) in SERVED)
        assert (sight, text) in SERVED or REFUSED[sight, text] in why.replace("\\|", "|")
