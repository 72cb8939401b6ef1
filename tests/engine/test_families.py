"""What is learnt from a checkpoint, and which checkpoints are taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from penstock.codecs.frame import Pixels, Samples
from penstock.engine.config import EngineConfig
from penstock.engine.family import Family, Loaded
from penstock.engine.loading.open import load
from penstock.errors import InputError, ModelError
from penstock.streams.segment import Segment
from penstock.streams.timeline import Timeline
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Qwen2_5OmniConfig

from tests.fixtures.recipe import model_path
from tests.reference.media import frames, picture, sound

from .rig import Rig


def test_wrappers_are_those_of_the_template(omni_loaded: Loaded) -> None:
    family = omni_loaded.family
    words = {name: family.tokenizer.decode(ids) for name, ids in family.turn_ids.items()}
    assert words == {
        "user_start": "<|im_start|>user\n",
        "user_end": "<|im_end|>\n",
        "assistant_start": "<|im_start|>assistant\n",
        "assistant_end": "<|im_end|>\n",
    }
    blocks = {name: tuple(map(family.tokenizer.decode, ids)) for name, ids in family.block_ids.items()}
    assert blocks == {
        "image": ("<|vision_bos|>", "<|vision_eos|>"),
        "video": ("<|vision_bos|>", "<|vision_eos|>"),
        "audio": ("<|audio_bos|>", "<|audio_eos|>"),
        "unit": ("<|vision_bos|><|audio_bos|>", "<|audio_eos|><|vision_eos|>"),
    }
    assert family.tokenizer.decode(family.system_ids(None)).startswith("<|im_start|>system\nYou are")
    assert family.tokenizer.decode(family.system_ids("Watch.")) == "<|im_start|>system\nWatch.<|im_end|>\n"


def with_classes(loaded: Loaded, classes: dict[str, str]) -> Loaded:
    data = msgspec.structs.replace(loaded.family.data, classes=classes)
    return loaded._replace(family=Family(data, loaded.family.tokenizer))


def test_a_class_that_nothing_knows_how_to_append_is_refused(omni_loaded: Loaded) -> None:
    for letter in ("C", "G"):
        with pytest.raises(ModelError, match=f"expected A, B, D, E, F, got {{'audio': '{letter}'}}: not served yet"):
            with_classes(omni_loaded, {"image": "A", "audio": letter})


def test_media_that_would_change_the_cache_waits_for_a_turn(omni_loaded: Loaded) -> None:
    rig = Rig(with_classes(omni_loaded, {"image": "F", "video": "F"}))
    with pytest.raises(InputError, match="expected turns or interrupt, .* image, video of qwen2_5_omni.* would change"):
        rig.open(format="live")
    for _ in range(2):
        session = rig.open(format="turns", system="You watch a door. " * 20)
        session.ask("What?", max_tokens=2)
        rig.run()
    assert rig.core.scheduler.statistics()["prefix_pages"] == 0, "nor does another stream go on with what would change"


def test_only_the_thinker_of_a_whole_checkpoint_is_loaded(tmp_path: Path, omni_loaded: Loaded) -> None:
    source, whole = model_path("omni"), tmp_path / "whole"
    shutil.copytree(source, whole)
    thinker = AutoConfig.from_pretrained(source).to_dict()
    Qwen2_5OmniConfig(thinker_config=thinker, architectures=["Qwen2_5OmniModel"]).save_pretrained(whole)
    weights = {f"thinker.{name}": tensor for name, tensor in load_file(source / "model.safetensors").items()}
    others = {"talker.model.norm.weight": torch.zeros(4), "token2wav.proj.weight": torch.zeros(4, 4)}
    save_file(weights | others, whole / "model.safetensors", metadata={"format": "pt"})
    (whole / "generation_config.json").unlink()

    loaded = load(whole, EngineConfig())

    ours, same = loaded.text.state_dict(), omni_loaded.text.state_dict()
    assert ours.keys() == same.keys() and all(torch.equal(ours[name], same[name]) for name in ours)
    assert loaded.family.stop_ids == {loaded.family.tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_the_rows_that_are_announced_are_those_that_come(omni_loaded: Loaded) -> None:
    """What the schedule plans with, before anything is encoded."""
    announced_are_those_that_come(omni_loaded)


def test_the_rows_that_are_announced_are_those_that_come_of_sight(sight_served: Loaded) -> None:
    announced_are_those_that_come(sight_served)


def test_the_rows_that_are_announced_are_those_that_come_of_stills(still_served: Loaded) -> None:
    announced_are_those_that_come(still_served)


def announced_are_those_that_come(loaded: Loaded) -> None:
    timeline, towers = Timeline(loaded.family.spec), loaded.towers
    segments: list[Segment] = []
    for height, width in ((56, 56), (100, 70), (60, 200)):
        segments += timeline.image(1, picture(1, height, width)).segments
    if "video" in loaded.family.modalities:
        clip = frames(1, 5, 70, 90)
        segments += timeline.feed(2, [Pixels(pixels, at * 500_000) for at, pixels in enumerate(clip)]).segments
    if "audio" in loaded.family.modalities:
        segments += timeline.feed(3, [Samples(sound(1, 3.3)[None], 16_000, 0)]).segments
    segments += timeline.flush(4).segments
    announced = [towers.rows(segment) for segment in segments]
    encoded = towers.encode([(5_000_000, segment) for segment in segments])
    spans = [span for span, _ in encoded]
    assert [len(span.ids) for span in spans] == [len(made.rows) for _, made in encoded] == announced
    assert {span.modality for span in spans} == set(loaded.family.modalities) - {"unit"}


def test_a_checkpoint_that_cannot_be_served_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load(tmp_path / "nothing", EngineConfig())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ModelError, match=r"'vit' is not served: .*served are gemma3, gemma3_text, llama, llava"):
        load(tmp_path, EngineConfig())


@pytest.mark.parametrize("name", ["text", "omni", "qwen3_vl"])
def test_weights_as_pickles_are_refused_and_not_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_path(name), folder)
    torch.save({}, folder / "pytorch_model.bin")
    load(folder, EngineConfig())  # beside safetensors they do not matter
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"expected weights as safetensors, got pytorch_model\.bin: pickles can run code"
    ):
        load(folder, EngineConfig())


@pytest.mark.parametrize("name", ["text", "omni", "qwen3_vl"])
def test_missing_weights_and_a_damaged_configuration_are_one_error(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_path(name), folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="expected a checkpoint that transformers can load, got: .*safetensors"):
        load(folder, EngineConfig())
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="expected a checkpoint that transformers can load"):
        load(folder, EngineConfig())
