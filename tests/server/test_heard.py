"""The sound of a client on one clock: what is said of it does not depend on how it was cut."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from penstock.server.doors.heard import HeardPiece, SaidSound, SoundClock


class Form(NamedTuple):
    rate: int
    width: int


FORM, OTHER = Form(24_000, 2), Form(8_000, 1)


class Client:
    """Sends sound and keeps all of it."""

    def __init__(self) -> None:
        self.clock, self.said = SoundClock(), SaidSound[Form]()

    def send(self, data: bytes, form: Form = FORM) -> None:
        self.said.append(self.clock.count(len(data) // form.width, form.rate), data, form)


def samples(count: int) -> bytes:
    return b"".join(number.to_bytes(2, "little") for number in range(count))


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12), st.data())
def test_what_was_said_is_the_sound_between_two_times(cuts: list[int], data: st.DataObject) -> None:
    sound, client = samples(sum(cuts)), Client()
    start = data.draw(st.integers(0, sum(cuts)))
    stop = data.draw(st.integers(start, sum(cuts)))
    for place, count in enumerate(cuts):
        client.send(sound[2 * sum(cuts[:place]) : 2 * (sum(cuts[:place]) + count)])
    assert client.clock.now_us == sum(cuts) * 1_000_000 // 24_000
    client.said.start(start * 1_000_000 // 24_000)
    assert client.said.unheard() == [
        HeardPiece(start * 1_000_000 // 24_000, sound[2 * start :], FORM) for _ in range(start < sum(cuts))
    ]
    said = client.said.stop(stop * 1_000_000 // 24_000)
    assert said == [(sound[2 * start : 2 * stop], FORM) for _ in range(start < stop)]


def test_a_form_that_changes_while_somebody_speaks_loses_nothing() -> None:
    client = Client()
    client.send(samples(24_000))
    client.send(bytes(8_000), OTHER)
    client.send(samples(24_000))
    assert client.clock.now_us == 3_000_000
    client.said.start(500_000)
    said = client.said.stop(2_500_000)
    assert said is not None and [(len(data), form) for data, form in said] == [
        (24_000, FORM),
        (8_000, OTHER),
        (24_000, FORM),
    ]


def test_a_stream_that_is_late_finds_its_speech_and_silence_is_let_go() -> None:
    client = Client()
    for _ in range(60):
        client.send(bytes(48_000))
    client.said.start(5_000_000)
    said = client.said.stop(7_000_000)
    assert said == [(bytes(96_000), FORM)]
    client.said.silent(59_000_000)
    assert sum(len(piece.data) for piece in client.said.unheard()) == 48_000


def test_what_is_too_long_is_not_said_to_be_whole() -> None:
    client = Client()
    client.said.most_us = 10_000_000
    client.send(bytes(48_000))
    client.said.start(0)
    for _ in range(20):
        client.send(bytes(48_000))
    assert client.said.stop(21_000_000) is None
    for _ in range(1000):
        client.send(b"")
    client.said.start(20_500_000)
    assert client.said.stop(21_000_000) == [(bytes(24_000), FORM)]


def test_what_is_cleared_is_not_said_and_what_follows_is() -> None:
    client = Client()
    client.send(bytes(48_000))
    client.said.start(200_000)
    client.said.clear(client.clock.now_us)
    client.send(samples(12_000))
    assert client.said.stop(1_500_000) == [(samples(12_000), FORM)]
