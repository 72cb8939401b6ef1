"""Appended while decoding equals a dense forward over the same final order of tokens and positions.

Each test lets hypothesis splice media into a running reply and compares ids, positions and the logits of every token with
plain `transformers`, which has no pages, no batch and no stream.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.family import Loaded

from .acts import Act, Client, acts, perform, strangers
from .rig import Rig

# Tokens of a page, and rows of KV cache: enough for all streams, or for hardly more than one, so that streams take
# pages from each other.
CACHES = [(4, 4096), (16, 4096), (256, 4096), (4, 256), (16, 256), (256, 256)]


def engine(cache: tuple[int, int], append_rows: int, backend: str, host_pages: int) -> dict[str, Any]:
    page_tokens, kv_tokens = cache
    sizes = {"page_tokens": page_tokens, "kv_tokens": kv_tokens, "append_rows": append_rows}
    return {**sizes, "backend": backend, "host_pages": host_pages}


engines = st.builds(
    engine,
    st.sampled_from(CACHES),
    st.sampled_from([5, 32, 256]),
    st.sampled_from(["cpu", "reference"]),
    st.sampled_from([0, 8, 1 << 16]),
)
rules = st.sampled_from(["max", "transformers"])
# How many other streams, how many words each of them begins with, and whether they ask first: then they are served first.
crowds = st.tuples(st.integers(0, 3), st.sampled_from([0, 20, 60, 90]), st.booleans())
MEDIA = ("frame", "pair", "sound", "image")


@given(
    config=engines,
    rule=rules,
    before=acts(*MEDIA, "text", most=3),
    during=acts(*MEDIA, "text", most=4),
    crowd=crowds,
    cut=st.none() | st.integers(0, 20),
)
def test_omni(
    omni: tuple[Any, Any],
    omni_loaded: Loaded,
    config: dict[str, Any],
    rule: str,
    before: list[Act],
    during: list[Act],
    crowd: tuple[int, int, bool],
    cut: int | None,
) -> None:
    rig = Rig(omni_loaded, **config)
    client = Client(rig.open(format="live", positions=rule))
    others, load, first = crowd
    beside = strangers(rig, others, load, with_media=True) if first else []
    perform(rig, client, before)
    client.do("ask", max_tokens=20)
    beside += [] if first else strangers(rig, others, load, with_media=True)
    perform(rig, client, during)
    if cut is not None:
        rig.step(3)
        client.session.check(*omni)
        client.do("interrupt", cut)
        client.do("pair")
        client.do("ask", 1, max_tokens=6)
    rig.run()
    assert client.session.check(*omni) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*omni) >= 12


@given(
    config=engines,
    during=acts("text", most=4),
    crowd=crowds,
    cut=st.none() | st.integers(0, 20),
)
def test_text(
    text_qwen: tuple[Any, Any],
    text_loaded: Loaded,
    config: dict[str, Any],
    during: list[Act],
    crowd: tuple[int, int, bool],
    cut: int | None,
) -> None:
    rig = Rig(text_loaded, **config)
    client = Client(rig.open(format="live", system="You watch a door."))
    others, load, first = crowd
    beside = strangers(rig, others, load, with_media=False) if first else []
    client.do("text", 3)
    client.do("ask", max_tokens=20)
    beside += [] if first else strangers(rig, others, load, with_media=False)
    perform(rig, client, during)
    if cut is not None:
        rig.step(3)
        client.do("interrupt", cut)
        client.do("ask", 1, max_tokens=6)
    rig.run()
    assert client.session.check(*text_qwen) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*text_qwen) >= 12
