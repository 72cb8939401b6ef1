"""Damaged media in a stream: what is lost is told to its client, the rest is seen; in a prompt it is an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from penstock.actors.intake import Intake
from penstock.codecs.decoders import Decoders
from penstock.codecs.errors import DamagedError
from penstock.codecs.limits import MediaLimits
from penstock.codecs.worker import WorkerPool
from penstock.engine.family import Loaded
from penstock.streams.event import Dropped
from penstock.streams.item import AudioBytes, VideoBytes
from penstock.streams.prompt import Content, gather
from penstock.streams.request import Request
from penstock.streams.segment import AudioSegment, VideoSegment
from penstock.streams.whole import decoded

from tests.codecs.conftest import encode_file


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


def content(value: Any) -> Content:
    return gather(Request(messages=[{"role": "user", "content": [value]}]), MediaLimits())


def test_a_prompt_with_damaged_media_is_refused(loaded: Loaded) -> None:
    decoders = Decoders(MediaLimits(), None)
    with pytest.raises(DamagedError, match="video: expected a file without damage, got some at"):
        video = {"type": "video", "video": damaged("matroska", "libx264")}
        decoded(content(video), decoders, loaded.family.spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, 20_000.0])
def test_an_array_that_is_no_sound_is_refused(value: float) -> None:
    for kind in (np.float32, np.float64):
        samples = np.zeros(3000, kind)
        samples[1000] = value
        with pytest.raises(DamagedError, match=r"got 1 of 3000 .* at sample 1000 \(0.125 s\)"):
            content({"type": "audio", "audio": (samples, 8000)})
        with pytest.raises(DamagedError, match=r"at sample 1000$"):
            content({"type": "audio", "audio": np.stack([samples, samples])[:, :2000]})
