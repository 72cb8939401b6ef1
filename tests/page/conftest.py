"""A real Chromium, and a page of the server that serves Brook, open in it. Without Chromium these tests are skipped;
`.ci/run` has it.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from opened import Opened

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--host-resolver-rules=MAP pond.test 127.0.0.1",  # another name for this machine: to a browser not a secure place
)


@pytest.fixture(scope="session")
def devices(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Chromium's flags for a camera that shows a red circle and a microphone that beeps."""
    from penstock.demos.film import draw

    folder = tmp_path_factory.mktemp("devices")
    video, sound = folder / "camera.y4m", folder / "microphone.wav"
    _y4m(video, draw(0.0))
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        time = np.arange(2 * 48_000) / 48_000
        beep = 0.4 * np.sin(2 * np.pi * 1500 * time) * ((time > 0.5) & (time < 0.75))
        file.writeframes((beep * 32767).astype(np.int16).tobytes())
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
        f"--use-file-for-fake-audio-capture={sound}",
    ]


def _y4m(path: Path, picture: np.ndarray) -> None:
    """A film of one picture, 4:2:0."""
    import av

    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(format="yuv420p")
    planes = frame.to_ndarray()
    height, width = picture.shape[:2]
    header = f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode()
    path.write_bytes(header + 10 * (b"FRAME\n" + planes.tobytes()))


@pytest.fixture(scope="module")
def browser(devices: list[str]) -> Iterator[object]:
    """Chromium, for one module: while it runs, its thread has an event loop that other tests would trip over."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *devices])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, brook_url: str) -> Iterator[Opened]:
    with contextlib.closing(browser.new_context(viewport={"width": 1100, "height": 800})) as context:
        yield Opened(context.new_page(), f"{brook_url}/")
