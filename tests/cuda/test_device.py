"""On a real device only (`-m gpu`): where things lie, what waits, and the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load

from tests.engine.acts import Client, strangers
from tests.engine.rig import Rig
from tests.fixtures.recipe import model_path

pytestmark = pytest.mark.gpu


@contextmanager
def no_waiting() -> Iterator[None]:
    """Torch raises where the host would wait for the device."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["omni", "qwen3_vl", "gemma3", "text"])
def test_the_decoder_and_its_cache_lie_on_the_device(name: str) -> None:
    loaded = load(model_path(name), EngineConfig(device="cuda"))
    language = Rig(loaded, backend="auto").core.language
    held = [*loaded.text.parameters(), *loaded.text.buffers(), *loaded.head.parameters()]
    assert all(
        tensor.device.type == "cuda"
        for tensor in (*held, *language.cache.keys, *language.cache.values, language.cache.tables)
    )
    assert type(language.backend).__name__ == "TritonBackend"


@pytest.mark.parametrize("name", ["omni", "qwen3_vl", "gemma3", "text"])
def test_a_step_waits_only_where_its_tokens_are_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that append and decode side by side, with filters and penalties; the first steps compile the kernel."""
    rig = Rig(load(model_path(name), EngineConfig(device="cuda")), backend="auto")
    sampled = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.1}
    client = Client(rig.open(format="live"))
    client.do("text")
    client.do("ask", max_tokens=40, **sampled)
    strangers(rig, 2, 20, with_media=False)
    rig.step(6)
    language: Any = rig.core.language
    drawn, watched = language._drawn, []

    def watching(feeds: Any) -> Any:
        watched.append(len(feeds))
        with no_waiting():
            return drawn(feeds)

    monkeypatch.setattr(language, "_drawn", watching)
    client.do("text" if name == "text" else "image", 1)
    rig.step(10)
    assert len(watched) == 10 and max(watched) == 3


@pytest.mark.parametrize("graphs", [False, True])
def test_bench_append(graphs: bool) -> None:
    command = [sys.executable, "-m", "penstock.server.cli", "bench", "append", "--json", "--device", "cuda"]
    options = ["--histories", "1000,20000", "--rounds", "10", "--tokens", "100"]
    options += [] if graphs else ["--no-cuda-graphs"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=280, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["history"] for line in lines[:2]] == [1000, 20000]
    assert lines[0]["rows"] == lines[1]["rows"] and lines[0]["bytes"] == lines[1]["bytes"]
    assert [line["others"] for line in lines[2:]] == [0, 8]
