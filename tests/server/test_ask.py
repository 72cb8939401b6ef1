"""`penstock ask`: real files, pipes and terminals, against `penstock serve` with Brook and with Brook in process.

FFmpeg's own sources stand in for a camera, ALSA's file plugin for a microphone.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_engine import FakeEngine
from harness import run, serving, until
from penstock.demos.brook.sound import RATE, Bank
from penstock.demos.film import STORY, draw, make_film
from penstock.server import devices
from penstock.server.cli import main
from PIL import Image

SECONDS = 4.0
COMMAND = [sys.executable, "-m", "penstock.server.cli"]
ANNOUNCED = "penstock: serving on "


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """`penstock serve` with Brook, in a process of its own."""
    serve = [*COMMAND, "serve", "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCED)
            yield line.removeprefix(ANNOUNCED).strip()
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a film in three containers, its picture and its sound."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "film.mp4").write_bytes(make_film(SECONDS))
    (folder / "film.webm").write_bytes(make_film(SECONDS, "webm"))
    with (
        av.open(str(folder / "film.mp4")) as source,
        av.open(str(folder / "phone.mp4"), "w", format="mp4") as target,
    ):
        copies = {track.index: target.add_stream_from_template(track) for track in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
    file = (folder / "phone.mp4").read_bytes()
    assert file.index(b"mdat") < file.index(b"moov"), "expected the index at the end, as telephones write it"
    Image.fromarray(draw(0.0)).save(folder / "picture.png")
    with wave.open(str(folder / "sound.wav"), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(RATE)
        recording.writeframes((Bank((), half=0).track(STORY) * 32767).astype(np.int16).tobytes())
    return folder


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """The events of `penstock ask ... --json`, which has to end well."""
    code = main(["ask", *arguments, "--json"])
    told = capsys.readouterr()
    assert (code, told.err) == (0, "")
    return events(told.out)


def stops(told: list[dict[str, Any]], modality: str) -> list[int]:
    """Up to where in media time rows of this modality were appended."""
    return [event["stop_us"] for event in told if event["type"] == "appended" and event["modality"] == modality]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that ends with exit code 2."""
    code = main(list(arguments))
    told = capsys.readouterr()
    assert (code, told.out) == (2, "")
    assert told.err.startswith("penstock: error: ") and told.err.count("\n") == 1
    return told.err.removeprefix("penstock: error: ").strip()


# ---- What is asked and answered ----
def test_a_newcomer_needs_no_server(media: Path) -> None:
    command = [*COMMAND, "ask", str(media / "film.mp4"), "What do you see?"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"\S.*\.\n", ran.stdout)


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
    """Four seconds of film take no less time before the question is asked."""
    started = time.monotonic()
    told = ask(capsys, "--pace", str(media / "film.mp4"), "What do you see?", "--url", url)
    assert time.monotonic() - started >= SECONDS - 0.5
    assert max(stops(told, "video")) >= 3_500_000


def test_live_speaks_while_it_watches(media: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    film = str(media / "film.mp4")
    told = ask(capsys, "--live", film, "Tell me what happens.", "--url", url)
    assert told[0]["format"] == "live"
    kinds = [event["type"] for event in told]
    assert kinds.index("token") < len(kinds) - 1 - kinds[::-1].index("appended")
    assert main(["ask", "--live", film, "Tell me what happens.", "--url", url]) == 0
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
    told = ask(capsys, "microphone", "How many beeps did you hear?", "--url", url, "--seconds", "6")
    assert max(stops(told, "audio")) >= 6_000_000
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


# ---- The first day ----
def test_words_that_cannot_be_media(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    takes = (
        "expected a picture (JPEG, PNG, WebP, GIF) or WebM or Matroska, MP4, MPEG-TS, WAV, Ogg, AAC (ADTS), MP3, FLAC"
    )
    convert = "convert it, for example: ffmpeg -i IN out.mp4"
    notes, empty, short = tmp_path / "notes.txt", tmp_path / "empty.mp4", tmp_path / "short.mp4"
    notes.write_text("Dear diary, today")
    empty.touch()
    short.write_bytes((media / "phone.mp4").read_bytes()[:5000])
    example = 'expected, for example, penstock ask clip.mp4 "What happens?"'
    cases = {
        ("no.mp4", "Q?"): "no.mp4: no such file; MEDIA is a file, camera, microphone, or - for what comes on stdin",
        (str(tmp_path), "Q?"): f"{tmp_path}: cannot be read: Is a directory",
        (str(notes), "Q?"): f"{notes}: {takes}, got b'Dear diary, '; {convert}",
        (str(empty), "Q?"): f"{empty}: {takes}, got an empty file",
        (str(short), "Q?"): f"{short}: expected a whole file, got one that cannot be read: Invalid data found when "
        "processing input",
        (str(media / "film.mp4"),): f"a question is missing behind {media / 'film.mp4'}: {example}",
        ("no.mp4",): f"a question is missing behind no.mp4: {example}",
    }
    for words, text in cases.items():
        assert refusal(capsys, "ask", *words) == text


def test_a_damaged_film_is_named(media: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    film = bytearray((media / "film.mp4").read_bytes())
    at = film.index(b"moof", film.index(b"moof") + 4)
    film[at : at + 4] = b"noof"
    path = tmp_path / "damaged.mp4"
    path.write_bytes(film)
    assert refusal(capsys, "ask", str(path), "Q?", "--url", url) == (
        f"{path}: MP4: expected a box of a known kind, got b'noof'"
    )


def test_no_server_and_a_wrong_key(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(media / "picture.png")
    nobody = "ws://127.0.0.1:1/v1/stream"
    text = refusal(capsys, "ask", picture, "Q?", "--url", "ws://127.0.0.1:1")
    assert text == (
        f"{nobody}: [Errno 111] Connect call failed ('127.0.0.1', 1); start a server with `penstock serve`, or leave "
        "out --url to load a model here"
    )

    async def keyed() -> None:
        async with serving(FakeEngine(), api_key="right") as url:
            address = url.replace("http", "ws", 1) + "/v1/stream"
            do = "give it in PENSTOCK_API_KEY or with --api-key-file"
            for extra, text in (((), "the server wants a key"), (("--api-key", "no"), "the key is wrong")):
                told = await asyncio.to_thread(refusal, capsys, "ask", picture, "Q?", "--url", url, *extra)
                assert told == f"{address}: {text}; {do}"
            assert await asyncio.to_thread(main, ["ask", picture, "Q?", "--url", url, "--api-key", "right"]) == 0

    run(keyed)


def test_a_server_that_goes_before_the_answer(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def gone() -> None:
        engine = FakeEngine()
        engine.gate = asyncio.Semaphore(0)
        words = ["ask", str(media / "picture.png"), "Q?", "--url"]
        async with serving(engine) as url:
            asked = asyncio.create_task(asyncio.to_thread(refusal, capsys, *words, url))
            await until(lambda: bool(engine.streams) and bool(engine.streams[0]._replies))
        assert (await asked).startswith("the stream has ended before the answer: ")

    run(gone)


def test_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    from penstock.server.app import bind
    from penstock.server.config import ServerConfig

    with bind(ServerConfig(port=0)) as listener:
        port = listener.getsockname()[1]
        text = refusal(capsys, "serve", "--port", str(port))
    assert text == f"cannot listen on 127.0.0.1:{port}: Address already in use; take another with --port"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["ask"], "penstock ask: error: the following arguments are required: MEDIA QUESTION; see penstock ask --help"),
        (["ask", "a", "b", "--seconds", "0"], "expected more than 0, got 0; see penstock ask --help"),
        (["ask", "a", "b", "--loud"], "penstock: error: unrecognized arguments: --loud; see penstock --help"),
        (["serve", "a", "b"], "penstock: error: unrecognized arguments: b; see penstock --help"),
    ],
)
def test_arguments_are_refused_in_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.endswith(f"{text}\n") and error.count("\n") == 1


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
