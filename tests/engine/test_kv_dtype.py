"""Streams whose keys and values are in eight bits, against a dense forward of plain `transformers` that rounds as
they do (tests/reference/rounded.py), and against one that does not.

Where a number lies in the middle of two steps, the last bit of a float decides which one it becomes. So a few logits
are off by a part of what rounding costs; all others are as near as in floats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from penstock.engine.config import FITTING
from penstock.engine.core import Core, fit
from penstock.engine.frozen import Frozen, Snapshot
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.engine.snapshot import read, write
from penstock.errors import InputError
from penstock.streams.event import Error, Evicted, ReplyDone
from penstock.streams.requests.request import Request
from penstock.streams.requests.window import Window

from tests.fixtures.loaded import plain, served
from tests.fixtures.recipe import model_path
from tests.reference.dense import forward
from tests.reference.rounded import rounded, rounding

from .acts import Client, strangers
from .rig import TOLERANCE, Rig, Session
from .slid import SlidRig
from .test_windows import live_on, media

REPLY = 16
MEDIA = {
    "omni": ["pair", "sound", "image"],
    "qwen2_5_vl": ["pair", "image"],
    "qwen3_vl": ["pair", "image"],
    "gemma3": ["image"],
    "llava": ["image"],
    "text": ["text"],
}
FAST = [("omni", "int8"), ("gemma3", "int8"), ("text", "fp8")]
cases = pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=() if (name, kind) in FAST else pytest.mark.slow)
        for name in MEDIA
        for kind in ("int8", "fp8")
    ],
)
# The logits' error over what rounding does to the numbers of a head, both by root mean square: what these models make
# of it in two layers.
GROWS = 8


def noise(kind: str) -> float:
    """What rounding does to heads of 16 random numbers, by root mean square over theirs."""
    heads = torch.randn(1000, 16, generator=torch.Generator().manual_seed(1))
    return float((rounded(heads, kind) - heads).pow(2).mean().sqrt())


def size(numbers: torch.Tensor) -> float:
    return float(numbers.pow(2).mean().sqrt())


def drawn(model: Any, processor: Any, kind: str, session: Session) -> tuple[torch.Tensor, ...]:
    """Of each token that was drawn: our logits, those of a dense forward that rounds, and of one that does not."""
    sequence = session.expected(model, processor)
    session.check_places(sequence)
    with rounding(model, kind):
        narrow = forward(model, sequence)
    exact = forward(model, sequence)
    rows = [sequence.marks[place][0] - 1 for place in session.story.tokens()]
    return torch.stack([session.draws[row][1] for row in rows]), narrow[rows], exact[rows]


class Witness(SlidRig):
    """Keeps our logits and the reference's of all that was drawn."""

    def __init__(self, *args: Any, **config: Any) -> None:
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
        super().__init__(*args, **config)

    def _compare(self, logits: torch.Tensor, got: torch.Tensor, token: int) -> None:
        self.pairs.append((got.clone(), logits))


@cases
def test_streams_say_what_a_dense_forward_that_rounds_says(name: str, kind: str) -> None:
    """Beside strangers that take each other's pages by way of the host, copied in mid-reply, with media that comes
    into the running replies."""
    rig, kinds = Rig(served(name), page_tokens=4, kv_tokens=200, kv_dtype=kind), MEDIA[name]
    others = strangers(rig, 3, 60, with_media="pair" in kinds)
    client = Client(rig.open(format="live", video_fps=2.0))
    client.do(kinds[0])
    client.do("ask", max_tokens=REPLY)
    rig.step(4)
    twin = Client(rig.fork(client.session))
    twin.shown, twin.heard = client.shown, client.heard
    client.do(kinds[-1])
    twin.do(kinds[-1], 1)
    rig.run()
    assert any(plan.saves for plan in rig.plans) and any(plan.restores for plan in rig.plans)
    all_drawn = [drawn(*plain(name), kind, one.session) for one in (client, twin, *others)]
    ours, narrow, exact = (torch.cat(column) for column in zip(*all_drawn, strict=True))
    cost = size(narrow - exact)
    assert 0 < cost <= GROWS * noise(kind) * float(exact.std())
    assert size(ours - narrow) <= cost / 4  # else it would be another rounding
    close = (ours - narrow).abs().amax(1) <= TOLERANCE
    assert float(close.float().mean()) > 0.5 or kind == "fp8"  # one number of e4m3 that is another one is seen in all
    said, best = ours.argmax(1), exact.topk(2, dim=1)
    clear = best.values[:, 0] - best.values[:, 1] > 2 * (ours - exact).abs().amax(1)
    assert torch.equal(said[clear], best.indices[clear, 0])
    assert float((said == best.indices[:, 0]).float().mean()) > (0.9 if kind == "int8" else 0.7)


@pytest.mark.parametrize("name", ["omni", pytest.param("gemma3", marks=pytest.mark.slow), "text"])
def test_windows_slide_over_keys_in_eight_bits(name: str) -> None:
    """What is moved is put into floats, turned and rounded again. The reference rounds nothing."""
    rig = Witness(served(name), plain(name)[0], page_tokens=16, kv_tokens=2048, kv_dtype="int8")
    session = rig.open(format="turns", window=Window(rows=220, text_rows=40), system="You watch a door.")
    live_on(rig, session, media(name), 8)
    assert session.of(Evicted) and not session.of(Error)
    assert any(plan.recalled for plan in rig.plans) and len(rig.pairs) >= 8 * 4
    ours, exact = (torch.stack(column) for column in zip(*rig.pairs, strict=True))
    assert size(ours - exact) <= 2 * GROWS * noise("int8") * float(exact.std())


def test_streams_that_begin_alike_share_pages() -> None:
    """The second finds what the first has computed, and says what a dense forward that rounds says."""
    rig = Rig(served("text"), page_tokens=4, kv_dtype="int8")
    for number in range(2):
        session = rig.open(format="turns", system="You watch a door, and say who comes and who goes.")
        session.ask("Who came in?", max_tokens=6, hold=False)
        rig.run()
        assert (session.of(ReplyDone)[0].cached > 0) == (number == 1)
        ours, narrow, exact = drawn(*plain("text"), "int8", session)
        assert size(ours - narrow) <= size(narrow - exact) / 4


def test_a_snapshot_goes_into_a_cache_of_its_type_only(tmp_path: Path) -> None:
    """Its pages are written as they are, to the bit."""
    pages = torch.randint(-128, 128, (2, 4, 2, 20), dtype=torch.int8)
    frozen = Snapshot(1, 2, Frozen(Request(), pages=2, page_tokens=4), [(pages, pages + 1)], {})
    write(tmp_path / "here", frozen, "model", "int8")
    ((keys, values),) = read(tmp_path / "here", "model", 4, "int8").layers
    assert torch.equal(keys, pages) and torch.equal(values, pages + 1)
    with pytest.raises(InputError, match="here: kv_dtype: expected auto, got int8"):
        read(tmp_path / "here", "model", 4, "auto")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_as_many_more_rows_fit_as_the_plan_says(kind: str, dtype: str, free: dict[str, int | None]) -> None:
    """Heads of 16 numbers take 20 bytes; that is what the cache has."""
    config = msgspec.structs.replace(FITTING, device="cpu", dtype=dtype, memory_fraction=0.1, kv_dtype=kind)
    free["cpu"] = 1 << 28
    found = forecast(model_path("text"), config)
    loaded = load(model_path("text"), config)
    free["cpu"] = (1 << 28) - weight_bytes(loaded)
    memory = fit(loaded, config)
    assert found.memory == memory
    plain_rows = fit(loaded, msgspec.structs.replace(config, kv_dtype="auto")).tokens
    assert memory.kv_gain == {"float32": 64, "bfloat16": 32}[dtype] / 20
    assert memory.tokens / plain_rows == pytest.approx(memory.kv_gain, rel=0.01)
    cache = Core(loaded, config).language.cache
    assert sum(pool.nbytes for pool in (*cache.keys, *cache.values)) == memory.kv_bytes
