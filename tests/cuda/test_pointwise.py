"""The fused kernels against plain operators in float32: in Triton's interpreter where there is no device, else on the
device."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.runner import takeover
from penstock.engine.runner.angles import Rotary
from penstock.engine.runner.backends import fused_kernels
from penstock.engine.runner.pointwise import Norm, Pointwise

from tests.cuda.where import DEVICE
from tests.fixtures.recipe import model_path

module: Any = pytest.importorskip("penstock.engine.runner.pointwise_triton", reason="Triton comes for Linux only")

either = pytest.mark.parametrize("asked", ["by default", pytest.param("for a device", marks=pytest.mark.gpu)])
# One rounding at the end, as a share of the result, and those inside, as a share of the largest number of a row. The
# interpreter cuts bfloat16 off where a device rounds it.
LAST = {torch.float32: 2**-21, torch.float16: 2**-10, torch.bfloat16: 2**-7}
INSIDE = 2**-19
TYPES = st.sampled_from(list(LAST))
SEEDS = st.integers(0, 1000)


def assert_close(got: torch.Tensor, exact: torch.Tensor) -> None:
    room = LAST[got.dtype] * exact.abs() + INSIDE * exact.abs().amax(-1, keepdim=True)
    assert got.shape == exact.shape and bool(((got.float() - exact).abs() <= room).all())


class Noise:
    """Random tensors of one type on the device."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        self._noise, self._dtype = torch.Generator().manual_seed(seed), dtype

    def __call__(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self._noise).to(self._dtype).to(DEVICE)

    def norm(self, *shape: int, wide: bool) -> Norm:
        """With a weight near one; where it is `wide`, in float32."""
        weight = 1 + self(*shape) / 4
        return Norm(weight.float() if wide else weight, None, 1e-3, wide=wide)


def exact(norm: Norm | None) -> Any:
    return norm and norm._replace(weight=norm.weight.float())


@either
@given(
    rows=st.integers(1, 4), width=st.sampled_from([16, 80, 129]), size=st.sampled_from([1.0, 1e-2]), dtype=TYPES,
    seed=SEEDS, wide=st.booleans(), after=st.booleans(),
)  # fmt: skip
def test_sums_and_norms(
    asked: str, rows: int, width: int, size: float, dtype: torch.dtype, seed: int, wide: bool, after: bool
) -> None:
    """Over rows so small, too, that eps counts."""
    noise = Noise(seed, dtype)
    hidden, out, norm = noise(rows, width) * size, noise(rows, width) * size, noise.norm(width, wide=wide)
    middle = noise.norm(width, wide=wide)._replace(eps=1e-2) if after else None
    summed, normed = module.TritonPointwise().added(hidden, out, middle, norm)
    right, _ = Pointwise().added(hidden.float(), out.float(), exact(middle), exact(norm))
    assert_close(summed, right)
    assert_close(normed, Pointwise().normed(summed.float(), exact(norm)))
    assert_close(module.TritonPointwise().normed(hidden, norm), Pointwise().normed(hidden.float(), exact(norm)))


@either
@given(
    rows=st.integers(1, 5), kv_heads=st.integers(1, 2), group=st.integers(1, 3), sizes=st.sampled_from(
        [(16, 16), (24, 24), (64, 64), (80, 20), (64, 16)]
    ), dtype=TYPES, seed=SEEDS, normed=st.booleans(), wide=st.booleans(), axes=st.sampled_from([1, 3]),
)  # fmt: skip
def test_queries_and_keys_are_turned_and_the_cache_is_written(
    asked: str, rows: int, kv_heads: int, group: int, sizes: tuple[int, int], dtype: torch.dtype, seed: int,
    normed: bool, wide: bool, axes: int,
) -> None:  # fmt: skip
    """Positions on one axis and on three, heads of which a part is turned, key heads that several query heads share.
    Of the pages nothing else is touched."""
    dim, turned = sizes
    noise = Noise(seed, dtype)
    heads = noise(rows, (group + 2) * kv_heads, dim)
    norm = noise.norm((group + 1) * kv_heads, dim, wide=wide) if normed else None
    half = turned // 2
    rotary = Rotary(10.0 ** -torch.arange(half), torch.arange(half) % axes, 1.1, 512)
    positions = torch.randint(0, 300, (3, rows), generator=torch.Generator().manual_seed(seed))
    turns = tuple(turn.to(DEVICE) for turn in rotary(positions, dtype))
    target = torch.randperm(3 * 4, generator=torch.Generator().manual_seed(seed))[:rows].to(DEVICE)
    keys, values = (torch.full((3, 4, kv_heads, dim), float("nan"), dtype=dtype, device=DEVICE) for _ in range(2))
    queries, *left = module.TritonPointwise().turned(heads, norm, turns, keys, values, target)
    wide_turns = turns[0].float(), turns[1].float()
    right = Pointwise().turned(heads.float(), exact(norm), wide_turns, keys, values, target)
    assert [part.shape for part in left] == [(0, kv_heads, dim)] * 2
    written, new = keys.flatten(0, 1)[target], values.flatten(0, 1)[target]
    assert_close(queries, right[0])
    assert_close(written, right[1])
    assert torch.equal(new.float(), right[2])
    untouched = torch.ones(12, dtype=torch.bool, device=DEVICE).index_fill(0, target, False)
    assert all(bool(pool.flatten(0, 1)[untouched].isnan().all()) for pool in (keys, values))


@either
@settings(max_examples=5)
@given(rows=st.integers(1, 4), width=st.sampled_from([8, 1024, 1040]), dtype=TYPES, seed=SEEDS)
def test_gates(asked: str, rows: int, width: int, dtype: torch.dtype, seed: int) -> None:
    both, act = 4 * Noise(seed, dtype)(rows, 2 * width), torch.nn.SiLU()
    assert_close(module.TritonPointwise().gated(both, act), Pointwise().gated(both.float(), act))


def test_what_the_kernels_do_not_know_is_computed_by_plain_operators() -> None:
    """Another activation, a LayerNorm, a row too wide, numbers in float64: to the bit."""
    noise, plain, fused = Noise(1, torch.float32), Pointwise(), module.TritonPointwise()
    rows, gelu = noise(2, 16), torch.nn.GELU()
    centred = Norm(noise(16), noise(16), 1e-5, centred=True)
    assert torch.equal(fused.gated(rows, gelu), plain.gated(rows, gelu))
    assert torch.equal(fused.normed(rows, centred), plain.normed(rows, centred))
    norm = noise.norm(16, wide=False)
    both = fused.added(rows, rows, centred, norm), plain.added(rows, rows, centred, norm)
    assert all(torch.equal(*pair) for pair in zip(*both, strict=True))
    broad, broad_norm = noise(1, 2**13 + 1), noise.norm(2**13 + 1, wide=False)
    assert torch.equal(fused.normed(broad, broad_norm), plain.normed(broad, broad_norm))
    assert torch.equal(fused.normed(rows.double(), norm), plain.normed(rows.double(), norm))


def served(name: str, kernels: Pointwise, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    """As on a device for which there are these kernels."""
    monkeypatch.setattr(takeover, "fused_kernels", lambda device: kernels)
    return load(model_path(name), EngineConfig(device=DEVICE.type))


@either
@pytest.mark.parametrize("name", ["text", "qwen3_vl"])
def test_a_fast_decoder_takes_them(asked: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = module.TritonPointwise()
    assert served(name, kernels, monkeypatch).fast.pointwise is kernels


class OtherEps(module.TritonPointwise):
    def normed(self, rows: torch.Tensor, norm: Norm) -> torch.Tensor:
        return super().normed(rows, norm._replace(eps=10 * norm.eps))


class NotTurned(module.TritonPointwise):
    def turned(self, heads: torch.Tensor, norm: Norm | None, turns: Any, *cache: Any) -> Any:
        return super().turned(heads, norm, (torch.ones_like(turns[0]), torch.zeros_like(turns[1])), *cache)


class NotWritten(module.TritonPointwise):
    def turned(self, heads: torch.Tensor, norm: Norm | None, turns: Any, *cache: Any) -> Any:
        keys, values, target = cache
        return super().turned(heads, norm, turns, torch.empty_like(keys), torch.empty_like(values), target)


class NotCompiled(module.TritonPointwise):
    def gated(self, gate_up: torch.Tensor, act: Any) -> torch.Tensor:
        raise OSError("expected a compiler, got none")


@pytest.mark.parametrize(
    ("kernels", "reason"),
    [
        (OtherEps(), "layernorm of layer 0 is .* from the exact one"),
        (NotTurned(), "layer 0 is .* from the exact one"),
        (NotWritten(), "layer 0 is .* from the exact one"),
        (NotCompiled(), "OSError: expected a compiler, got none"),
    ],
)
def test_kernels_that_do_something_else_are_not_taken(
    kernels: Pointwise, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The fast decoder goes on with plain operators."""
    with caplog.at_level(logging.WARNING, "penstock.engine"):
        loaded = served("text", kernels, monkeypatch)
    assert type(loaded.fast.pointwise) is Pointwise
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the decoder runs without fused kernels: ")
    assert re.search(reason, message)


def test_they_are_those_of_cuda_alone() -> None:
    assert type(fused_kernels("cuda")) is module.TritonPointwise
    assert fused_kernels("cpu") is None and fused_kernels("mps") is None
