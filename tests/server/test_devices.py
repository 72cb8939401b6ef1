"""`penstock devices`: this machine as it is, and the trees of /sys and /proc of machines that have something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from penstock.codecs.container import CODECS
from penstock.server import devices
from penstock.server.cli import main


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """/sys and /proc are looked at on Linux."""
    monkeypatch.setattr(sys, "platform", "linux")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.usefixtures("linux")
def test_cameras_are_the_first_nodes_of_video4linux(tmp_path: Path) -> None:
    nodes = {"video0": ("0", "Integrated Camera"), "video1": ("1", "Integrated Camera"), "video10": ("0", "Stick")}
    sys_root = write(
        tmp_path / "sys",
        {
            f"{node}/{file}": f"{text}\n"
            for node, both in nodes.items()
            for file, text in zip(("index", "name"), both, strict=True)
        },
    )
    dev_root = write(tmp_path / "dev", {"video0": ""})
    assert devices.cameras(sys_root, dev_root) == [
        devices.Device("camera", "camera:0", "Integrated Camera", f"{dev_root}/video0"),
        devices.Device("camera", "camera:10", "Stick", f"{dev_root}/video10", f"{dev_root}/video10 does not exist"),
    ]


@pytest.mark.usefixtures("linux")
def test_microphones_are_what_records_of_alsa(tmp_path: Path) -> None:
    proc_root = write(
        tmp_path / "asound",
        {
            "cards": " 0 [PCH            ]: HDA-Intel - HDA Intel PCH\n                      HDA Intel PCH at 0xf7\n"
            " 1 [C920           ]: USB-Audio - HD Pro Webcam C920\n                      HD Pro Webcam\n",
            "pcm": "00-00: ALC257 Analog : ALC257 Analog : playback 1 : capture 1\n"
            "00-03: HDMI 0 : HDMI 0 : playback 1\n01-00: USB Audio : USB Audio : capture 1\n",
        },
    )
    dev_root = write(tmp_path / "snd", {"pcmC0D0c": "", "pcmC1D0c": ""})
    assert devices.microphones(proc_root, dev_root) == [
        devices.Device("microphone", "microphone:0,0", "HDA Intel PCH", "plughw:0,0"),
        devices.Device("microphone", "microphone:1,0", "HD Pro Webcam C920", "plughw:1,0"),
    ]


@pytest.mark.usefixtures("linux")
def test_a_machine_without_any(tmp_path: Path) -> None:
    assert devices.cameras(tmp_path, tmp_path) == []
    assert devices.microphones(tmp_path, tmp_path) == []


def test_this_pyav_decodes_all_that_is_taken() -> None:
    have = devices.codecs()
    assert list(have) == ["picture", *CODECS]
    assert not [name for names in have.values() for name, there in names.items() if not there]
    assert list(have["video"]) == ["vp8", "vp9", "av1", "h264", "hevc"]
    assert list(have["audio"]) == ["opus", "vorbis", "aac", "mp3", "flac", "pcm"]


def test_a_codec_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(CODECS, "video", ("vp8", "no_such_codec"))
    assert main(["devices"]) == 0
    assert "  video    vp8; this PyAV lacks no_such_codec\n" in capsys.readouterr().out


def test_the_command_tells_about_this_machine() -> None:
    command = [sys.executable, "-m", "penstock.server.cli", "devices", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    compute = {line["word"].split(":")[0]: line for line in lines if line["kind"] == "compute"}
    assert set(compute) == {"cuda", "mps", "cpu"}
    assert compute["cpu"]["why"] is None and compute["cpu"]["name"]
    assert (compute["cuda"]["why"] is None) == torch.cuda.is_available()
    assert (compute["mps"]["why"] is None) == torch.backends.mps.is_available()
    assert [line["media"] for line in lines if line["kind"] == "codec"] == ["picture", "video", "audio"]
    found = {line["word"] for line in lines if line["kind"] in ("camera", "microphone")}
    assert found == {device.word for device in (*devices.cameras(), *devices.microphones())}


@pytest.mark.usefixtures("linux")
def test_people_read_why_something_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    barred = devices.Device("camera", "camera:0", "Cam", "/dev/video0", "no permission")
    monkeypatch.setattr(devices, "cameras", lambda: [barred])
    monkeypatch.setattr(devices, "microphones", lambda: [])
    assert main(["devices"]) == 0
    out = capsys.readouterr().out
    assert "cameras\n  camera:0         Cam (/dev/video0): no permission\n" in out
    assert (
        "microphones\n  none found (nothing that records in /proc/asound); plug one in, or give a file instead\n" in out
    )
    if torch.version.cuda is None:
        assert f"  cuda             not here: torch {torch.__version__} is built without CUDA\n" in out
    assert "  mps              not here: only on macOS\n" in out
