"""Pixels of video are the picture that was sent: square, in the colours that players show, high range brought down."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.avframe import pixels, square_size
from penstock.codecs.hdr import HLG, PQ
from penstock.codecs.limits import MediaLimits
from penstock.errors import LimitError

from tests.codecs.conftest import FRAGMENTED, picture
from tests.codecs.test_container import decode, pictures

MATRICES = {Colorspace.ITU601: (0.299, 0.114), Colorspace.ITU709: (0.2126, 0.0722), Colorspace.BT2020: (0.2627, 0.0593)}
COLOURS = [(200, 60, 30), (20, 180, 90), (60, 70, 210), (120, 120, 120), (235, 220, 10)]


def yuv(rgb: np.ndarray, matrix: Colorspace, width: int, height: int, bits: int = 8) -> av.VideoFrame:
    """A frame of one colour, `rgb` in [0, 1], with limited range."""
    red, blue = MATRICES[matrix]
    luma = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    scale = 1 << (bits - 8)
    values = [
        16 + 219 * luma,
        128 + 112 * (rgb[2] - luma) / (1 - blue),
        128 + 112 * (rgb[0] - luma) / (1 - red),
    ]
    kind = np.uint8 if bits == 8 else np.uint16
    counts = (width * height, width * height // 4, width * height // 4)
    planes = [np.full(count, round(value * scale), kind) for value, count in zip(values, counts, strict=True)]
    array: Any = np.concatenate(planes).reshape(height * 3 // 2, width)
    return av.VideoFrame.from_ndarray(array, format="yuv420p" if bits == 8 else "yuv420p10le")


@pytest.mark.parametrize("size", [(64, 48), (720, 576), (64, 578), (1280, 48)])
@pytest.mark.parametrize("tag", [None, *MATRICES])
def test_the_matrix_is_the_frames_own_or_that_of_its_size(size: tuple[int, int], tag: Colorspace | None) -> None:
    large = size[0] >= 1280 or size[1] > 576
    matrix = tag or (Colorspace.ITU709 if large else Colorspace.ITU601)
    for colour in COLOURS:
        frame = yuv(np.array(colour) / 255, matrix, *size)
        if tag is not None:
            frame.colorspace = tag
        assert np.abs(pixels(frame)[20, 20].astype(int) - colour).max() <= 3


@given(st.fractions(0, 20, max_denominator=50), st.integers(2, 500), st.integers(2, 500))
def test_pixels_become_square_by_enlarging(aspect: Fraction, width: int, height: int) -> None:
    frame = av.VideoFrame(width, height, "gray")
    got = square_size(frame, aspect)
    if not Fraction(1, 8) <= aspect <= 8:
        assert got == (width, height)
    else:
        assert got[0] >= width and got[1] >= height and (got[0] == width or got[1] == height)
        assert abs(got[0] - got[1] * width * aspect / height) <= max(1, float(width * aspect / height))


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mpegts"])
@pytest.mark.parametrize("aspect", [Fraction(2), Fraction(3, 4)])
def test_oblong_pixels_of_a_file(kind: str, aspect: Fraction) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=FRAGMENTED if kind == "mp4" else {}) as output:
        video: Any = output.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.sample_aspect_ratio = aspect
        for number in range(3):
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture(number, 64, 48), format="rgb24")))
        output.mux(video.encode(None))
    shape = (48, 128, 3) if aspect == 2 else (64, 64, 3)
    assert [frame.pixels.shape for frame in pictures(decode(file.getvalue()))] == [shape] * 3
    with pytest.raises(LimitError, match="3500 pixels"):
        decode(file.getvalue(), limits=MediaLimits(max_pixels=3500))


def pq(light: np.ndarray) -> np.ndarray:
    """The signal of light in cd/m2 (SMPTE ST 2084)."""
    power = (light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: np.ndarray) -> np.ndarray:
    """The signal of light in cd/m2 on a display of 1,000 cd/m2 (ITU-R BT.2100)."""
    luminance = float(light @ np.array([0.2627, 0.6780, 0.0593])) / 1000
    scene = light / 1000 * max(luminance, 1e-9) ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


@pytest.mark.parametrize(("curve", "signal"), [(PQ, pq), (HLG, hlg)])
def test_what_usual_video_shows_comes_back_from_high_dynamic_range(curve: int, signal: Any) -> None:
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    for colour in [*COLOURS, (0, 0, 0), (200, 200, 200)]:
        light = to_2020 @ (np.array(colour) / 255) ** 2.4 * 203
        frame = yuv(signal(light), Colorspace.BT2020, 64, 48, bits=10)
        frame.color_trc = curve
        assert np.abs(pixels(frame)[20, 20].astype(int) - colour).max() <= 12, colour
    greys = []
    for nits in (203, 500, 1000):
        frame = yuv(signal(np.full(3, float(nits))), Colorspace.BT2020, 64, 48, bits=10)
        frame.color_trc = curve
        greys.append(int(pixels(frame)[20, 20, 1]))
    assert 240 <= greys[0] <= greys[1] <= greys[2] + 2  # white is white, and brighter is not darker
