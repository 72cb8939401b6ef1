"""A decoder in int8 says about what it says in float32, in less memory; Brook still answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.demos.brook.draw import Painter
from penstock.demos.brook.senses import SIDE
from penstock.demos.film import STORY
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.engine.loading import int8 as int8_module
from penstock.engine.loading.int8 import Int8Linear
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.engine.plan import Draw, Feed, Plan, TableEdit
from penstock.engine.runner.language import LanguageModel
from penstock.engine.span import Rows
from penstock.errors import ModelError
from penstock.streams.event import Token
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import VideoSegment

from tests.fixtures.recipe import model_path

_PAGE = 16
# Error of the logits, root mean square in standard deviations; that of bfloat16 is at most 0.04.
TOLERANCE = 0.08


def logits(loaded: Loaded, ids: np.ndarray, pieces: int) -> torch.Tensor:
    """Logits `(pieces, vocabulary)` behind each of so many pieces, which are appended one after the other."""
    pages = -(-len(ids) // _PAGE)
    language = LanguageModel(loaded, pages, _PAGE, slots=1)
    found, start = [], 0
    for part in np.array_split(ids, pieces):
        places = np.broadcast_to(np.arange(start, start + len(part)), (3, len(part)))
        edits = [TableEdit(0, 0, list(range(pages)))]
        language.run(Plan(0, [], [], edits, [], [], [Feed(0, 0, start, [Rows(part, places)], Draw())]))
        assert language.logits is not None
        found.append(language.logits[0].float())
        start += len(part)
    return torch.stack(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 8, 9, 64, 65], ids="{} rows".format)
@pytest.mark.parametrize("multiplies", [True, False])
def test_a_layer_is_close_to_what_it_was(
    rows: int, dtype: torch.dtype, multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPUs that multiply int8 and on others."""
    monkeypatch.setattr(int8_module, "multiplies_int8", lambda: multiplies)
    torch.manual_seed(rows)
    linear = torch.nn.Linear(96, 40, dtype=dtype)
    torch.nn.init.zeros_(linear.weight[3])
    layer, x = Int8Linear(linear), torch.randn(1, rows, 96, dtype=dtype)
    with torch.inference_mode():
        ours, exact = layer(x), linear.float()(x.float())
    assert (ours.dtype, ours.shape) == (dtype, (1, rows, 40))
    assert float((ours.float() - exact).abs().max() / exact.std()) < 0.05
    assert float((ours.float() - exact).abs().max()) > 0  # it is int8 that has computed


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize("width", [1, 2, 8, 15, 16, 17, 33])
def test_any_width_is_right(monkeypatch: pytest.MonkeyPatch, width: int, multiplies: bool) -> None:
    """Some of torch's kernels are not made for each."""
    monkeypatch.setattr(int8_module, "multiplies_int8", lambda: multiplies)
    linear, x = torch.nn.Linear(width, 3), torch.randn(2, width)
    with torch.inference_mode():
        ours, exact = Int8Linear(linear)(x), linear(x)
    assert torch.allclose(ours, exact, atol=0.05 * float(exact.abs().max()) + 0.01)


@given(
    st.integers(1, 64), st.integers(1, 70), st.integers(1, 9), st.floats(1e-12, 1e12), st.integers(0, 99), st.booleans()
)
def test_rows_are_as_exact_as_in_bfloat16_and_do_not_change_one_another(
    rows: int, inputs: int, outputs: int, size: float, seed: int, outlier: bool
) -> None:
    """Against the same weights in float64; one value may be a thousand times as large as the others of its row."""
    dice = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(inputs, outputs, bias=False)
    linear.weight.data = torch.randn(outputs, inputs, generator=dice)
    layer, x = Int8Linear(linear), size * torch.randn(rows, inputs, generator=dice)
    if outlier:
        x[0, 0] *= 1000
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8_module, "multiplies_int8", lambda: True)
        ours = layer(x)
        alone = torch.cat([layer(x[row : row + 1]) for row in range(rows)])
    assert torch.equal(ours, alone)
    weight = layer.weight.double() * layer.scale[:, None]
    exact = x.double() @ weight.t()
    # Half of the finer unit for each input, and the rounding of float32.
    allowed = x.double().abs().amax(1, keepdim=True) * weight.abs().sum(1) * (1 / (2 * 127 * 254) + 1e-6)
    assert bool(((ours.double() - exact).abs() <= allowed).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_makes_its_row_so_and_no_other(bad: float) -> None:
    layer, x = Int8Linear(torch.nn.Linear(30, 7)), torch.ones(3, 30)
    x[1, 4] = bad
    with torch.inference_mode():
        ours = layer(x)
    assert ours[[0, 2]].isfinite().all() and not ours[1].isfinite().any()


def test_in_half_precision_large_activations_stay_finite() -> None:
    """Products of the unscaled weights would be 127 times as large for a row whose largest weight is 1."""
    torch.manual_seed(1)
    linear = torch.nn.Linear(64, 16)
    linear.weight.data = linear.weight.detach().sign() * 0.2
    x = 80 * linear.weight.detach()[:1].sign().repeat(16, 1)
    layer = Int8Linear(linear.half())
    with torch.inference_mode():
        ours, exact = layer(x.half()), linear.float()(x)
    assert float(exact.abs().max()) * 127 / 0.2 > 65_504
    assert torch.isfinite(ours).all() and float((ours.float() - exact).abs().max() / exact.std()) < 0.05


@pytest.mark.parametrize("name", ["text", "llama", "omni"])
@pytest.mark.parametrize("pieces", [8, 40], ids="{} pieces".format)
def test_logits_are_close_and_clear_tokens_are_the_same(name: str, pieces: int) -> None:
    exact, int8 = (load(model_path(name), EngineConfig(quantize=quantize)) for quantize in (None, "int8"))
    ids = np.random.default_rng(3).integers(0, 1000, 80)
    expected, got = logits(exact, ids, pieces), logits(int8, ids, pieces)
    assert 0 < float((expected - got).pow(2).mean().sqrt() / expected.std()) < TOLERANCE
    error = float((expected - got).abs().max())
    best = expected.topk(2, dim=1)
    clear = best.values[:, 0] - best.values[:, 1] > 2 * error
    assert clear.any()
    assert torch.equal(got.argmax(1)[clear], best.indices[clear, 0])


def test_what_was_linear_takes_a_quarter_of_float32() -> None:
    exact, int8 = (load(None, EngineConfig(quantize=quantize)) for quantize in (None, "int8"))
    linear = sum(layer.weight.nbytes for layer in exact.text.modules() if type(layer) is torch.nn.Linear)
    assert not [layer for layer in int8.text.modules() if type(layer) is torch.nn.Linear]
    saved = weight_bytes(exact) - weight_bytes(int8)
    assert 0.74 * linear < saved < 0.75 * linear
    assert type(int8.head) is torch.nn.Linear and int8.dtype == torch.float32


def test_brook_still_answers() -> None:
    """Word for word as in float32."""

    def answers(quantize: str | None) -> list[str]:
        core = Core(load(None, EngineConfig(quantize=quantize)), EngineConfig(kv_tokens=4096))
        core.open(1, Request(format="turns"))
        painter = Painter(STORY, SIDE)  # as large as a stream gives it
        frames = [painter.picture(number / 2) for number in range(8)]
        for pair in range(4):
            pixels = np.stack(frames[2 * pair : 2 * pair + 2])
            segment = VideoSegment(pair + 1, 0, pixels, pair * 1_000_000, pair * 1_000_000 + 500_000)
            core.append(1, pair + 1, [segment])
        said = []
        for seq, question in enumerate(("What do you see?", "Where is the circle?", "What moved?"), 10):
            core.ask(1, seq, question, SamplingParams(max_tokens=40))
            said.append("".join(event.text for _, event in core.run() if isinstance(event, Token)))
        return said

    exact, int8 = answers(None), answers("int8")
    assert "red circle" in exact[0] and exact[2].startswith("the red circle moved")
    assert int8 == exact


def test_another_word_is_refused() -> None:
    with pytest.raises(ModelError, match="quantize: expected int8 or nothing, got 'int2'"):
        load(model_path("text"), EngineConfig(quantize="int2"))
