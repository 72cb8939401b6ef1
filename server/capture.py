"""Cameras and microphones of `penstock ask`, as items. Knows PyAV and Pillow; no sockets, no asyncio, no models.

In comes what stands after `camera:` or `microphone:`; out go a JPEG for each picture, and mono samples at 16 kHz in
tenths of a second. Errors say in one line what to do about a device that is not there, not allowed or in use.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from PIL import Image

from ..errors import InputError
from ..streams.item import AudioChunk, VideoFrame
from . import devices
from .sources import TimedItem

RATE = 16_000
# More pictures a second than any model takes; a stream picks from these.
_FPS = 10.0
_JPEG_QUALITY = 90
_CHUNK_SAMPLES = RATE // 10
# PyAV's wheels come with an ALSA that looks for its settings where nobody has them.
_ALSA_SETTINGS = "/usr/share/alsa/alsa.conf"
_ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
_GROUPS = {"camera": "video", "microphone": "audio"}


class Camera:
    """A camera: "" the first one, a number, or what PyAV opens ("/dev/video2")."""

    live = True

    def __init__(self, which: str, fps: float | None = None) -> None:
        self.name = f"camera:{which}" if which else "camera"
        self._which = which
        self._seconds = 1 / max(_FPS, fps or 0)

    def check(self) -> None:
        """Open it and close it again."""
        with self._open():
            pass

    def pieces(self, start_us: int, paced: bool) -> Generator[TimedItem]:
        """Its pictures with their times, as long as they are taken."""
        with self._open() as camera:
            first = due = None
            for frame in _frames(camera, "video", self.name):
                first = frame.time if first is None else first
                if due is not None and frame.time < due:
                    continue
                due = max(due or first, frame.time - self._seconds) + self._seconds * 0.99
                jpeg = io.BytesIO()
                Image.fromarray(frame.to_ndarray(format="rgb24")).save(jpeg, "JPEG", quality=_JPEG_QUALITY)
                pts_us = start_us + round((frame.time - first) * 1e6)
                yield TimedItem(VideoFrame(jpeg.getvalue(), pts_us=pts_us), pts_us)

    def _open(self) -> InputContainer:
        format = devices.CAMERAS.get(sys.platform, "v4l2")
        options = {"framerate": "30"} if format == "avfoundation" else {}
        return _open("camera", _choose("camera", self._which, devices.cameras()), format, options)


class Microphone:
    """A microphone: "" the system's default, a number or two ("1,0"), or what PyAV opens ("plughw:1")."""

    live = True

    def __init__(self, which: str) -> None:
        self.name = f"microphone:{which}" if which else "microphone"
        self._which = which

    def check(self) -> None:
        """Open it and close it again."""
        with self._open():
            pass

    def pieces(self, start_us: int, paced: bool) -> Generator[TimedItem]:
        """Its sound without gaps, as long as it is taken."""
        resampler, heard, samples = av.AudioResampler("fltp", "mono", RATE), [], 0
        told = 0
        with self._open() as microphone:
            for frame in _frames(microphone, "audio", self.name):
                for part in resampler.resample(frame):
                    heard.append(part.to_ndarray())
                    samples += part.samples
                if samples >= _CHUNK_SAMPLES:
                    pts_us = start_us + told * 1_000_000 // RATE
                    told += samples
                    chunk = AudioChunk(np.concatenate(heard, axis=1), rate=RATE, pts_us=pts_us)
                    yield TimedItem(chunk, start_us + told * 1_000_000 // RATE)
                    heard, samples = [], 0

    def _open(self) -> InputContainer:
        format = devices.MICROPHONES.get(sys.platform, "alsa")
        found = devices.microphones()
        if format != "alsa" or self._which:
            return _open("microphone", _choose("microphone", self._which, found), format, {})
        try:
            return _open("microphone", "default", format, {})
        except InputError:
            # The default may be a sound server that this build cannot reach.
            if not found:
                raise InputError(devices.none_found("microphone")) from None
            return _open("microphone", found[0].source, format, {})


def _choose(kind: str, which: str, found: list[devices.Device]) -> str:
    """What PyAV opens. InputError where there is nothing, or not so many."""
    if not which:
        if not found:
            raise InputError(devices.none_found(kind))
        return found[0].source
    if not which.replace(",", "").isdigit():
        return which
    for device in found:
        if f"{device.word},".startswith(f"{kind}:{which},"):
            return device.source
    words = ", ".join(device.word for device in found) or "none"
    raise InputError(f"{kind}:{which}: no such {kind}; there are: {words}")


def _open(kind: str, source: str, format: str, options: dict[str, str]) -> InputContainer:
    if not devices.opens(format):
        raise InputError(f"{kind}: this PyAV opens none ({format} is not built in); give a file instead")
    if format == "alsa" and Path(_ALSA_SETTINGS).exists():
        os.environ.setdefault("ALSA_CONFIG_PATH", _ALSA_SETTINGS)
    try:
        with _silence() if format == "alsa" else contextlib.nullcontext():
            return av.open(source, "r", format=format, options=options)
    except (FFmpegError, OSError) as error:
        raise InputError(_refusal(kind, source, error)) from None


def _refusal(kind: str, source: str, error: Exception) -> str:
    """What is wrong with a device and what to do, in one line."""
    code = getattr(error, "errno", None)
    if code in _ABSENT:
        return f"{kind}: there is no {source}; `penstock devices` lists what there is"
    if code in (errno.EACCES, errno.EPERM):
        do = "allow it in the system's settings"
        if sys.platform == "linux":
            do = f"sudo usermod -aG {_GROUPS[kind]} $USER, then log in again"
        return f"{kind}: no permission to open {source}; {do}"
    if code == errno.EBUSY:
        return f"{kind}: {source} is in use by another program; close that one"
    return f"{kind}: {source} cannot be opened: {getattr(error, 'strerror', None) or error}"


def _frames(device: InputContainer, kind: str, name: str) -> Iterator:
    try:
        yield from device.decode(**{kind: 0})
    except FFmpegError as error:
        raise InputError(f"{name}: it has stopped: {error.strerror}") from None
    raise InputError(f"{name}: it has stopped")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """ALSA writes to stderr by itself, several lines for each device that is not there."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
