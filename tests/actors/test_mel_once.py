"""A file's log-mel is worked out once: where its loudest frame is looked for."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from penstock.actors.decode import segment_bytes
from penstock.actors.intake import Intake
from penstock.codecs.decoders import Decoders
from penstock.codecs.limits import MediaLimits
from penstock.codecs.mel import LogMel
from penstock.engine.family import Loaded
from penstock.streams.item import AudioBytes
from penstock.streams.requests.request import Request
from penstock.streams.segment import AudioSegment

from tests.reference.media import sound, wav


def test_blocks_of_a_file_go_through_the_mel_once(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, power = [], LogMel.power

    def counted(self: LogMel, samples: torch.Tensor, lead: int, frames: int) -> torch.Tensor:
        calls.append(frames)
        return power(self, samples, lead, frames)

    monkeypatch.setattr(LogMel, "power", counted)
    intake = Intake(loaded.family.spec, Request(), Decoders(MediaLimits(), None))
    file = wav(np.asarray(sound(4, 5.0), np.float32))
    outputs = [*intake.take(1, AudioBytes(file, final=True)), intake.flush(2)]
    blocks = [one for output in outputs for one in output.segments if isinstance(one, AudioSegment)]
    towers: Any = loaded.towers
    heard, encode = [], towers.encode_blocks
    monkeypatch.setattr(towers, "encode_blocks", lambda mels: heard.append(mels) or encode(mels))
    towers.encode([(-1, block) for block in blocks])
    assert calls == [block.frames for block in blocks] and len(calls) >= 3
    anew = [msgspec.structs.replace(block, power=None) for block in blocks]
    towers.encode([(-2, block) for block in anew])
    first, second = heard
    assert all(torch.equal(mel, other) for mel, other in zip(first, second, strict=True))
    assert [segment_bytes(block) - segment_bytes(other) for block, other in zip(blocks, anew, strict=True)] == [
        block.power.nbytes for block in blocks if block.power is not None
    ]
