"""What is told of a model's memory without its weights is what loading it gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from penstock.engine.config import FITTING
from penstock.engine.core import fit
from penstock.engine.loading import open as opening
from penstock.engine.loading.checkpoint import Checkpoint
from penstock.engine.loading.forecast import Forecast, forecast
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import BROOK, load
from penstock.errors import ModelError

from tests.families.beside import idefics
from tests.fixtures.recipe import model_path

from .tried import llava_next, several_axes

GIB = 1 << 30
MODELS = [None, "text", "omni", "qwen3_omni", "qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "gemma3", "smolvlm"]
ON_A_CPU = msgspec.structs.replace(FITTING, device="cpu")


def without_weights(folder: Path, into: Path) -> Path:
    """The same checkpoint; what its weights were is a file that nobody can read."""
    shutil.copytree(folder, into, ignore=shutil.ignore_patterns("*.safetensors", "*.py", "__pycache__"))
    (into / "model.safetensors").mkdir()  # opening it fails
    return into


@pytest.mark.parametrize("name", MODELS)
def test_the_forecast_is_what_loading_gives(tmp_path: Path, name: str | None, free: dict[str, int | None]) -> None:
    """Weights, step, encoder, bytes of a row and the number of pages, and no weight is opened."""
    folder = BROOK if name is None else model_path(name)
    loaded = load(folder, ON_A_CPU)
    free["cpu"] = weight_bytes(loaded) + GIB
    found = forecast(without_weights(folder, tmp_path / "model"), ON_A_CPU)
    free["cpu"] = GIB
    assert found.memory == fit(loaded, ON_A_CPU)
    assert (found.device, found.dtype) == ("cpu", str(loaded.dtype).removeprefix("torch."))
    assert found.family == loaded.family.data.name and not found.tried
    assert found.free_bytes == weight_bytes(loaded) + GIB


def test_of_a_model_on_the_hub_no_weights_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_path("text")

    class Remote:
        """Knows which files there are, and gives none."""

        def sizes(self) -> dict[str, int]:
            return {"config.json": 1, "model.safetensors": 1 << 40}

    repository: Any = Remote()
    found: Any = Checkpoint("small/text", folder, repository)
    monkeypatch.setattr(opening, "find", lambda *_: found)
    assert forecast("small/text", ON_A_CPU).model == "small/text"
    with pytest.raises(ModelError, match="small/text: .*complete"):
        load("small/text", ON_A_CPU)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"quantize": "int8"},
        {"processor": {"max_pixels": 28 * 28 * 16}},
        {"kv_gib": 0.25},
        {"memory_fraction": 0.1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_it_follows_the_options(options: dict[str, Any], free: dict[str, int | None]) -> None:
    config = msgspec.structs.replace(ON_A_CPU, **options)
    loaded = load(None, config)
    free["cpu"] = weight_bytes(loaded) + GIB
    found = forecast(None, config)
    free["cpu"] = GIB
    assert found.memory == fit(loaded, config) != forecast(None, ON_A_CPU).memory


def test_a_model_that_is_tried_is_told_as_such(tmp_path: Path) -> None:
    folder = llava_next(tmp_path / "whole")
    loaded = load(folder, ON_A_CPU)
    found = forecast(without_weights(folder, tmp_path / "bare"), ON_A_CPU)
    assert found.tried
    assert found.memory.weight_bytes == weight_bytes(loaded)
    assert found.memory.token_bytes == fit(loaded, ON_A_CPU).token_bytes


def elsewhere(gib: float, **options: Any) -> Forecast:
    return forecast(None, msgspec.structs.replace(FITTING, **options), elsewhere=int(gib * GIB))


def test_a_device_that_is_not_here(free: dict[str, int | None]) -> None:
    """A card takes the checkpoint's own type, gives nine tenths of what is left, and keeps what is encoded and what is
    recorded; how much is free here does not matter."""
    free["cpu"] = 1
    card = elsewhere(80)
    assert (card.device, card.dtype, card.free_bytes) == ("cuda", "bfloat16", 80 * GIB)
    memory = card.memory
    room = 80 * GIB - memory.weight_bytes - memory.step_bytes - memory.encoder_bytes
    assert memory.kv_bytes <= 0.9 * room < memory.kv_bytes + 2 * memory.page_tokens * memory.token_bytes
    assert memory.encoder_bytes > FITTING.encoder_cache_bytes
    assert memory.step_bytes > elsewhere(80, cuda_graphs=False).memory.step_bytes
    assert elsewhere(24).memory.tokens < memory.tokens
    assert elsewhere(80, dtype="float32").memory.weight_bytes > 1.9 * memory.weight_bytes
    assert elsewhere(80, device="cuda:3").device == "cuda:3"
    plain = elsewhere(16, device="cpu")
    assert (plain.device, plain.dtype, plain.memory.tokens) == ("cpu", "float32", 32_768)
    with pytest.raises(ModelError, match="device: expected auto, cpu, cuda or mps, got 'tpu'$"):
        elsewhere(80, device="tpu")
    with pytest.raises(ModelError, match=r"weights in bfloat16, 1\.0 MiB free on cuda; try a smaller model$"):
        elsewhere(1 / 1024)
    with pytest.raises(ModelError, match="free on cuda beside the weights; try "):
        elsewhere(0.5)


def test_pages_of_a_card_that_is_not_here_are_those_of_its_attention() -> None:
    pytest.importorskip("triton")
    from penstock.engine.runner.attention_triton import TritonBackend

    assert elsewhere(80).memory.page_tokens == TritonBackend.page_tokens


def changed(folder: Path, into: Path, **fields: Any) -> Path:
    shutil.copytree(folder, into)
    config = json.loads((into / "config.json").read_text())
    config = {name: value for name, value in (config | fields).items() if value is not None}
    (into / "config.json").write_text(json.dumps(config))
    return into


def test_what_cannot_be_planned_is_one_line(tmp_path: Path) -> None:
    text = model_path("text")
    quantised = changed(text, tmp_path / "quantised", quantization_config={"quant_method": "gptq", "bits": 4})
    untold = changed(text, tmp_path / "untold", dtype=None)
    pickled = without_weights(text, tmp_path / "pickled")
    (pickled / "model.safetensors").rmdir()
    (pickled / "pytorch_model.bin").touch()
    refused = {
        tmp_path / "nowhere": "expected the folder of a checkpoint",
        quantised: "expected the package optimum, which this checkpoint needs",
        untold: "expected dtype in its config.json, got none; say --dtype",
        pickled: "expected weights as safetensors, got pytorch_model.bin",
        idefics(tmp_path / "crossed"): "expected layers that see rows of the cache alone",
    }
    for folder, reason in refused.items():
        with pytest.raises(ModelError, match=rf"^{folder}: [^\n]*{reason}[^\n]*$"):
            forecast(folder, ON_A_CPU)
    assert forecast(several_axes(tmp_path / "axes", "glm_ocr"), ON_A_CPU).dtype == "float32"
    assert forecast(untold, msgspec.structs.replace(ON_A_CPU, dtype="float32")).dtype == "float32"
    with pytest.raises(ModelError, match="processor option 'sharpness': expected one of those"):
        forecast(None, msgspec.structs.replace(ON_A_CPU, processor={"sharpness": 2}))
