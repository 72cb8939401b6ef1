"""The short programs, run as people run them; files stand in for a camera and a microphone."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from penstock.demos import append, camera, file, many_askers, microphone
from penstock.demos.brook.sound import RATE, Bank
from penstock.demos.film import STORY, make_film


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    path.write_bytes(make_film(4.0))
    return path


def test_append(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(append.main())
    assert capsys.readouterr().out.strip()


def test_file(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(file.main(str(film), "How many things do you see?"))
    assert capsys.readouterr().out.strip().endswith(".")


def test_camera(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(camera.main(3.0, str(film), None))
    assert "I see" in capsys.readouterr().out


def test_microphone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = io.BytesIO()
    with wave.open(sound, "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(RATE)
        recording.writeframes((Bank((), half=0).track(STORY) * 32767).astype(np.int16).tobytes())
    path = tmp_path / "sound.wav"
    path.write_bytes(sound.getvalue())
    asyncio.run(microphone.main(6.0, str(path), None))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 3 and all(line.endswith(".") for line in told)


def test_many_askers(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(many_askers.main())
    told = capsys.readouterr().out.splitlines()
    assert [line[:30].strip() for line in told] == list(many_askers.QUESTIONS)
    assert all(line[30:].strip() for line in told)


def test_websocket(brook_url: str) -> None:
    command = [sys.executable, "-m", "penstock.demos.websocket", brook_url]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "I see" in ran.stdout
