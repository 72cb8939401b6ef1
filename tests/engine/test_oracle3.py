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

# Rows of KV cache: enough for all streams, or hardly for one, so that streams take pages from each other.
AMPLE, TIGHT = 4096, 512

engines = st.fixed_dictionaries(
    {
        "page_tokens": st.sampled_from([4, 16, 256]),
        "append_rows": st.sampled_from([5, 32, 256]),
        "backend": st.sampled_from(["cpu", "reference"]),
        "kv_tokens": st.sampled_from([AMPLE, TIGHT]),
        "host_pages": st.sampled_from([0, 1 << 16]),
    }
)
rules = st.sampled_from(["max", "transformers"])
MEDIA = ("frame", "pair", "sound", "image")


@given(
    config=engines,
    rule=rules,
    before=acts(*MEDIA, "text", most=4),
    during=acts(*MEDIA, "text"),
    others=st.integers(0, 3),
    cut=st.none() | st.integers(0, 20),
)
def test_omni(
    omni: tuple[Any, Any],
    omni_loaded: Loaded,
    config: dict[str, Any],
    rule: str,
    before: list[Act],
    during: list[Act],
    others: int,
    cut: int | None,
) -> None:
    rig = Rig(omni_loaded, **config)
    client = Client(rig.open(format="live", positions=rule))
    beside = strangers(rig, others, with_media=True)
    perform(rig, client, before)
    client.do("ask", max_tokens=20)
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
    during=acts("text"),
    others=st.integers(0, 3),
    cut=st.none() | st.integers(0, 20),
)
def test_text(
    text_qwen: tuple[Any, Any],
    text_loaded: Loaded,
    config: dict[str, Any],
    during: list[Act],
    others: int,
    cut: int | None,
) -> None:
    rig = Rig(text_loaded, **config)
    client = Client(rig.open(format="live", system="You watch a door."))
    beside = strangers(rig, others, with_media=False)
    client.do("text", 3)
    client.do("ask", max_tokens=20)
    perform(rig, client, during)
    if cut is not None:
        rig.step(3)
        client.do("interrupt", cut)
        client.do("ask", 1, max_tokens=6)
    rig.run()
    assert client.session.check(*text_qwen) >= (6 if cut is not None else 20)
    for other in beside:
        assert other.session.check(*text_qwen) >= 12
