"""What the command line says to those who try it for the first time."""

from __future__ import annotations

import pytest
from asking import refusal
from penstock.errors import InputError
from penstock.server import cli
from penstock.server.ask_view import TextView
from penstock.server.client import connect
from penstock.streams.event import ReplyDone, ReplyStarted, Token


def test_the_command_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    told = capsys.readouterr()
    assert told.err == "" and told.out.startswith("usage: penstock")
    assert "serve a model over WebSocket" in told.out and 'penstock ask clip.mp4 "What happens?"' in told.out


@pytest.mark.parametrize("tokens", ["0", "-3"])
def test_no_tokens_is_no_reply(tokens: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["ask", "a.png", "What?", "--max-tokens", tokens])
    assert left.value.code == 2
    assert f"argument --max-tokens: expected at least 1, got {tokens};" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["https://example.org/cat.mp4", "rtsp://door.local/stream", "data:image/png;base64,AA=="]
)
def test_an_address_as_media_is_not_fetched(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "ask", url, "What?")
    if "://" in url:
        assert line.startswith(f"{url}: nothing is fetched: ")
    else:
        assert line.startswith(f"{url}: no such file; MEDIA is a file, camera, microphone")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("127.0.0.1:8000", "ws://127.0.0.1:8000/v1/stream"),
        ("localhost:8000", "ws://localhost:8000/v1/stream"),
        ("door.local", "ws://door.local/v1/stream"),
        ("[::1]:8000", "ws://[::1]:8000/v1/stream"),
        ("https://door.local/", "wss://door.local/v1/stream"),
        ("ws://door.local/other", "ws://door.local/other"),
    ],
)
def test_an_address_needs_no_scheme(given: str, address: str) -> None:
    assert connect(given).url == address


@pytest.mark.parametrize("given", ["", "ftp://door.local", "http://"])
def test_what_is_no_address_says_what_is(given: str) -> None:
    with pytest.raises(InputError, match="^url: expected HOST:PORT, or http://"):
        connect(given)


def test_a_question_needs_no_media(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert cli.main(["ask", "--url", url, "What do you see?"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() and "Traceback" not in told.err


@pytest.mark.parametrize(
    "media", ["clip.mp4", "films/door.webm", "/", "camera", "camera:1", "microphone", "microphone:1,0", "-"]
)
def test_media_without_a_question_says_what_is_missing(media: str, capsys: pytest.CaptureFixture[str]) -> None:
    example = 'expected, for example, penstock ask clip.mp4 "What happens?"'
    assert refusal(capsys, "ask", media) == f"a question is missing behind {media}: {example}"


@pytest.mark.parametrize(
    ("model", "answer", "hinted"),
    [
        ("brook", "I do not know.", True),
        ("/site-packages/penstock/engine/brook", "I do not know.", True),
        ("brook", "a red circle.", False),
        ("org/name", "I do not know.", False),
    ],
)
def test_where_brook_does_not_know_it_is_said_what_it_knows(
    model: str, answer: str, hinted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    view = TextView(live=False)
    view.started(model, "turns", "asked for")
    view.event(ReplyStarted(1, 1))
    for index, word in enumerate(answer.split()):
        view.event(Token(1, index, 7, word if not index else f" {word}", None))
    view.event(ReplyDone(1, "stop", len(answer.split())))
    view.close()
    told = capsys.readouterr()
    assert told.out == f"{answer}\n"
    assert ("Brook knows coloured shapes" in told.err and "--model" in told.err) == hinted
