"""`penstock ask` with what it cannot take: one line says what was expected, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import refusal
from fake_engine import FakeEngine
from harness import run, serving, until
from penstock.errors import InputError
from penstock.server import sources
from penstock.server.cli import main


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
    }
    for words, text in cases.items():
        assert refusal(capsys, "ask", *words) == text


def test_a_damaged_film_is_named(media: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    film = (media / "film.mp4").read_bytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(film[: film.index(b"moov")])
    assert refusal(capsys, "ask", str(path), "Q?", "--url", url) == (
        f"{path}: expected a whole file, got one that cannot be read: Invalid data found when processing input"
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_disk_without_room_for_a_copy(
    media: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A telephone's film is copied with its index in front: from a file, and from a pipe once it is whole."""
    film = media / "phone.mp4"

    @contextlib.contextmanager
    def full(name: str) -> Iterator[Any]:
        with open("/dev/full", "wb", buffering=0) as file:
            yield file

    monkeypatch.setattr(sources, "_copy", full)
    words = "expected room for a copy of it in .*, got none: make room, or set TMPDIR to another disk"
    assert re.fullmatch(f"{film}: {words}", refusal(capsys, "ask", str(film), "What do you see?"))
    stdin = sources.Stdin()
    stdin._head = film.read_bytes()[:1000]
    monkeypatch.setattr(sources, "_stdin", lambda: io.BytesIO(film.read_bytes()[1000:]))
    with pytest.raises(InputError, match=f"^-: {words}$"):
        list(stdin._whole(0, False))


def test_no_folder_for_a_copy(media: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(media / "nothing"))
    line = refusal(capsys, "ask", str(media / "phone.mp4"), "What do you see?")
    assert re.fullmatch(r".*phone\.mp4: expected a folder for a copy of it, got .*: set TMPDIR to one", line)
