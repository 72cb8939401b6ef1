"""Which backend attends where, and what is said where it cannot be had."""

from __future__ import annotations

import inspect
import logging
import sys
from types import SimpleNamespace

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.runner.backends import make_backend
from penstock.errors import ModelError
from torch.nn.attention import varlen

MODULE = "penstock.engine.runner.attention_triton"


@pytest.mark.parametrize(("device", "name"), [("cpu", "CpuBackend"), ("mps", "ReferenceBackend")])
def test_auto_takes_what_fits(device: str, name: str) -> None:
    assert type(make_backend(EngineConfig(), device)).__name__ == name


def test_auto_takes_triton_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(MODULE, reason="Triton comes for Linux only")
    card = SimpleNamespace(multi_processor_count=100)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    for backend in ("auto", "triton"):
        assert type(make_backend(EngineConfig(backend=backend), "cuda")).__name__ == "TritonBackend"
    if "block_table" in inspect.signature(varlen.varlen_attn).parameters:
        assert type(make_backend(EngineConfig(backend="varlen"), "cuda")).__name__ == "VarlenBackend"
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, key, value: query)
    with pytest.raises(ModelError, match=r"backend varlen: expected torch 2\.13 or newer, got "):
        make_backend(EngineConfig(backend="varlen"), "cuda")


def test_without_triton_auto_warns_and_takes_the_reference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with caplog.at_level(logging.WARNING, "penstock.engine"):
        assert type(make_backend(EngineConfig(), "cuda")).__name__ == "ReferenceBackend"
    assert "expected the package triton, got none" in caplog.text
    with pytest.raises(ModelError, match="backend triton: expected the package triton, got none"):
        make_backend(EngineConfig(backend="triton"), "cuda")


@pytest.mark.parametrize(
    ("backend", "device", "fitting"),
    [
        ("triton", "cpu", "auto, reference or cpu"),
        ("cpu", "cuda", "auto, reference, triton or varlen"),
        ("flash", "cuda", "auto, reference, triton or varlen"),
        ("triton", "mps", "auto or reference"),
    ],
)
def test_a_backend_of_another_device_is_refused(backend: str, device: str, fitting: str) -> None:
    message = f"backend: expected {fitting} on {device}, got '{backend}'"
    with pytest.raises(ModelError, match=message):
        make_backend(EngineConfig(backend=backend), device)
