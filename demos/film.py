"""A small film, drawn and encoded: coloured shapes that move, and a beep for each second.

In come a length and a container; out go the bytes of a real file (H.264 and AAC in fragmented MP4, or VP9 and Opus in
WebM), and for any such file the pieces in which it is played. Knows PyAV and numpy; no engine, no sockets.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.video.stream import VideoStream

WIDTH, HEIGHT, FPS, RATE = 320, 240, 15, 48_000
COLOURS = ((220, 40, 40), (40, 180, 70), (50, 90, 220), (230, 200, 40))
CONTAINERS = ("mp4", "webm")
SOUND_SAMPLES = 960  # 20 ms: what an Opus frame holds; AAC cuts its own.


def draw(time_s: float) -> np.ndarray:
    """The picture at `time_s`, `(HEIGHT, WIDTH, 3)` uint8 RGB: a disc that crosses, a square that falls."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.full((HEIGHT, WIDTH, 3), 24, np.uint8)
    second = int(time_s)
    centre = (40 + 60 * time_s) % WIDTH
    pixels[(x - centre) ** 2 + (y - 90) ** 2 < 40**2] = COLOURS[second % 4]
    top = int(80 * time_s) % HEIGHT
    pixels[top : top + 36, 220:256] = COLOURS[(second + 2) % 4]
    return pixels


def beep(start: int, count: int) -> np.ndarray:
    """Samples `[start, start + count)` of the sound, `(1, count)` float32: 0.2 s of a rising note each second."""
    time_s = np.arange(start, start + count) / RATE
    note = 330.0 * 2 ** ((np.floor(time_s) % 8) / 8)
    return (0.4 * np.sin(2 * np.pi * note * time_s) * (time_s % 1 < 0.2)).astype(np.float32)[None]


def make_film(seconds: float, container: str = "mp4") -> bytes:
    """A film of `seconds` as the bytes of a file that can be played while it arrives."""
    file = io.BytesIO()
    # Fragments of 0.2 s. A fragment for each frame would be sooner, but FFmpeg then writes wrong times beside sound.
    fragments = {"movflags": "empty_moov+default_base_moof", "frag_duration": "200000"}
    clusters = {"live": "1", "cluster_time_limit": "200"}
    video_codec, audio_codec = ("libx264", "aac") if container == "mp4" else ("libvpx-vp9", "libopus")
    with av.open(file, "w", format=container, options=fragments if container == "mp4" else clusters) as output:
        video = output.add_stream(video_codec, rate=FPS)
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.time_base = Fraction(1, FPS)
        video.codec_context.gop_size = 2 * FPS
        speed: dict[str, object] = {"preset": "ultrafast", "tune": "zerolatency"}
        live: dict[str, object] = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
        video.options = speed if container == "mp4" else live
        sound = output.add_stream(audio_codec, rate=RATE, layout="mono")
        assert isinstance(sound, AudioStream)
        said = 0
        for index in range(round(seconds * FPS)):
            picture = av.VideoFrame.from_ndarray(draw(index / FPS), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            output.mux(video.encode(picture))
            while said < (index + 1) * RATE // FPS:
                samples = av.AudioFrame.from_ndarray(beep(said, SOUND_SAMPLES), format="fltp", layout="mono")
                samples.pts, samples.sample_rate, samples.time_base = said, RATE, Fraction(1, RATE)
                output.mux(sound.encode(samples))
                said += SOUND_SAMPLES
        output.mux(video.encode(None))
        output.mux(sound.encode(None))
    return file.getvalue()


class Piece(NamedTuple):
    """The next bytes of a file and the media time, in microseconds from its start, that is reached with them."""

    data: bytes
    time_us: int


def pieces(file: bytes, step_us: int = 40_000) -> Iterator[Piece]:
    """Cut a file into pieces of about `step_us` of media, by the times of its packets.

    ValueError where it cannot be read as a film.
    """
    ends: list[tuple[int, int]] = []  # (where a packet ends in the file, its time in us)
    try:
        with av.open(io.BytesIO(file), "r") as container:
            for packet in container.demux():
                if packet.pos is None or packet.pos < 0 or packet.pts is None or packet.time_base is None:
                    continue
                ends.append((packet.pos + packet.size, round(packet.pts * packet.time_base * 1_000_000)))
    except FFmpegError as error:
        raise ValueError(f"expected a film, got a file that cannot be read: {error}") from None
    if not ends:
        raise ValueError("expected a film, got a file without packets")
    zero_us = min(time_us for _, time_us in ends)
    start = reached_us = 0
    for end, time_us in sorted(ends):
        if time_us - zero_us >= reached_us + step_us and end > start:
            reached_us = time_us - zero_us
            yield Piece(file[start:end], reached_us)
            start = end
    last_us = max(time_us for _, time_us in ends) - zero_us
    yield Piece(file[start:], last_us)


class Film(NamedTuple):
    """A film that can be played: what it is made of, in words, and its pieces."""

    contents: str
    pieces: list[Piece]


def read_film(file: bytes) -> Film:
    """The film in the bytes of a file. ValueError where it cannot be read as one."""
    cut = list(pieces(file))
    with av.open(io.BytesIO(file), "r") as container:
        pictures = [f"{track.codec_context.name} {track.width} x {track.height}" for track in container.streams.video]
        sounds = [track.codec_context.name for track in container.streams.audio]
    return Film(" and ".join(pictures + sounds), cut)
