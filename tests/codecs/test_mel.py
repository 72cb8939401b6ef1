"""Log-mel: equal to Whisper's extractor for a clip, and the same block by block."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.mel import LogMel, floor_and_scale, log_mel
from penstock.codecs.wheels import mend_wheels
from penstock.errors import InputError

HOP, LEAD, AHEAD, BLOCK = 160, 200, 40, 200


def clip(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loudness = np.linspace(0.01, 1.0, count) * (np.sin(np.arange(count) / 9000) > -0.5)
    return (0.3 * loudness * rng.standard_normal(count)).astype(np.float32)


@pytest.fixture(scope="module")
def whisper():
    mend_wheels()
    from transformers import WhisperFeatureExtractor

    return {bins: WhisperFeatureExtractor(feature_size=bins, chunk_length=20) for bins in (80, 128)}


@pytest.fixture(scope="module")
def mels() -> dict[int, LogMel]:
    return {bins: LogMel(bins) for bins in (80, 128)}


@given(bins=st.sampled_from([80, 128]), count=st.integers(1, 90_000))
def test_a_whole_clip_equals_whisper(whisper, mels: dict[int, LogMel], bins: int, count: int) -> None:
    sound = clip(count)
    stock = whisper[bins](sound, sampling_rate=16000, return_attention_mask=True, padding="max_length")
    frames = int(stock["attention_mask"][0].sum())
    expected = torch.from_numpy(np.asarray(stock["input_features"][0]))[:, :frames]
    assert frames == -(-count // HOP)
    power = mels[bins].power(torch.from_numpy(sound), 0, frames)
    got = floor_and_scale(power, power.max())
    assert got.shape == (bins, frames) and (got - expected).abs().max() < 1e-4


@given(count=st.integers(1000, 100_000))
def test_blocks_equal_the_clip(mels: dict[int, LogMel], count: int) -> None:
    sound = torch.from_numpy(clip(count, 1))
    frames = -(-count // HOP)
    whole, blocks = mels[128].power(sound, 0, frames), []
    for first in range(0, frames, BLOCK):
        lead = LEAD if first else 0
        start, wanted = first * HOP, min(BLOCK, frames - first)
        block = sound[start - lead : start + wanted * HOP + AHEAD]
        blocks.append(mels[128].power(block, lead, wanted))
    assert (torch.cat(blocks, dim=1) - whole).abs().max() < 1e-5


def test_every_sample_of_the_context_counts(mels: dict[int, LogMel]) -> None:
    sound = torch.from_numpy(clip(LEAD + BLOCK * HOP + AHEAD, 2))
    before = mels[128].power(sound, LEAD, BLOCK)
    for at, frame in ((1, 0), (LEAD + BLOCK * HOP + AHEAD - 1, BLOCK - 1)):
        changed = sound.clone()
        changed[at] += 50.0
        after = mels[128].power(changed, LEAD, BLOCK)
        assert (after - before)[:, frame].abs().max() > 1e-4
        assert torch.equal(after[:, 5:-5], before[:, 5:-5])


@pytest.mark.parametrize("lead", [1, 160, 199])
def test_a_lead_that_is_the_clips_first_samples(mels: dict[int, LogMel], lead: int) -> None:
    """Its window reaches over the start of the clip, which is mirrored there."""
    samples = torch.from_numpy(clip(3000, seed=3))
    padded = torch.nn.functional.pad(samples[None], (200, 200), mode="reflect")[0]
    ours = mels[80].power(samples, lead, 4)
    assert torch.allclose(ours, mels[80].power(padded, 200 + lead, 4), atol=1e-5)


def test_a_longer_lead_changes_nothing(mels: dict[int, LogMel]) -> None:
    sound = torch.from_numpy(clip(40_000, 3))
    assert torch.equal(mels[80].power(sound[300:], 500, 50), mels[80].power(sound[600:], 200, 50))


def test_floor_and_scale() -> None:
    power = torch.tensor([[-10.0, -3.0, 1.0]])
    assert floor_and_scale(power, 1.0).tolist() == [[-0.75, 0.25, 1.25]]
    assert floor_and_scale(power, torch.tensor(4.0)).tolist() == [[0.0, 0.25, 1.25]]


def test_silence_is_the_clamp(mels: dict[int, LogMel]) -> None:
    assert (mels[80].power(torch.zeros(1000), 0, 7) == -10).all()


def test_wrong_input(mels: dict[int, LogMel]) -> None:
    with pytest.raises(InputError, match="a lead of 0 samples or more, got -1"):
        mels[80].power(torch.zeros(1000), -1, 3)
    with pytest.raises(InputError, match="1 frame or more"):
        mels[80].power(torch.zeros(1000), 0, 0)
    with pytest.raises(InputError, match=r"samples \(n,\)"):
        mels[80].power(torch.zeros(2, 1000), 0, 3)


def test_one_log_mel_for_all_who_ask_for_the_same() -> None:
    assert log_mel(64) is log_mel(64)
    assert log_mel(64) is not log_mel(128)
