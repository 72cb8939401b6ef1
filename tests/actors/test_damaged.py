"""Damaged media in a stream: what is lost is told to its client, the rest is seen; in a prompt it is an error."""

from __future__ import annotations

import io
from typing import Any

import av
import msgspec
import numpy as np
import pytest
from penstock.actors.intake import Intake
from penstock.codecs.decoders import Decoders
from penstock.codecs.limits import MediaLimits
from penstock.codecs.worker import WorkerPool
from penstock.engine.family import Loaded
from penstock.errors import DamagedError
from penstock.streams.event import Dropped
from penstock.streams.item import AudioBytes, VideoBytes
from penstock.streams.requests.prompt import Content, gather
from penstock.streams.requests.request import Request
from penstock.streams.requests.whole import decoded
from penstock.streams.segment import AudioSegment, VideoSegment

from tests.codecs.conftest import encode_file
from tests.reference.media import wav


def damaged(kind: str, video: str | None) -> bytes:
    data = bytearray(encode_file(kind, video, "aac", times=tuple(range(0, 4000, 100))))
    for at in range(len(data) // 2, len(data) // 2 + 3000, 60):
        data[at] ^= 0x5A
    return bytes(data)


@pytest.mark.parametrize("workers", [False, True])
def test_losses_come_as_drops_beside_what_is_left(loaded: Loaded, workers: bool) -> None:
    pool = WorkerPool(1) if workers else None
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(), pool))
    outputs = list(intake.take(7, VideoBytes(damaged("matroska", "libx264"), final=True)))
    outputs += list(intake.take(8, AudioBytes(damaged("adts", None), final=True)))
    segments = [segment for output in outputs for segment in output.segments]
    drops = [drop for output in outputs for drop in output.dropped if drop.reason == "damaged"]
    intake.close()
    if pool is not None:
        pool.close()
    assert any(isinstance(segment, VideoSegment) for segment in segments)
    assert any(isinstance(segment, AudioSegment) for segment in segments)
    assert {(drop.seq, drop.modality) for drop in drops} >= {(7, "video"), (8, "audio")}
    assert all(isinstance(drop, Dropped) and (drop.start_us or 0) <= (drop.stop_us or 0) for drop in drops)


def test_a_sound_that_breaks_off_is_heard_up_to_there(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or in pieces."""
    sound = wav(np.full(16_000, 0.1, np.float32))
    read = Decoders.container

    def broken(self: Decoders, kind: str, pts_us: int) -> Any:
        container = read(self, kind, pts_us)
        feed = container.read

        def once(data: Any, final: bool) -> Any:
            yield from feed(data, final)
            if final:
                raise DamagedError("sound: broken off")

        monkeypatch.setattr(container, "read", once)
        return container

    monkeypatch.setattr(Decoders, "container", broken)
    outputs = []
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(), None))
    with pytest.raises(DamagedError):
        outputs.extend(intake.take(1, AudioBytes(sound, final=True)))
    outputs.append(intake.flush(2))
    heard = [segment for output in outputs for segment in output.segments if isinstance(segment, AudioSegment)]
    assert sum(segment.frames for segment in heard) >= 90


def test_of_two_files_beside_each_other_each_keeps_its_place(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second file that begins does not make another source of the first."""
    film, sound = encode_file("matroska", "libx264", None), encode_file("adts", None, "aac")
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(), None))
    sources = []
    feed = intake._timeline.feed
    monkeypatch.setattr(
        intake._timeline, "feed", lambda seq, frames, source: sources.append((seq, source)) or feed(seq, frames, source)
    )
    half = len(film) // 2
    for seq, item in enumerate((VideoBytes(film[:half]), AudioBytes(sound[:200]), VideoBytes(film[half:], final=True))):
        list(intake.take(seq, item))
    intake.close()
    video = {source for seq, source in sources if seq != 1}
    assert len(video) == 1 and video.isdisjoint({source for seq, source in sources if seq == 1})


def content(value: Any) -> Content:
    return gather(Request(messages=[{"role": "user", "content": [value]}]), MediaLimits())


def test_a_prompt_with_damaged_media_is_refused_where_the_model_would_take_it(loaded: Loaded) -> None:
    decoders = Decoders(MediaLimits(), None)
    sound = encode_file("adts", None, "aac", times=tuple(range(0, 4000, 100)))
    film = bytearray(encode_file("matroska", "libx264", "aac"))
    with av.open(io.BytesIO(bytes(film)), "r") as container:
        packet = [packet for packet in container.demux(audio=0) if packet.size][8]
    at = film.index(bytes(packet))
    film[at : at + packet.size] = b"\xff" * packet.size
    bad = damaged("adts", None), damaged("matroska", "libx264")
    for value in ({"type": "audio", "audio": bad[0]}, {"type": "video", "video": bad[1]}):
        with pytest.raises(DamagedError):
            decoded(content(value), decoders, loaded.family.spec)
    assert decoded(content({"type": "audio", "audio": sound}), decoders, loaded.family.spec).media
    # only its sound is damaged, which this prompt leaves out
    video = content({"type": "video", "video": bytes(film)})
    assert decoded(video, decoders, loaded.family.spec).media
    with pytest.raises(DamagedError, match="audio: expected a file without damage, got some at 0.1"):
        decoded(msgspec.structs.replace(video, audio_in_video=True), decoders, loaded.family.spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, 20_000.0])
def test_an_array_that_is_no_sound_is_refused(value: float) -> None:
    for kind in (np.float32, np.float64):
        samples = np.zeros(3000, kind)
        samples[1000] = value
        with pytest.raises(DamagedError, match=r"got 1 of 3000 .* at sample 1000 \(0.125 s\)"):
            content({"type": "audio", "audio": (samples, 8000)})
        with pytest.raises(DamagedError, match=r"at sample 1000$"):
            content({"type": "audio", "audio": np.stack([samples, samples])[:, :2000]})
