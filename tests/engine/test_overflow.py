"""What does not fit is refused with both numbers, a running reply ends with "length", and the stream stays usable."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from penstock.engine.family import Family, Loaded
from penstock.streams.event import Error

from tests.reference.media import sound

from .acts import Client
from .rig import Rig

ROWS = 256


def error_of(client: Client) -> str:
    (error,) = client.session.of(Error)
    assert error.code == "context_overflow" and not error.fatal
    return error.message


def test_media_that_does_not_fit_the_cache_is_refused(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded, kv_tokens=ROWS, page_tokens=16)
    client = Client(rig.open(format="turns"))
    client.session.sound(sound(1, 10.1))  # blocks of 2 s are 50 rows each
    rig.run()
    numbers = [int(number) for number in re.findall(r"\d+", error_of(client))]
    assert numbers[0] == ROWS and numbers[2] == 50 > numbers[1]
    heard = client.session.transcript()[0]
    client.do("ask", max_tokens=8)
    rig.run()
    assert client.session.transcript()[0][: len(heard)] == heard
    assert client.session.ends() == [("length", 8)]


def test_a_reply_ends_where_the_cache_ends(omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded, kv_tokens=ROWS, page_tokens=16)
    client = Client(rig.open(format="turns"))
    client.do("ask", max_tokens=10_000)
    rig.run()
    ids = client.session.transcript()[0]
    ((reason, tokens),) = client.session.ends()
    assert reason == "length" and ROWS - 16 < len(ids) <= ROWS
    assert ids[-2:] == omni_loaded.family.turn_ids["assistant_end"]
    client.do("ask", 1)
    rig.run()
    assert str(ROWS) in error_of(client)


@pytest.fixture
def short_sighted(omni_loaded: Loaded) -> Loaded:
    """The same model with few positions."""
    data = msgspec.structs.replace(omni_loaded.family.data, max_positions=120)
    return omni_loaded._replace(family=Family(data, omni_loaded.family.tokenizer))


def test_positions_run_out_before_rows_do(short_sighted: Loaded) -> None:
    rig = Rig(short_sighted, kv_tokens=4096)
    client = Client(rig.open(format="turns"))
    for _ in range(6):  # a pair is a second: 25 positions in 6 rows
        client.do("pair")
    rig.run()
    errors = client.session.of(Error)
    assert errors and all("120 positions" in error.message for error in errors)
    assert max(max(axis) for axis in client.session.transcript()[1].tolist()) < 120
    client.do("ask", max_tokens=500)
    rig.run()
    refused = client.session.of(Error)[len(errors) :]
    assert client.session.ends() and client.session.ends()[0][0] == "length" or refused
    assert len(client.session.transcript()[0]) < 4096
