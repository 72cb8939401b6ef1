"""Real media files for the tests of `codecs`, made with PyAV: a moving square, a colour per frame, two tones."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

Encode = Callable[..., bytes]
RATE = 48000
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
RECIPES: dict[str, dict] = {
    "webm-vp8-opus": {"container": "webm", "video": "libvpx", "sound": "libopus"},
    "webm-vp9-opus": {"container": "webm", "video": "libvpx-vp9", "sound": "libopus"},
    "webm-av1": {"container": "webm", "video": "libsvtav1"},
    "fmp4-h264-aac": {"container": "mp4", "video": "libx264", "sound": "aac", "options": FRAGMENTED},
    "fmp4-hevc": {"container": "mp4", "video": "libx265", "options": FRAGMENTED},
    "ts-h264-aac": {"container": "mpegts", "video": "libx264", "sound": "aac"},
    "ts-hevc-aac": {"container": "mpegts", "video": "libx265", "sound": "aac"},
    "wav": {"container": "wav", "sound": "pcm_s16le"},
    "ogg-opus": {"container": "ogg", "sound": "libopus"},
    "ogg-vorbis": {"container": "ogg", "sound": "vorbis"},
    "webm-opus": {"container": "webm", "sound": "libopus"},
    "adts-aac": {"container": "adts", "sound": "aac"},
    "mp3": {"container": "mp3", "sound": "libmp3lame"},
    "flac": {"container": "flac", "sound": "flac"},
}
_CODEC_OPTIONS = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "10"},
    "vorbis": {"strict": "experimental"},
}


def picture(index: int, width: int, height: int) -> np.ndarray:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :, index % 3] = 20 + 9 * (index % 20)
    pixels[index % height : index % height + 8, 4:20] = 255
    return pixels


def tones(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * t), 0.25 * np.sin(2 * np.pi * 330 * t)]).astype(np.float32)


def _sound_frame(samples: np.ndarray, codec: av.AudioCodecContext, at: int) -> av.AudioFrame:
    name = codec.format.name
    if name.startswith("s16"):
        samples = np.round(samples * 32767).astype(np.int16)
    elif name.startswith("s32"):
        samples = np.round(samples.astype(np.float64) * (2**31 - 1)).astype(np.int32)
    if not codec.format.is_planar:
        samples = samples.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=name, layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
    return frame


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """Afterwards this thread is scheduled as before.

    As root, SVT-AV1 makes the thread that opens it SCHED_FIFO at 99. Each later thread and process of the run would
    inherit that, and a spinning one would starve the machine.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@usual_priority()
def encode_file(
    container: str,
    video: str | None = None,
    sound: str | None = None,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (64, 48),
    times: tuple[int, ...] = tuple(range(0, 1000, 100)),
    rotation: int | None = None,
) -> bytes:
    """A file with a frame at each of `times` (milliseconds), and sound that lasts until 100 ms after the last."""
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options or {}) as output:
        streams: list[Any] = []
        if video:
            stream: Any = output.add_stream(video, rate=10, options=_CODEC_OPTIONS.get(video, {}))
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", 5
            stream.codec_context.time_base = Fraction(1, 1000)
            if rotation is not None:
                stream.set_display_rotation(rotation)
            streams.append(stream)
        if sound:
            streams.append(output.add_stream(sound, rate=RATE, layout="stereo", options=_CODEC_OPTIONS.get(sound, {})))
        wave, at = tones((times[-1] + 100) / 1000), 0
        for index, time in enumerate(times):
            if video:
                frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
                frame.pts, frame.time_base = time, Fraction(1, 1000)
                output.mux(streams[0].encode(frame))
            if sound:
                end = (times[index + 1] if index + 1 < len(times) else times[-1] + 100) * RATE // 1000
                output.mux(streams[-1].encode(_sound_frame(wave[:, at:end], streams[-1].codec_context, at)))
                at = end
        for stream in streams:
            output.mux(stream.encode(None))
    return file.getvalue()


@pytest.fixture(scope="session")
def encode() -> Encode:
    """`encode(container, video=, sound=, ...)`: the bytes of a small real file."""
    return encode_file


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """One small file of each kind that is opened, by name."""
    return {name: encode_file(**recipe) for name, recipe in RECIPES.items()}


@pytest.fixture(params=list(RECIPES))
def file(request: pytest.FixtureRequest, files: dict[str, bytes]) -> bytes:
    return files[request.param]
