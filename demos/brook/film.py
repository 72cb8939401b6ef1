"""A scene of Brook's world as a real film. In: a scene, a bank of words. Out: the bytes of a file with H.264 and AAC
(fragmented MP4), or VP8 and Opus (WebM), that can be played while it arrives.

It does not know who watches.
"""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from .draw import Dusk, Lens, Painter
from .sound import RATE, Bank
from .world import Scene

SIZE, FPS = 224, 12
CONTAINERS = ("webm", "mp4")
_CODECS = {"webm": ("libvpx", "libopus"), "mp4": ("libx264", "aac")}
_VIDEO_OPTIONS = {
    # One thread: libvpx's spin while they wait, where several films are made at a time.
    "webm": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "threads": "1"},
    "mp4": {"preset": "ultrafast", "tune": "zerolatency"},
}
_FILE_OPTIONS = {
    "webm": {"live": "1", "cluster_time_limit": "200"},
    "mp4": {"movflags": "empty_moov+default_base_moof", "frag_duration": "200000"},
}
SOUND_RATE = 48_000


def encode(scene: Scene, bank: Bank | None, container: str = "webm", camera: Lens | Dusk | None = None) -> bytes:
    """The film of a scene: 224 by 224 pixels, 12 frames a second; with sound where there is a `bank`, as a `camera`
    takes it where there is one."""
    file = io.BytesIO()
    video_codec, audio_codec = _CODECS[container]
    with av.open(file, "w", format=container, options=_FILE_OPTIONS[container]) as output:
        video = output.add_stream(video_codec, rate=FPS)
        assert isinstance(video, VideoStream)
        video.width = video.height = SIZE
        video.pix_fmt, video.bit_rate = "yuv420p", 400_000
        video.codec_context.time_base = Fraction(1, FPS)
        video.codec_context.gop_size = 2 * FPS
        video.options = dict(_VIDEO_OPTIONS[container])
        sound = None
        if bank is not None:
            sound = output.add_stream(audio_codec, rate=SOUND_RATE, layout="mono")
            assert isinstance(sound, AudioStream)
            sound.bit_rate = 48_000
        track = None if bank is None else bank.track(scene)
        resampler = av.AudioResampler("fltp", "mono", SOUND_RATE)
        painter, random = Painter(scene, SIZE), np.random.default_rng((scene.seed, 2))
        for number in range(round(scene.seconds * FPS)):
            seen = painter.picture(number / FPS)
            seen = seen if camera is None else camera.take(seen, random)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(seen), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            output.mux(video.encode(picture))
            if sound is not None and track is not None:
                for heard in resampler.resample(_heard(track, number)):
                    output.mux(sound.encode(heard))
        output.mux(video.encode(None))
        if sound is not None:
            for heard in resampler.resample(None):
                output.mux(sound.encode(heard))
            output.mux(sound.encode(None))
    return file.getvalue()


def _heard(track: np.ndarray, number: int) -> av.AudioFrame:
    """The sound of one frame of the film."""
    first, stop = (round(edge * RATE / FPS) for edge in (number, number + 1))
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(track[None, first:stop]), format="fltp", layout="mono")
    frame.pts, frame.sample_rate, frame.time_base = first, RATE, Fraction(1, RATE)
    return frame
