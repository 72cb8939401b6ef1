"""Resampling: no seam at any cut, the right sound, and clean changes of rate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Samples
from penstock.codecs.resample import Resampler, resample
from penstock.errors import InputError

RATES = [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000]


def run(sound: np.ndarray, rate: int, cuts: list[int], rate_out: int = 16000) -> np.ndarray:
    resampler, at, pieces = Resampler(rate_out), 0, []
    for cut in [*sorted(cuts), sound.shape[1]]:
        pieces.append(resampler.feed(Samples(samples=sound[:, at:cut], rate=rate, pts_us=0)))
        at = cut
    return np.concatenate([*pieces, resampler.flush()])


def tone(rate: int, seconds: float = 0.5, frequency: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate).astype(np.float32)


@given(st.sampled_from(RATES), st.integers(1, 3), st.lists(st.integers(0, 3000), max_size=60))
def test_any_cuts_give_the_same_samples(rate: int, channels: int, cuts: list[int]) -> None:
    sound = np.random.default_rng(rate).uniform(-1, 1, (channels, 3000)).astype(np.float32)
    assert np.array_equal(run(sound, rate, cuts), run(sound, rate, []))


def test_one_sample_at_a_time() -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (1, 2000)).astype(np.float32)
    assert np.array_equal(run(sound, 44100, list(range(1, 2000))), run(sound, 44100, []))


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_stays_a_tone(rate: int) -> None:
    got, expected = run(tone(rate)[None], rate, []), tone(16000)
    assert got.dtype == np.float32 and abs(len(got) - len(expected)) <= 1
    assert np.abs(got[200:7800] - expected[200:7800]).max() < 0.02


def test_channels_are_averaged() -> None:
    left, right = tone(16000), tone(16000, frequency=1000.0)
    assert np.allclose(run(np.stack([left, right]), 16000, [100]), (left + right) / 2, atol=1e-6)


def test_a_change_of_rate_starts_afresh() -> None:
    first, second = tone(48000)[None], tone(8000)[None]
    resampler = Resampler(16000)
    together = [
        resampler.feed(Samples(samples=first, rate=48000, pts_us=0)),
        resampler.feed(Samples(samples=second, rate=8000, pts_us=0)),
        resampler.feed(Samples(samples=first, rate=48000, pts_us=0)),
        resampler.flush(),
    ]
    expected = [run(first, 48000, []), run(second, 8000, []), run(first, 48000, [])]
    assert np.array_equal(np.concatenate(together), np.concatenate(expected))


def test_output_comes_while_the_sound_goes_on() -> None:
    resampler = Resampler(16000)
    got = resampler.feed(Samples(samples=tone(48000, 0.1)[None], rate=48000, pts_us=0))
    assert 1500 < len(got) < 1600
    assert len(got) + len(resampler.flush()) == 1600
    assert len(resampler.flush()) == 0


def test_batches_go_through_torchaudio() -> None:
    batch = torch.from_numpy(np.stack([tone(24000), tone(24000, frequency=300.0)]))
    got = resample(batch, 24000, 16000)
    assert got.shape == (2, 8000) and got.device == batch.device
    assert np.abs(got[0].numpy() - tone(16000))[200:7800].max() < 0.02
    assert torch.equal(resample(batch, 24000, 24000), batch)


def test_rate_that_cannot_be() -> None:
    with pytest.raises(InputError, match="at least 1 Hz, got 0"):
        Resampler(0)
