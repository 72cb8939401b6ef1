"""Raw sound to Samples: right values, and errors that say expected and got."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.limits import MediaLimits
from penstock.codecs.pcm import check_samples, decode_pcm
from penstock.errors import DamagedError, FormatError, InputError, LimitError


@given(st.lists(st.integers(-32768, 32767), max_size=60), st.integers(1, 4))
def test_s16le(values: list[int], channels: int) -> None:
    values = values[: len(values) // channels * channels]
    array = np.array(values, "<i2").reshape(-1, channels)
    sound = decode_pcm(array.tobytes(), "s16le", channels, 8000, 77)
    assert (sound.rate, sound.pts_us, sound.samples.dtype) == (8000, 77, np.float32)
    assert sound.samples.flags.c_contiguous and np.array_equal(sound.samples, array.T.astype(np.float32) / 32768)


@given(st.lists(st.floats(-2, 2, width=32), max_size=60), st.integers(1, 4))
def test_f32le_and_arrays(values: list[float], channels: int) -> None:
    values = values[: len(values) // channels * channels]
    array = np.array(values, "<f4").reshape(-1, channels)
    assert np.array_equal(decode_pcm(array.tobytes(), "f32le", channels, 16000).samples, array.T)
    assert np.array_equal(decode_pcm(np.ascontiguousarray(array.T), rate=16000).samples, array.T)


def test_samples_do_not_change_with_the_bytes_they_came_from() -> None:
    data = bytearray(np.ones(4, "<f4").tobytes())
    sound = decode_pcm(data, "f32le", 1, 16000)
    data[:] = bytes(16)
    assert (sound.samples == 1).all()


def test_errors_say_both() -> None:
    with pytest.raises(DamagedError, match="multiple of 4 bytes .* got 7"):
        decode_pcm(bytes(7), "s16le", 2, 16000)
    with pytest.raises(FormatError, match="s16le, f32le, got 's24le'"):
        decode_pcm(bytes(6), "s24le")
    for rate in (0, 10, 10**9):
        with pytest.raises(LimitError, match=f"1000 to 384000 Hz, got {rate}"):
            decode_pcm(bytes(8), rate=rate)
    with pytest.raises(LimitError, match="1 to 8 channels, got 0"):
        decode_pcm(bytes(8), channels=0)
    with pytest.raises(LimitError, match="at most 100 bytes, got 200"):
        decode_pcm(bytes(200), limits=MediaLimits(max_bytes=100))
    with pytest.raises(LimitError, match="1 to 8 channels, got 9"):
        decode_pcm(np.zeros((9, 5), np.float32))


@pytest.mark.parametrize("array", [np.zeros(5, np.float32), np.zeros((1, 5)), np.zeros((1, 5), np.int16)])
def test_arrays_of_another_kind(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"\(channels, n\) float32, got"):
        decode_pcm(array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 16.5, -1e30])
def test_values_that_are_no_sound(value: float) -> None:
    array = np.zeros((2, 8), np.float32)
    array[1, 3] = value
    for data in (array, np.ascontiguousarray(array.T).tobytes()):
        with pytest.raises(DamagedError, match=r"got 1 of 16 that are not, the first .* at sample 3 \(0.000 s\)"):
            decode_pcm(data, "f32le", 2, 16000)


def test_bytes_in_another_encoding_are_no_sound() -> None:
    wave = (20000 * np.sin(0.1 * np.arange(4000))).astype("<i2")
    with pytest.raises(DamagedError, match="of 2000 that are not"):
        decode_pcm(wave.tobytes(), "f32le", 1, 16000)
    with pytest.raises(DamagedError, match="of 4000 that are not"):
        decode_pcm(wave.astype(np.float32)[None], rate=16000)


@given(st.lists(st.floats(-16, 16, width=32), min_size=1, max_size=40), st.integers(0, 1000))
def test_sound_that_clips_passes_and_its_place_is_counted_on(values: list[float], first: int) -> None:
    samples = np.array(values, np.float32)
    check_samples(samples, 16000, first=first)
    with pytest.raises(DamagedError, match=f"at sample {first + len(values)}$"):
        check_samples(np.append(samples, np.float32(np.nan)), 0, first=first)
