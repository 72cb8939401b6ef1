"""Checkpoints as they lie on the Hub are the same model as the small ones in their own layout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from layout import (
    publish_gemma3,
    publish_llava,
    publish_omni,
    publish_onevision,
    publish_qwen2_5_vl,
    publish_qwen2_vl,
    publish_qwen3_omni,
)
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from penstock.streams.requests.request import Sampling
from safetensors.torch import load_file, save_file

from tests.engine.acts import Client
from tests.engine.rig import Rig
from tests.fixtures.recipe import model_path

OTHERS_BYTES = 120 << 20

# Peaks of memory in bytes: of a load of the small thinker alone, and then of the whole checkpoint.
PEAKS = """
import re, sys
from pathlib import Path
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
for folder in sys.argv[1:]:
    loaded = load(folder, EngineConfig())
    print(1024 * int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]))
"""


def tensors(loaded: Loaded) -> dict[str, torch.Tensor]:
    """All that was loaded, by name: the towers and the decoder, and the output layer."""
    towers: Any = loaded.towers
    return {**towers.model.state_dict(), **loaded.text.state_dict(prefix="text."), "head": loaded.head.weight}


@pytest.mark.parametrize(
    ("name", "publish"),
    [
        ("omni", publish_omni),
        ("qwen3_omni", publish_qwen3_omni),
        ("qwen2_5_vl", publish_qwen2_5_vl),
        ("qwen2_vl", publish_qwen2_vl),
        ("llava", publish_llava),
        ("llava_onevision", publish_onevision),
        ("gemma3", publish_gemma3),
    ],
)
def test_the_published_layout_is_the_same_model(tmp_path: Path, name: str, publish: Callable[[Path], None]) -> None:
    publish(tmp_path)
    ours, own = load(tmp_path, EngineConfig()), load(model_path(name), EngineConfig())
    published, same = tensors(ours), tensors(own)
    assert published.keys() == same.keys()
    assert not [key for key in same if not torch.equal(published[key], same[key])]
    assert not [key for key, tensor in published.items() if tensor.is_meta or not tensor.isfinite().all()]
    assert forecast(tmp_path, EngineConfig(dtype="auto")).memory.weight_bytes == weight_bytes(own)
    assert ours.family.data.model == str(tmp_path)
    for field in own.family.data.__struct_fields__:
        if field != "model":
            assert getattr(ours.family.data, field) == getattr(own.family.data, field), field


@pytest.mark.parametrize("name", ["text", "gemma3"])
def test_tied_embeddings_are_stored_once_and_held_once(tmp_path: Path, name: str) -> None:
    """As most small models are published: without an output layer of its own."""
    shutil.copytree(model_path(name), tmp_path / "model")
    folder = tmp_path / "model"
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    if "text_config" in config:
        config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    head = next(key for key in weights if key.endswith("lm_head.weight"))
    size = weights.pop(head).nbytes
    save_file(weights, folder / "model.safetensors", {"format": "pt"})

    loaded, own = load(folder, EngineConfig()), load(model_path(name), EngineConfig())

    embedding = loaded.text.get_input_embeddings().weight
    assert loaded.head.weight.data_ptr() == embedding.data_ptr()
    assert torch.equal(embedding, own.text.get_input_embeddings().weight)
    assert weight_bytes(loaded) == weight_bytes(own) - size == forecast(folder, EngineConfig()).memory.weight_bytes


def test_of_a_whole_omni_only_the_thinker_is_read(tmp_path: Path) -> None:
    publish_omni(tmp_path, OTHERS_BYTES)
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, str(model_path("omni")), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    alone, whole = (int(line) for line in done.stdout.split())
    assert whole - alone < OTHERS_BYTES // 4, f"{(whole - alone) / 2**20:.0f} MiB more than the thinker alone"


def test_half_a_shard_is_refused(tmp_path: Path) -> None:
    publish_llava(tmp_path)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(
        ModelError, match=rf"^{tmp_path}: expected a checkpoint that transformers can load, got: .*incomplete"
    ):
        load(tmp_path, EngineConfig())
    shard.unlink()
    with pytest.raises(ModelError, match=rf"expected the files that .*index\.json names, got no {shard.name}$"):
        load(tmp_path, EngineConfig())


@pytest.mark.parametrize("publish", [publish_omni, publish_qwen2_5_vl])
def test_end_tokens_are_a_list_or_one_or_none(tmp_path: Path, publish: Callable[[Path], None]) -> None:
    publish(tmp_path)
    path = tmp_path / "generation_config.json"
    config = json.loads(path.read_text())
    end, other = config["eos_token_id"]
    assert load(tmp_path, EngineConfig()).family.stop_ids == {end, other}
    path.write_text(json.dumps(config | {"eos_token_id": other}))
    assert load(tmp_path, EngineConfig()).family.stop_ids == {other}
    path.write_text(json.dumps({"do_sample": True}))
    assert load(tmp_path, EngineConfig()).family.stop_ids == {end}
    path.unlink()
    assert load(tmp_path, EngineConfig()).family.stop_ids == {end}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Sampling()),
        ({"do_sample": False, "temperature": 0.5, "repetition_penalty": 1.05}, Sampling(repetition_penalty=1.05)),
        ({"do_sample": True}, Sampling(temperature=1.0, top_k=50)),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.1},
            Sampling(temperature=0.6, top_p=0.9, top_k=20, min_p=0.1),
        ),
    ],
    ids=["nothing", "greedy", "drawn", "all"],
)
def test_replies_are_drawn_as_the_checkpoint_says(tmp_path: Path, said: dict[str, Any], expected: Sampling) -> None:
    publish_qwen2_5_vl(tmp_path)
    path = tmp_path / "generation_config.json"
    ends = json.loads(path.read_text())["eos_token_id"]
    path.write_text(json.dumps({"eos_token_id": ends, **said}))
    assert load(tmp_path, EngineConfig()).family.data.sampling == expected


def test_what_a_checkpoint_says_is_told_in_words() -> None:
    assert str(Sampling()) == "greedy"
    assert str(Sampling(repetition_penalty=1.05)) == "greedy, repetition_penalty 1.05"
    assert str(Sampling(temperature=0.6, top_p=0.9)) == "temperature 0.6, top_p 0.9"


def test_what_a_checkpoint_cannot_mean_is_refused(tmp_path: Path) -> None:
    publish_qwen2_5_vl(tmp_path)
    for said, words in (
        ({"top_p": 0.0}, r"top_p: expected in \(0, 1\], got 0.0"),
        ({"top_k": -3}, "top_k: expected 0"),
    ):
        (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": True, **said}))
        with pytest.raises(ModelError, match=f"generation_config.json: {words}"):
            load(tmp_path, EngineConfig())


def test_what_a_checkpoint_says_holds_until_a_request_says_otherwise(tmp_path: Path) -> None:
    """Drawn where nothing is asked for, each time with another seed; greedy where that is; repeatable with a seed."""
    publish_qwen2_5_vl(tmp_path)
    path = tmp_path / "generation_config.json"
    ends = json.loads(path.read_text())["eos_token_id"]
    path.write_text(json.dumps({"eos_token_id": ends, "do_sample": True, "temperature": 3.0, "top_k": 40}))
    loaded = load(tmp_path, EngineConfig())
    assert str(loaded.family.data.sampling) == "temperature 3, top_k 40"

    def told(**params: Any) -> list[int]:
        client = Client(Rig(loaded).open(format="turns"))
        client.do("image")
        client.do("ask", max_tokens=24, **params)
        client.session.rig.run()
        return client.session.ids()

    greedy = told(temperature=0.0)
    assert told(temperature=0.0) == greedy
    assert told() != greedy and told() != told()
    assert told(seed=4) == told(seed=4) != told(seed=5)
    assert told(top_k=1) == greedy
