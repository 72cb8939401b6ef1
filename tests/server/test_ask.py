"""`penstock ask`: real files, pipes, terminals and devices, against `penstock serve` with Brook and in process.

FFmpeg's own sources stand in for a camera, ALSA's file plugin for a microphone.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking import COMMAND, SECONDS, ask, events, refusal, stops
from penstock.demos.brook.sound import Bank
from penstock.demos.film import STORY
from penstock.server import devices
from penstock.server.cli import main


# ---- What is asked and answered ----
def test_a_newcomer_needs_no_server(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(media / "film.mp4"), "What do you see?"]) == 0
    text, error = capsys.readouterr()
    assert re.fullmatch(r"\S.*(circle|square).*\.\n", text) and error == ""


def test_a_film_is_seen_and_heard_whole(media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("film.mp4", "film.webm", "phone.mp4"):
        told = ask(capsys, "--url", url, str(media / name), "What do you see?")
        assert told[0]["type"] == "started" and told[0]["format"] == "turns"
        assert max(stops(told, "video")) >= 3_500_000 and max(stops(told, "audio")) >= 4_000_000
        assert [event["reason"] for event in told if event["type"] == "done"] == ["stop"]
        assert told[-1]["type"] == "closed"


def test_the_answer_alone_is_on_stdout(media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(media / "picture.png"), "What do you see?", "--url", url]) == 0
    text, error = capsys.readouterr()
    assert re.fullmatch(r"\S.*\.\n", text) and error == ""
    told = ask(capsys, str(media / "picture.png"), "What do you see?", "--url", url)
    assert "".join(event["text"] for event in told if event["type"] == "token") == text.strip()


def test_options_may_stand_between_the_words(media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(media / "picture.png")
    told = ask(capsys, picture, picture, "--url", url, "What do you see?", "--max-tokens", "3")
    assert len([event for event in told if event["type"] == "appended" and event["modality"] == "image"]) == 2
    assert [event["tokens"] for event in told if event["type"] == "done"] == [3]


def test_options_of_the_processor_hold_here_and_on_a_server(
    media: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(*options: str) -> int:
        told = ask(capsys, str(media / "picture.png"), "What do you see?", *options)
        return sum(event["rows"] for event in told if event["type"] == "appended")

    small = ("--processor", "max_pixels=7056")
    assert rows(*small) == rows("--url", url, *small) < rows()
    for where in ((), ("--url", url)):
        assert "sharpness" in refusal(
            capsys, "ask", *where, str(media / "picture.png"), "Well?", "--processor", "sharpness=2"
        )


def test_the_second_film_goes_on_where_the_first_has_stopped(
    media: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ask(capsys, "--url", url, str(media / "film.mp4"), str(media / "film.webm"), "What do you see?")
    assert not [event for event in told if event["type"] == "dropped" and event["modality"] == "video"]
    seen = stops(told, "video")
    assert seen == sorted(seen) and 7_000_000 < max(seen) < 8_500_000


def test_a_sound_is_heard_as_one_clip(media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "--url", url, str(media / "sound.wav"), "How many beeps did you hear?")
    assert {event["seq"] for event in told if event["type"] == "appended" and event["modality"] == "audio"} == {1}
    assert max(stops(told, "audio")) == STORY.seconds * 1e6


@pytest.mark.parametrize("name", ["film.webm", "film.mp4", "phone.mp4", "picture.png", "sound.wav"])
def test_stdin_takes_what_a_file_may_be(name: str, media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*COMMAND, "ask", "-", "What do you see?", "--url", url, "--json"]
    with (media / name).open("rb") as file:
        ran = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=100)
    assert (ran.returncode, ran.stderr) == (0, "")
    piped = [event for event in events(ran.stdout) if event["type"] == "appended"]
    filed = [event for event in ask(capsys, str(media / name), "What do you see?", "--url", url)]
    rows = [(event["modality"], event["rows"]) for event in filed if event["type"] == "appended"]
    assert sorted((event["modality"], event["rows"]) for event in piped) == sorted(rows)


def test_what_follows_a_pipe_goes_on_where_it_has_stopped(media: Path, url: str) -> None:
    command = [*COMMAND, "ask", "-", str(media / "film.mp4"), "What do you see?", "--url", url, "--json"]
    with (media / "film.webm").open("rb") as file:
        ran = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=100)
    assert (ran.returncode, ran.stderr) == (0, "")
    told = events(ran.stdout)
    assert not [event for event in told if event["type"] == "dropped" and event["modality"] == "video"]
    assert 7_000_000 < max(stops(told, "video")) < 8_500_000


def test_what_comes_on_a_pipe_is_passed_on_while_it_comes(media: Path, url: str) -> None:
    film = (media / "film.webm").read_bytes()
    first = 3 * len(film) // 4
    command = [*COMMAND, "ask", "-", "Tell me what happens.", "--url", url, "--json", "--live"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(film[:first])
        process.stdin.flush()
        while json.loads(process.stdout.readline())["type"] != "appended":
            pass  # Media is in the cache although the pipe is still open.
        process.stdin.write(film[first:])
        process.stdin.close()
        told = events(process.stdout.read().decode())
        assert process.wait(timeout=60) == 0
    assert max(stops(told, "video")) == 3_500_000


def test_a_file_may_play_at_its_own_pace(media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seconds of film take no less time before the question is asked."""
    started = time.monotonic()
    told = ask(capsys, "--pace", str(media / "half.mp4"), "What do you see?", "--url", url)
    assert time.monotonic() - started >= SECONDS / 2 - 0.5
    assert max(stops(told, "video")) >= 1_500_000


def test_live_speaks_while_it_watches(media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = ask(capsys, "--live", str(media / "half.mp4"), "Tell me what happens.", "--url", url)
    assert told[0]["format"] == "live"
    kinds = [event["type"] for event in told]
    assert kinds.index("token") < len(kinds) - 1 - kinds[::-1].index("appended")
    assert main(["ask", "--live", str(media / "film.mp4"), "Tell me what happens.", "--url", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2 and all(re.match(r"\[ *\d+\.\d s\] \S", line) for line in lines)


# ---- Cameras and microphones ----
def test_a_camera_is_watched_for_some_seconds(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(devices.CAMERAS, sys.platform, "lavfi")
    camera = "camera:testsrc=size=160x120:rate=30,realtime"
    told = ask(capsys, camera, "What do you see?", "--url", url, "--seconds", "2")
    seen = stops(told, "video")
    assert 1_500_000 <= max(seen) <= 2_100_000
    live = ask(capsys, camera, "Tell me what happens.", "--url", url, "--seconds", "1.5", "--live")
    assert stops(live, "video") and [event["reason"] for event in live if event["type"] == "done"] == ["stop"]


def test_a_microphone_is_heard(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    track = np.repeat(Bank((), half=0).track(STORY), 3)  # 48 kHz
    (tmp_path / "tape").write_bytes(np.repeat((track * 32767).astype("<i2"), 2).tobytes())
    settings = tmp_path / "alsa.conf"
    tape = f'file "/dev/null" infile "{tmp_path / "tape"}" format raw'
    settings.write_text(f"pcm.default {{ type file slave.pcm {{ type null }} {tape} }}\n")
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(settings))
    told = ask(capsys, "microphone", "How many beeps did you hear?", "--url", url, "--seconds", "3")
    assert max(stops(told, "audio")) >= 3_000_000
    assert [event["text"] for event in told if event["type"] == "token"]


def test_a_camera_that_stalls(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(devices.CAMERAS, sys.platform, "lavfi")
    monkeypatch.setattr("penstock.server.ask._PATIENCE_SECONDS", 0.5)
    camera = "camera:testsrc=size=160x120:rate=1/9,realtime=limit=20"
    text = refusal(capsys, "ask", camera, "What do you see?", "--url", url, "--seconds", "30")
    assert text == f"{camera}: expected media within 0.5 s, got none"


class Refusing:
    """`av.open` of a device that the system does not give."""

    def __init__(self, code: int) -> None:
        self._code = code

    def __call__(self, source: str, *_: Any, **__: Any) -> None:
        raise OSError(self._code, os.strerror(self._code), source)


FOUND = {
    "camera": devices.Device("camera", "camera:0", "Cam", "/dev/video0"),
    "microphone": devices.Device("microphone", "microphone:1,0", "Mic", "plughw:1,0"),
}


@pytest.mark.parametrize(
    ("word", "code", "text"),
    [
        ("camera", 13, "no permission to open /dev/video0; sudo usermod -aG video $USER, then log in again"),
        ("camera", 16, "/dev/video0 is in use by another program; close that one"),
        ("camera", 19, "there is no /dev/video0; `penstock devices` lists what there is"),
        ("camera", 5, "/dev/video0 cannot be opened: Input/output error"),
        ("microphone", 13, "no permission to open plughw:1,0; sudo usermod -aG audio $USER, then log in again"),
        ("microphone", 16, "plughw:1,0 is in use by another program; close that one"),
    ],
)
def test_a_device_that_cannot_be_had(
    word: str, code: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")  # What is told to do is the system's.
    monkeypatch.setattr(devices, "cameras", lambda: [FOUND["camera"]])
    monkeypatch.setattr(devices, "microphones", lambda: [FOUND["microphone"]])
    monkeypatch.setattr("penstock.server.capture.av.open", Refusing(code))
    assert refusal(capsys, "ask", word, "What is it?") == f"{word}: {text}"


def test_there_is_no_camera_and_no_microphone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices, "cameras", lambda: [])
    monkeypatch.setattr(devices, "microphones", lambda: [])
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "none"))
    rest = "; plug one in, or give a file instead"
    assert refusal(capsys, "ask", "camera", "Q?") == f"camera: none found (no /dev/video*){rest}"
    nothing = "microphone: none found (nothing that records in /proc/asound)"
    assert refusal(capsys, "ask", "microphone", "Q?") == nothing + rest
    assert refusal(capsys, "ask", "camera:3", "Q?") == "camera:3: no such camera; there are: none"
    gone = "camera: there is no /dev/video987; `penstock devices` lists what there is"
    assert refusal(capsys, "ask", "/dev/video987", "Q?") == gone


# ---- Terminals and signals ----
def read_terminal(master: int) -> str:
    """What was written to a terminal until its other side is closed."""
    told = b""
    try:
        while data := os.read(master, 4096):
            told += data
    except OSError:
        pass  # Linux says so when the last writer has gone.
    return told.decode()


def test_stdin_that_is_a_terminal() -> None:
    master, slave = pty.openpty()
    command = [*COMMAND, "ask", "-", "What happens?"]
    ran = subprocess.run(command, stdin=slave, capture_output=True, text=True, timeout=60)
    os.close(slave)
    os.close(master)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == (
        "penstock: error: -: expected media on stdin, got a terminal; for example: "
        'penstock ask - "What happens?" < clip.mp4\n'
    )


def test_a_terminal_gets_a_line_of_progress(media: Path, url: str) -> None:
    master, slave = pty.openpty()
    command = [*COMMAND, "ask", str(media / "film.mp4"), "What do you see?", "--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        told = read_terminal(master)
        assert process.stdout is not None
        answer = process.stdout.read()
    os.close(master)
    assert process.returncode == 0 and answer.count("\n") == 1
    last = told.split("\r\x1b[K")[-1]
    assert re.fullmatch(r"4\.\d s of media sent, \d+ rows, [\d.]+ tokens/s\r\n", last)


@pytest.mark.parametrize("here", [False, True], ids=["server", "in process"])
def test_ctrl_c_ends_the_reply_in_good_order(here: bool, media: Path, url: str) -> None:
    command = [*COMMAND, "ask", "--live", "--json", str(media / "film.mp4"), "Tell me what happens."]
    command += [] if here else ["--url", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        while json.loads(process.stdout.readline())["type"] != "token":
            pass
        process.send_signal(signal.SIGINT)
        rest = events(process.stdout.read())
        error = process.stderr.read()
    assert (process.returncode, error) == (130, "")
    assert [event["reason"] for event in rest if event["type"] == "done"] == ["interrupted"]
    if not here:
        with urllib.request.urlopen(f"{url}/health") as response:
            assert json.load(response)["streams"] == 0


def test_ctrl_c_while_a_pipe_gives_nothing(media: Path, url: str) -> None:
    command = [*COMMAND, "ask", "-", "What do you see?", "--url", url, "--json"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write((media / "film.webm").read_bytes())
        process.stdin.flush()
        while json.loads(process.stdout.readline())["type"] != "appended":
            pass
        process.send_signal(signal.SIGINT)
        assert (process.wait(timeout=60), process.stderr.read()) == (130, b"")


def test_a_reader_that_has_seen_enough(media: Path, url: str) -> None:
    command = [*COMMAND, "ask", str(media / "film.mp4"), "What do you see?", "--url", url, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
