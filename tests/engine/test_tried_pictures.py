"""Models for pictures that nobody named: tried at load, served where the numbers agree, else refused."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.embeddings import Embeddings
from penstock.engine.families import llava as llava_family
from penstock.engine.families import tried as tried_family
from penstock.engine.families.alone import Alone
from penstock.engine.families.together import Ahead
from penstock.engine.families.trial import FamilyTrial
from penstock.engine.families.tried_towers import TriedTowers
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import InputError, ModelError
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import ImageSegment, Segment
from PIL import Image

from tests.families.beside import idefics
from tests.fixtures.parts import draw, quiet
from tests.fixtures.recipe import model_path
from tests.reference.media import picture

from .rig import TOLERANCE, Rig
from .test_oracle1 import REPLY, assert_equal, generated, stock, turn
from .tried import BUILDERS, several_axes

WIDE, TALL, SMALL = picture(1, 60, 130), picture(2, 120, 50), picture(3, 40, 40)


@pytest.fixture(scope="module", params=BUILDERS)
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Any, Any]:
    """The model as the engine serves it, by plain `transformers`, and its processor."""
    folder = BUILDERS[request.param](tmp_path_factory.mktemp(request.param))
    model = hf.AutoModelForImageTextToText.from_pretrained(folder)
    return load(folder, EngineConfig()), model, hf.AutoProcessor.from_pretrained(folder)


def dense(model: Any, processor: Any, ids: list[int], pictures: list[np.ndarray]) -> torch.Tensor:
    """The library's logits of a whole sequence in which these pictures stand, wherever that is."""
    marks = processor.image_token * len(pictures)
    shown = [Image.fromarray(pixels) for pixels in pictures]
    inputs = processor(text=[marks], images=[shown], return_tensors="pt")
    media = {name: value for name, value in inputs.items() if "pixel" in name or "size" in name}
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), **media).logits[0]


def test_one_shot_equals_generate(tried: tuple[Loaded, Any, Any]) -> None:
    loaded, model, processor = tried
    for media in ([WIDE], [SMALL, TALL]):
        messages = [turn(*(("image", pixels) for pixels in media), "What do you see?")]
        request = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=REPLY))
        shown = [turn(*(("image", Image.fromarray(pixels)) for pixels in media), "What do you see?")]
        assert_equal(generated(loaded, request), stock(model, processor, shown))


@pytest.mark.parametrize("steps", [0, 3])
def test_pictures_before_and_in_a_reply_equal_a_dense_forward(tried: tuple[Loaded, Any, Any], steps: int) -> None:
    loaded, model, processor = tried
    rig = Rig(loaded, page_tokens=4, append_rows=7)
    session = rig.open(format="live")
    shown = [WIDE, SMALL, TALL, WIDE]
    for pixels in shown[:2]:
        session.image(pixels)
        rig.step(steps)
    session.ask("What do you see?", max_tokens=16)
    rig.step(6)
    for pixels in shown[2:]:
        session.image(pixels)
        rig.step(steps)
    rig.run()
    ids, positions = session.transcript()
    assert positions[0].tolist() == list(range(len(ids)))
    logits = dense(model, processor, ids, shown)
    assert len(session.draws) == 16
    for row, (token, drawn) in session.draws.items():
        assert float((drawn - logits[row]).abs().max()) < TOLERANCE
        assert token == int(drawn.argmax())
    other = dense(model, processor, ids, [WIDE[::-1].copy(), *shown[1:]])
    assert max(float((drawn - other[row]).abs().max()) for row, (_, drawn) in session.draws.items()) > 0.1


def test_qwen3_vl_of_experts_is_served_as_qwen3_vl_is(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_path("qwen3_vl"), folder)
    config = json.loads((folder / "config.json").read_text())
    experts = {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 80,
        "model_type": "qwen3_vl_moe_text",
    }
    vision = config["vision_config"] | {"model_type": "qwen3_vl_moe_vision"}
    config |= {"text_config": config["text_config"] | experts, "vision_config": vision, "model_type": "qwen3_vl_moe"}
    model = hf.Qwen3VLMoeForConditionalGeneration(hf.Qwen3VLMoeConfig(**config)).float().eval()
    processor = hf.AutoProcessor.from_pretrained(folder)
    draw(model, 4)
    quiet(model, processor.tokenizer)
    model.generation_config = hf.GenerationConfig.from_pretrained(folder)
    model.save_pretrained(folder)
    loaded = load(folder, EngineConfig())
    assert loaded.family.data.name == "qwen3_vl_moe" and loaded.family.modalities == ("image", "video")
    messages = [turn(("image", WIDE), "What do you see?")]
    request = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=REPLY))
    assert_equal(generated(loaded, request), stock(model, processor, messages))


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("wav2vec2", "transformers has no model for it that takes media or text and says text"),
        ("bart", "its decoder reads the states of an encoder"),
    ],
)
def test_what_would_not_be_heard_is_refused_by_name(tmp_path: Path, model_type: str, reason: str) -> None:
    """Before a weight is read, in one line."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ModelError, match=rf"^[^\n]*'{model_type}' is not served: {reason}[^\n]*$"):
        load(tmp_path, EngineConfig())


def test_a_rule_for_positions_that_is_called_otherwise_is_found_by_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tried_family, "hasattr", lambda thing, name: "rope" not in name and hasattr(thing, name), raising=False
    )
    with pytest.raises(ModelError, match="logits .* differ .*: its positions are not counted one by one from the pict"):
        load(several_axes(tmp_path, "glm_ocr"), EngineConfig())


def test_what_neither_its_family_nor_the_trial_can_load_says_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, and a bare error has its type."""

    def bare(*_: object) -> None:
        raise KeyError("crop_size")

    for module in (llava_family, tried_family):
        monkeypatch.setattr(module, "load", bare)
    why = "its family says: KeyError: 'crop_size'; tried as any other: KeyError: 'crop_size'; served are"
    with pytest.raises(ModelError, match=rf"model type 'llava' is not served: {why}"):
        load(model_path("llava"), EngineConfig())


def test_frames_are_not_taken_by_what_has_pictures_alone(tried: tuple[Loaded, Any, Any]) -> None:
    if "video" in tried[0].family.modalities:
        return
    session = Rig(tried[0]).open()
    with pytest.raises(InputError, match=r"expected one of what this model takes \(text, image\), got video"):
        session.frame(WIDE, 0)


def test_what_does_not_compute_the_same_is_refused(tmp_path: Path) -> None:
    reason = r"expected layers that see rows of the cache alone, got cross_layer_interval 1; served are gemma3"
    with pytest.raises(ModelError, match=f"model type 'idefics' is not served: {reason}"):
        load(idefics(tmp_path), EngineConfig())


def test_rows_that_see_one_another_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma 3 has a family of its own, which knows that. As a model that nobody named it has class D too, since the
    library's masks say so; where they are not asked, its logits do."""
    where = model_path("gemma3"), torch.float32, torch.device("cpu")
    loaded = tried_family.load(*where)
    assert loaded.family.data.classes == {"image": "D"} and loaded.family.data.most_together == 24  # its window
    with (
        monkeypatch.context() as patch,
        pytest.raises(InputError, match="image: expected at most 3 rows that .* got 4"),
    ):
        patch.setattr(TriedTowers, "most_together", 3)
        loaded.towers.encode([(1, ImageSegment(1, 0, WIDE))])
    monkeypatch.setattr(FamilyTrial, "_rules", lambda *_: Ahead())
    with pytest.raises(ModelError, match="its logits over pages differ from the library's by"):
        tried_family.load(*where)


def test_other_features_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a whole prompt, and others each time; those of a picture alone keep it to whole prompts."""
    features, look = TriedTowers._features, TriedTowers.look
    folder = BUILDERS["llava_next"](tmp_path)
    for first, words in ((0, "logits over pages differ"), (1, "there is chance in it")):
        calls = itertools.count()

        def other(self: TriedTowers, *what: Any, calls: Any = calls, first: int = first) -> Embeddings | None:
            seen = features(self, *what)
            return Embeddings(seen.rows.flip(0)) if seen and next(calls) >= first else seen

        monkeypatch.setattr(TriedTowers, "_features", other)
        with pytest.raises(ModelError, match=words):
            load(folder, EngineConfig())
    monkeypatch.setattr(TriedTowers, "_features", features)

    def flipped(self: TriedTowers, segment: Segment) -> tuple[Alone, Embeddings]:
        laid, seen = look(self, segment)
        return laid, Embeddings(seen.rows.flip(0))

    monkeypatch.setattr(TriedTowers, "look", flipped)
    assert load(folder, EngineConfig()).family.data.classes == {"image": "F"}


def test_a_model_of_half_precision_passes_its_trial(tmp_path: Path) -> None:
    loaded = load(BUILDERS["mistral3"](tmp_path), EngineConfig(dtype="bfloat16"))
    assert loaded.dtype == torch.bfloat16


@pytest.mark.parametrize("config", [{"model_type": "videoprism_of_tomorrow"}, {"model_type": "wav2vec2"}])
def test_a_type_that_is_unknown_is_refused_with_what_is_served(tmp_path: Path, config: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=f"{config['model_type']}.*served are gemma3, gemma3_text, llama"):
        load(tmp_path, EngineConfig())
