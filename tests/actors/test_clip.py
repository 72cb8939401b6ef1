"""A whole file of sound gives the features that the model's own processor gives, also where it is quiet first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from penstock.actors.intake import Intake
from penstock.codecs.decoders import Decoders
from penstock.codecs.limits import MediaLimits
from penstock.engine.family import Loaded
from penstock.errors import LimitError
from penstock.streams.item import AudioBytes
from penstock.streams.requests.request import Request

from tests.reference.media import RATE, sound, wav

STREAM = 987_654


def features(loaded: Loaded, items: list[AudioBytes]) -> torch.Tensor:
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(), None))
    segments = [
        segment for seq, item in enumerate(items, 1) for out in intake.take(seq, item) for segment in out.segments
    ]
    segments += intake.flush(len(items) + 1).segments
    spans = loaded.towers.encode([(STREAM, segment) for segment in segments])
    loaded.towers.forget(STREAM)
    intake.close()
    return torch.cat([span.embeds.rows for span in spans])


def test_whole_file_equals_the_processor(loaded: Loaded, omni: tuple[Any, Any]) -> None:
    model, processor = omni
    data = wav(np.concatenate([sound(1, 2.0, 0.003), sound(2, 2.7, 0.5)]))
    heard = np.frombuffer(data[44:], dtype="<i2").astype(np.float32) / 32768
    inputs = processor.feature_extractor(
        heard, sampling_rate=RATE, padding="max_length", return_attention_mask=True, return_tensors="pt"
    )
    with torch.no_grad():
        stock = model.get_audio_features(inputs["input_features"], inputs["attention_mask"]).last_hidden_state

    whole = features(loaded, [AudioBytes(data, final=True)])
    assert whole.shape == stock.shape
    assert float((whole - stock).abs().max()) < 1e-4

    pieces = features(loaded, [AudioBytes(data[:9000]), AudioBytes(data[9000:], final=True)])
    assert float((pieces - stock).abs().max()) > 1e-2  # what comes later cannot have been known


def test_a_file_that_is_larger_decoded_than_it_may_be_is_refused(loaded: Loaded) -> None:
    """A small file may hold much silence; what one call of the decoder may give does not bound all calls."""
    data = wav(sound(1, 12.0))
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(max_decoded_bytes=400_000), None))
    with pytest.raises(LimitError, match="expected a file of at most 400000 bytes of samples, got more"):
        list(intake.take(1, AudioBytes(data, final=True)))
    assert sum(len(out.segments) for out in intake.take(2, AudioBytes(wav(sound(1, 0.5)), final=True))) == 1
    intake.close()
