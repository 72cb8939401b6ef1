"""Puts this folder on the path, so that its tests find the fake engine and the harness; names the engines; a server
with Brook and media for `penstock ask`."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from penstock.demos.brook.sound import RATE, Bank
from penstock.demos.film import STORY, draw, make_film
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from asking import SECONDS


@pytest.fixture(params=["fake", "real"])
def engine_kind(request: pytest.FixtureRequest) -> str:
    """Which engine a test of the protocol runs with; see `harness.running_engine`."""
    return request.param


@pytest.fixture(scope="session")
def url(brook_url: str) -> str:
    """The address of `penstock serve` with Brook."""
    return brook_url


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film in three containers, the half of it, its picture and its sound."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "half.mp4").write_bytes(make_film(SECONDS / 2))
    (folder / "film.mp4").write_bytes(make_film(SECONDS))
    (folder / "film.webm").write_bytes(make_film(SECONDS, "webm"))
    with (
        av.open(str(folder / "film.mp4")) as source,
        av.open(str(folder / "phone.mp4"), "w", format="mp4") as target,
    ):
        copies = {track.index: target.add_stream_from_template(track) for track in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
    file = (folder / "phone.mp4").read_bytes()
    assert file.index(b"mdat") < file.index(b"moov"), "expected the index at the end, as telephones write it"
    Image.fromarray(draw(0.0)).save(folder / "picture.png")
    with wave.open(str(folder / "sound.wav"), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(RATE)
        recording.writeframes((Bank((), half=0).track(STORY) * 32767).astype(np.int16).tobytes())
    return folder
