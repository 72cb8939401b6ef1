"""Torch's own paged attention: how runs are cut for it, and what it is given, against the reference backend.

Where there is no device a plain function stands for it that does what its source says, so that what is tested is
this side of the call; with `-m gpu` it is the real one.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.engine.plan import Plan
from penstock.engine.runner.attention import Part, ReferenceBackend
from penstock.engine.runner.attention_varlen import VarlenBackend, cut
from torch.nn.attention import varlen

from tests.cuda.ragged import Ragged, sequences
from tests.cuda.test_fake_step import EMPTY, FEEDS, Machine
from tests.cuda.where import DEVICE
from tests.fixtures.recipe import model_path

pytestmark = pytest.mark.skipif(
    "block_table" not in inspect.signature(varlen.varlen_attn).parameters,
    reason=f"torch {torch.__version__} has no page tables in varlen_attn",
)
either = pytest.mark.parametrize("asked", ["by default", pytest.param("for a device", marks=pytest.mark.gpu)])


class Beside(ReferenceBackend):
    """Counts what is left to it."""

    calls = 0

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return super().attend(query, keys, values, part, scale, cap)


def documented(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: varlen.AuxRequest,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: torch.Tensor,
    block_table: torch.Tensor,
    num_splits: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`varlen_attn` in plain words: a causal row sees all keys up to its own distance from the end."""
    assert return_aux.lse and enable_gqa == (query.shape[1] != key.shape[2])
    assert cu_seq_k is not None and cu_seq_k.tolist() == [0, *seqused_k.cumsum(0).tolist()]
    assert num_splits == 1, "split histories in pages are merged wrongly by FlashAttention 2"
    ints = (cu_seq_q, cu_seq_k, seqused_k, block_table)
    assert key.shape[1] % 256 == 0 and all(x.dtype == torch.int32 for x in ints)
    outs, sums = [], []
    borders = cu_seq_q.tolist()
    assert max_q == max(np.diff(borders)) and max_k == int(seqused_k.max())
    for number, (start, stop) in enumerate(zip(borders, borders[1:], strict=False)):
        length = int(seqused_k[number])
        pages = block_table[number, : -(-length // key.shape[1])].long()
        group = query.shape[1] // key.shape[2]
        keys, values = (x[pages].flatten(0, 1)[:length].repeat_interleave(group, 1).float() for x in (key, value))
        scores = torch.einsum("rhd,khd->hrk", query[start:stop].float(), keys) * scale
        if window_size == (-1, 0):
            rows = torch.arange(stop - start, device=query.device)[:, None] + length - (stop - start)
            scores = scores.masked_fill(torch.arange(length, device=query.device) > rows, float("-inf"))
        else:
            assert window_size == (-1, -1)
        outs.append(torch.einsum("hrk,khd->rhd", scores.softmax(-1), values).to(query.dtype))
        sums.append(scores.logsumexp(-1))
    return torch.cat(outs), torch.cat(sums, 1)


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE.type != "cuda":
        monkeypatch.setattr(varlen, "varlen_attn", documented)


shapes = st.fixed_dictionaries(
    {
        "shape": sequences
        | st.lists(st.tuples(st.integers(200, 900), st.sampled_from([1, 40])), min_size=1, max_size=2),
        "seed": st.integers(0, 1000),
        "page_tokens": st.just(256),
        "kv_heads": st.integers(1, 2),
        "group": st.integers(1, 4),
        "dim": st.sampled_from([16, 64]),
        "dtype": st.sampled_from([torch.float16, torch.bfloat16]),
        "mutual": st.integers(0, 30),
    }
)


@either
@pytest.mark.usefixtures("flash")
@given(case=shapes)
def test_any_batch(asked: str, case: dict[str, Any]) -> None:
    """Decode rows, appended rows and rows that see one another, all in one batch."""
    batch, beside = Ragged(**case), Beside()
    out, lse = batch.attend(VarlenBackend(beside))
    expected, sums = batch.attend(ReferenceBackend())
    assert beside.calls == 0
    torch.testing.assert_close(out.float(), expected.float(), rtol=0, atol=0.05)
    torch.testing.assert_close(lse, sums, rtol=0, atol=0.01)


@pytest.mark.usefixtures("flash")
@pytest.mark.parametrize(
    "case",
    [
        {"dtype": torch.float32},
        {"window": 7},
        {"page_tokens": 16},
        {"dim": 20},
    ],
    ids=str,
)
def test_what_it_does_not_take_goes_to_the_other(case: dict[str, Any]) -> None:
    given = {"page_tokens": 256, "dtype": torch.bfloat16, **case}
    batch, beside = Ragged([(40, 3), (9, 1)], seed=1, **given), Beside()
    out, _ = batch.attend(VarlenBackend(beside))
    assert beside.calls == 1
    assert torch.equal(out, batch.attend(ReferenceBackend())[0])


@given(
    counts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=4),
    first=st.integers(1, 50),
)
def test_a_run_is_cut_where_its_rows_see_otherwise(counts: list[list[int]], first: int) -> None:
    ends = np.concatenate([first + np.cumsum(steps) for steps in counts]).astype(np.int32)
    stops = np.cumsum([len(steps) for steps in counts]).tolist()
    runs = [[stop - len(steps), stop] for stop, steps in zip(stops, counts, strict=True)]
    pieces = cut(runs, ends)
    assert [row for start, stop, _ in pieces for row in range(start, stop)] == list(range(len(ends)))
    for start, stop, causal in pieces:
        assert any(low <= start < stop <= high for low, high in runs)
        assert set(np.diff(ends[start:stop]).tolist()) <= {int(causal)}


def test_a_whole_step_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real operator, with fake tensors of bfloat16 in pages of 256 rows."""
    loaded = load(model_path("text"), EngineConfig(dtype="float32"))  # in bfloat16 a CPU packs the weights for itself
    loaded = loaded._replace(text=loaded.text.bfloat16(), head=loaded.head.bfloat16())
    beside, seen = Beside(), []
    operator = varlen.varlen_attn

    def watched(*given: Any, **options: Any) -> Any:
        seen.append(options["block_table"].device.type)
        return operator(*given, **options)

    machine = Machine(loaded, backend=VarlenBackend(beside), decoder="library")
    monkeypatch.setattr(varlen, "varlen_attn", watched)
    machine.run(Plan(1, **EMPTY, feeds=FEEDS))
    assert beside.calls == 0
    assert seen == ["cuda"] * loaded.config.num_hidden_layers
    assert machine.device.watch.left == 0
