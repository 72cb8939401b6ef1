"""The bytes of spans that are kept are those that are held: shared ones once, and until the last holder has gone."""

from __future__ import annotations

import pytest
from penstock.engine.family import Loaded

from .acts import Client
from .rig import Rig


def kept(rig: Rig) -> int:
    return int(rig.core.scheduler.statistics()["span_bytes"])


def test_what_forks_share_counts_once(omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded)
    client = Client(rig.open(format="live"))
    for kind in ("pair", "image", "sound"):
        client.do(kind, 3)
    rig.run()
    before = kept(rig)
    assert before > 0
    twin = Client(rig.fork(client.session), client.shown)
    assert kept(rig) == before
    twin.do("image", 1)
    rig.run()
    more = kept(rig)
    assert more > before
    client.session.close()
    assert kept(rig) == more, "the twin holds all of it"
    twin.session.close()
    assert kept(rig) == 0


@pytest.mark.parametrize("at", [0, 4, None])
def test_a_cut_leaves_the_count_as_it_was(omni_loaded: Loaded, at: int | None) -> None:
    rig = Rig(omni_loaded)
    client = Client(rig.open(format="live"))
    client.do("ask", max_tokens=20)
    for kind in ("pair", "image"):
        rig.step(3)
        client.do(kind)
    rig.step(3)
    before = kept(rig)
    assert before > 0
    client.session.interrupt(at)
    rig.run()
    assert kept(rig) == before
    client.session.close()
    assert kept(rig) == 0
