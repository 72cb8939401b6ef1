"""What fits is found out before it is loaded, and what is left becomes the KV cache. Free memory and
devices are faked where they are read (engine/compute.py)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from penstock.engine import families
from penstock.engine.config import FITTING, EngineConfig
from penstock.engine.core import Core, fit
from penstock.engine.family import Loaded
from penstock.engine.loading import compute, worst
from penstock.engine.loading import memory as memory_module
from penstock.engine.loading.compute import Computer, group_room
from penstock.engine.loading.gain import bfloat16_gain
from penstock.engine.loading.memory import host_pages, plan_memory, weight_bytes
from penstock.engine.loading.open import load
from penstock.engine.loading.placement import fast_bfloat16, place
from penstock.engine.loading.weights import Weights, read
from penstock.engine.loading.worst import largest_turns, measured, worst_case
from penstock.engine.runner.attention import ReferenceBackend
from penstock.engine.runner.backends import make_backend
from penstock.errors import ModelError
from safetensors.torch import load_file, save_file

from tests.fixtures.recipe import model_path
from tests.hub.layout import publish_omni

GIB = 1 << 30
LARGE = Weights(floats=4 * GIB, fixed_bytes=0, dtype="bfloat16")
MODELS = ["text", "omni", "qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "gemma3", "smolvlm"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets which devices are here."""

    def of(*words: str, lacking: str = "cuda") -> None:
        found = [Computer("compute", word) for word in words]
        gone = [Computer("compute", lacking, why="torch is built without it")]
        monkeypatch.setattr(compute, "computers", lambda: gone + found)

    return of


def half(weights: Weights) -> Weights:
    return Weights(weights.floats, weights.fixed_bytes, "float16")


def test_auto_takes_the_first_device_that_is_here(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EngineConfig(device="auto")
    machine("cpu")
    assert place(config, LARGE).device == "cpu"
    machine("cpu", lacking="cuda")
    assert place(config, LARGE).why == "no cuda: torch is built without it"
    assert place(FITTING, LARGE).why.endswith("; no cuda: torch is built without it")
    machine("mps", "cpu")
    assert place(config, LARGE).device == "mps"
    machine("cuda:0", "cuda:1", "cpu", lacking="mps")
    assert place(config, LARGE).device == "cuda:0"
    assert place(EngineConfig(device="cuda"), LARGE).device == "cuda:0"
    assert place(EngineConfig(device="cuda:1"), LARGE).device == "cuda:1"
    assert place(EngineConfig(), LARGE) == place(EngineConfig(device="cpu", dtype="float32"), LARGE)
    for supported, dtype in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, yes=supported: yes)
        assert place(FITTING, LARGE).dtype == dtype


@pytest.mark.parametrize("word", ["cuda", "cuda:0", "tpu"])
def test_a_device_that_is_not_here_is_named_with_the_reason(word: str, machine: Callable[..., None]) -> None:
    machine("cpu")
    lacking = "$" if word == "tpu" else ".*: torch is built without it$"
    with pytest.raises(ModelError, match=f"^{model_path('text')}: device: expected auto, cpu, got '{word}'{lacking}"):
        load(model_path("text"), EngineConfig(device=word))
    machine("cuda:0", "cpu", lacking="mps")
    with pytest.raises(ModelError, match="device: expected auto, cuda:0, cpu, got 'cuda:7'$"):
        place(EngineConfig(device="cuda:7"), LARGE)


def test_a_cpu_takes_the_checkpoints_bfloat16_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = EngineConfig(dtype="auto")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for fast, dtype, why in ((True, "bfloat16", "as the checkpoint"), (False, "float32", "slow on this processor")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        assert fast_bfloat16() == fast
        taken = place(auto, LARGE)
        assert taken.dtype == dtype and why in taken.why
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    small = Weights(1 << 20, 0, "bfloat16")
    assert place(auto, small).dtype == "float32" and "so small" in place(auto, small).why
    assert place(auto, half(LARGE)).dtype == "float32" and "slow on a CPU" in place(auto, half(LARGE)).why
    assert place(auto, Weights(9, 0, "float64")).dtype == "float32"
    assert place(EngineConfig(dtype="bfloat16"), small) == place(EngineConfig(dtype="bfloat16"), LARGE)
    with pytest.raises(ModelError, match="dtype: expected auto, float32, bfloat16, float16, got 'int3'"):
        place(EngineConfig(dtype="int3"), LARGE)


@pytest.mark.parametrize(
    ("faster", "dtype"), [(0.7, "float32"), (1.0, "float32"), (1.6, "bfloat16"), (3.0, "bfloat16")]
)
def test_a_middling_model_is_in_bfloat16_where_that_is_measured_to_be_faster(
    faster: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that a layer in bfloat16 moves on so many times less."""
    monkeypatch.setattr("penstock.engine.loading.placement.fast_bfloat16", lambda: True)
    now, linear = [0.0], torch.nn.functional.linear

    def timed(given: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        now[0] += 1.0 if weight.dtype == torch.float32 else 1 / faster
        return linear(given, weight)

    monkeypatch.setattr(torch.nn.functional, "linear", timed)
    threads = torch.get_num_threads()
    assert bfloat16_gain(lambda: now[0]) == pytest.approx(faster)
    assert torch.get_num_threads() == threads
    monkeypatch.setattr("penstock.engine.loading.gain.bfloat16_gain", lambda: faster)
    taken = place(EngineConfig(dtype="auto"), Weights(200_000_000, 0, "bfloat16"))
    assert taken.dtype == dtype and f"measured {faster} times as fast as float32" in taken.why
    for asked in ("float32", "bfloat16"):
        assert place(EngineConfig(dtype=asked), Weights(200_000_000, 0, "bfloat16")).dtype == asked
    assert place(EngineConfig(dtype="auto"), Weights(200_000_000, 0, "float32")).dtype == "float32"


def test_brook_stays_in_float32_on_every_cpu() -> None:
    loaded = load(None, FITTING if not torch.cuda.is_available() else EngineConfig(dtype="auto"))
    assert (loaded.device.type, loaded.dtype) == ("cpu", torch.float32) or loaded.device.type == "mps"
    assert "bfloat16" in loaded.why


@pytest.mark.parametrize("name", MODELS)
def test_headers_tell_the_weights_size(name: str) -> None:
    folder = model_path(name)
    told = read([folder / "model.safetensors"]).bytes_in("float32")
    have = weight_bytes(load(folder, EngineConfig()))
    assert told <= have <= told * 1.25  # behind the point: tables that a model computes for itself


def test_of_a_whole_omni_only_what_is_served_counts(tmp_path: Path) -> None:
    publish_omni(tmp_path, 1 << 20)
    assert read(tmp_path.glob("*.safetensors")) == read([model_path("omni") / "model.safetensors"])


def test_integers_stay_as_they_are_stored(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(7, 3, dtype=torch.int8), "b": torch.zeros(10, dtype=torch.bfloat16)}, file)
    weights = read([file])
    assert (weights.bytes_in("bfloat16"), weights.bytes_in("float32"), weights.dtype) == (41, 61, "bfloat16")


def test_weights_that_do_not_fit_are_refused_before_they_are_read(
    free: dict[str, int | None], machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(*_: object) -> None:
        raise ModelError("the weights were read")

    monkeypatch.setattr(families, "loader", lambda model_type: reads)
    folder = model_path("omni")
    free["cpu"] = 1_600_000
    with pytest.raises(
        ModelError,
        match=rf"^{folder}: needs 2.1 MiB for weights in float32, 1.5 MiB free on cpu; "
        "try --dtype bfloat16 or a smaller model$",
    ):
        load(folder, EngineConfig())
    free["cpu"] = 1_000_000
    with pytest.raises(
        ModelError, match="1.0 MiB for weights in bfloat16, 976.6 KiB free on cpu; try a smaller model$"
    ):
        load(folder, EngineConfig(dtype="bfloat16"))
    machine("cuda:0", "cpu", lacking="mps")
    free.update({"cpu": 1 << 40, "cuda:0": 100_000})
    with pytest.raises(ModelError, match="97.7 KiB free on cuda:0; try a smaller model$"):
        load(folder, EngineConfig(device="cuda"))
    free.update({"cpu": 100_000, "cuda:0": 1 << 40})  # they pass through the host
    with pytest.raises(ModelError, match="97.7 KiB free on cpu"):
        load(folder, EngineConfig(device="cuda"))
    free.update({"cpu": None, "cuda:0": None})
    with pytest.raises(ModelError, match="the weights were read"):
        load(folder, EngineConfig(device="cuda"))


def test_the_cache_takes_its_share_of_what_is_left(text_loaded: Loaded, free: dict[str, int | None]) -> None:
    def tokens(**config: object) -> int:
        return fit(text_loaded, EngineConfig(**{"kv_tokens": 0, "page_tokens": 16, **config})).tokens  # type: ignore[arg-type]

    memory = fit(text_loaded, EngineConfig(kv_tokens=0))
    room = 4000 * memory.token_bytes
    free["cpu"] = memory.step_bytes + memory.encoder_bytes + room
    assert tokens() == 2000
    assert tokens(memory_fraction=0.8) == 3200
    assert tokens(kv_tokens=320) == 320
    assert tokens(kv_gib=1000 * memory.token_bytes / GIB) == 992  # whole pages
    free["cpu"] = 1 << 40
    assert tokens() == 32_768  # no more than four streams of 8k tokens on its own account
    assert tokens(memory_fraction=0.001) > 32_768
    free["cpu"] = None
    assert tokens() == 32_768


def test_float16_is_refused_on_a_cpu(text_loaded: Loaded) -> None:
    with pytest.raises(ModelError, match="dtype: expected float32 or bfloat16 on a CPU, got float16"):
        load(model_path("text"), EngineConfig(dtype="float16"))


def test_what_is_encoded_has_its_room_on_a_card(
    text_loaded: Loaded, free: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder's cache, and what waits to be fed. Spans that were fed lie in the host's memory."""
    config = EngineConfig(span_bytes=1 << 40, encoder_cache_bytes=1 << 20, encoder_tokens=100, slots=9)
    here = fit(text_loaded, config).encoder_bytes
    monkeypatch.setattr(Loaded, "device", property(lambda _: torch.device("cuda")))
    monkeypatch.setattr(memory_module, "worst_case", lambda *_: (0, here))
    there = plan_memory(text_loaded, config, ReferenceBackend())
    width = text_loaded.text.get_input_embeddings().weight.shape[1]
    assert there.encoder_bytes == here + (1 << 20) + 9 * 100 * 4 * width


def test_pages_go_to_the_host_as_far_as_it_has_room(text_loaded: Loaded, free: dict[str, int | None]) -> None:
    config = EngineConfig(page_tokens=16, kv_tokens=320)
    memory = fit(text_loaded, config)
    page = 16 * memory.token_bytes
    free["cpu"] = memory.kv_bytes + 12 * page
    assert host_pages(config, memory, "cpu") == 6, "half of what is left beside the cache"
    assert host_pages(config, memory, "cuda") == 8, "the cache lies elsewhere, pinned memory is twice as large"
    free["cpu"] = 0
    assert host_pages(config, memory, "cpu") == 0
    free["cpu"] = 1 << 50
    assert host_pages(config, memory, "cpu") == config.host_pages
    free["cpu"] = None
    assert host_pages(config, memory, "cpu") == config.host_pages


def test_the_cache_that_is_told_is_the_one_that_is_made(text_loaded: Loaded) -> None:
    memory = fit(text_loaded, FITTING)
    core = Core(text_loaded, FITTING)
    assert core.scheduler.pool.pages == memory.pages
    keys = core.language.cache.keys + core.language.cache.values
    assert sum(tensor.nbytes for tensor in keys) == memory.kv_bytes == memory.tokens * memory.token_bytes


def test_a_cache_that_does_not_fit_is_refused(text_loaded: Loaded, free: dict[str, int | None]) -> None:
    memory = fit(text_loaded, EngineConfig(kv_tokens=0))
    free["cpu"] = memory.step_bytes + 1000 * memory.token_bytes
    with pytest.raises(ModelError, match="for a step and the encoder, and .* for a KV cache of 1024 tokens in 50% of"):
        fit(text_loaded, FITTING)
    with pytest.raises(ModelError, match=r"needs 30\.0 GiB for a KV cache of \d+ tokens, .* free on cpu"):
        fit(text_loaded, EngineConfig(kv_gib=30))
    with pytest.raises(ModelError, match="expected at least 16 tokens, one page, got 3"):
        fit(text_loaded, EngineConfig(kv_tokens=3, page_tokens=16))
    with pytest.raises(ModelError, match="memory_fraction: expected more than 0 and at most 1, got 1.5"):
        fit(text_loaded, EngineConfig(kv_tokens=0, memory_fraction=1.5))


def profiled(work: Callable[[], object]) -> int:
    """The most bytes that `work` had at once, by torch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    now = most = 0
    kineto = profile.profiler
    assert kineto is not None and kineto.kineto_results is not None
    for event in kineto.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()  # type: ignore
            most = max(most, now)
    return most


@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_above_what_is_measured(name: str) -> None:
    """The steps that are measured on CUDA run here, with torch's profiler in place of CUDA's counters."""
    config = EngineConfig(encoder_tokens=64, step_rows=256, slots=32)
    loaded = load(model_path(name), config)
    backend = make_backend(config, "cpu")
    step, turn = measured(loaded, config, backend, profiled)
    most_step, most_turn = worst_case(loaded, config, backend)
    assert 0 < step <= most_step < 10 * step
    assert turn <= most_turn <= 10 * turn
    assert bool(turn) == bool(loaded.family.modalities) == bool(largest_turns(loaded, config))


@pytest.mark.parametrize("name", ["omni", "qwen2_5_vl", "qwen3_vl"])
def test_the_encoders_worst_case_follows_the_options_of_the_processor(name: str) -> None:
    loaded = load(model_path(name), EngineConfig())
    rule = loaded.family.spec.image
    assert rule is not None
    factor = rule.factor**2
    bytes_of = [
        fit(loaded, EngineConfig(encoder_tokens=1, processor={"min_pixels": factor, "max_pixels": most})).encoder_bytes
        for most in (64 * factor, 256 * factor, 1024 * factor)
    ]
    if name == "qwen3_vl":  # whose films have a budget of their own
        assert bytes_of[1] < bytes_of[2]
    else:
        assert 3 * bytes_of[0] < bytes_of[1] and 3 * bytes_of[1] < bytes_of[2]


def test_control_groups_bound_what_is_free(tmp_path: Path) -> None:
    def group(path: str, most: str, used: int, caches: int) -> None:
        folder = tmp_path / "fs" / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {caches}\n")

    proc = tmp_path / "cgroup"
    proc.write_text("4:memory:/old\n0::/slice/unit\n")
    group("slice/unit", "1000", 700, 200)
    group("slice", "max", 5000, 0)
    assert group_room(proc, tmp_path / "fs") == [500]
    group("slice", "600", 900, 0)
    assert group_room(proc, tmp_path / "fs") == [500, 0]
    assert group_room(tmp_path / "none", tmp_path / "fs") == []
    free = compute.free_bytes("cpu")
    assert free is None or 0 < free < 1 << 50


def test_weights_of_other_sizes_are_one_error(tmp_path: Path) -> None:
    shutil.copytree(model_path("text"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 2 * config["hidden_size"]}))
    with pytest.raises(
        ModelError, match=rf"^{tmp_path}: expected a checkpoint that transformers can load, got: [^\n]*$"
    ):
        load(tmp_path, EngineConfig())


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "(accelerate|bitsandbytes)"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "quark"}, "amd-quark"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["quant_method"],
)
def test_a_quantised_checkpoint_names_the_package_that_is_missing(
    tmp_path: Path, settings: dict[str, object], package: str
) -> None:
    shutil.copytree(model_path("text"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with pytest.raises(
        ModelError,
        match=rf"^{tmp_path}: expected the package {package}\S*, which this checkpoint needs, got none: "
        rf"pip install '{package}\S*'$",
    ):
        load(tmp_path, EngineConfig())


def test_memory_that_runs_out_while_weights_are_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")

    monkeypatch.setattr(families, "loader", lambda model_type: full)
    words = r"expected room for its weights, got none \(CUDA out of memory\. .*\); try a smaller model$"
    with pytest.raises(ModelError, match=rf"^{model_path('text')}: {words}"):
        load(model_path("text"), EngineConfig())


def test_memory_that_runs_out_while_the_largest_step_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(worst, "measured", full)
    loaded: Any = SimpleNamespace(device=torch.device("cuda:0"))
    with pytest.raises(
        ModelError, match="needs more memory than is free on cuda:0 for a step of 1024 rows or for 4096"
    ):
        worst.worst_case(loaded, EngineConfig(), ReferenceBackend())


def test_a_processor_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(ModelError, match="expected the package num2words, which this checkpoint needs, got none"):
        load(model_path("smolvlm"), EngineConfig())


def test_a_stored_dtype_is_taken_off_the_headers(tmp_path: Path) -> None:
    tensors = load_file(model_path("text") / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    weights = read([tmp_path / "model.safetensors"])
    assert weights.dtype == "bfloat16"
    assert weights.bytes_in("bfloat16") * 2 == weights.bytes_in("float32")
