"""`penstock watch`: what a model says by itself becomes JSON objects, in a file and at a web address."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from asking import refusal
from penstock.server.cli import main
from penstock.server.watch import Alert, Lines, Sentences, Webhook
from penstock.streams.event import ReplyDone, Resting, Seen, Token


@contextmanager
def address(*answers: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web address that answers with these statuses, then with 200; and what it has got, whatever it answered."""
    left, got = list(answers), list[dict[str, Any]]()

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(left.pop(0) if left else 200)
            self.send_header("Location", "/other")
            self.end_headers()

        def do_GET(self) -> None:
            got.append({"stop_us": "a request without what was posted"})
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Takes) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/alerts", got
        finally:
            server.shutdown()
            thread.join()


def alert(number: int) -> Alert:
    return Alert("a", 1, f"Thing {number}.", None, number)


def test_what_happens_in_a_film_is_told(media: Path, url: str, tmp_path: Path) -> None:
    """Brook narrates: what it sees, then each change, with the media times that it had seen."""
    file = tmp_path / "alerts.jsonl"
    told = ["watch", str(media / "film.mp4"), "Tell me what happens.", "--url", url, "--jsonl", str(file)]
    assert main(told) == 0
    alerts = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(alerts) >= 2 and all(one["text"].endswith(".") for one in alerts)
    assert len({one["watch"] for one in alerts}) == 1
    times = [one["stop_us"] for one in alerts]
    assert times == sorted(times) and times[0] < times[-1] and all(one["start_us"] < one["stop_us"] for one in alerts)


def test_sentences_are_cut_where_they_end_and_where_the_reply_rests(tmp_path: Path) -> None:
    view, index = Sentences(Lines(tmp_path / "file")), 0
    words = ["A red", " circle. ", "It", " goes", None, "Wait", " cut"]
    for place, word in enumerate(words):
        if word is None:
            view.event(Resting(1, index))
        else:
            view.event(Token(1, index, 5, word, Seen(1, "video", place * 10, place * 10 + 10)))
            index += 1
    view.event(ReplyDone(1, "interrupted", 5, "!"))
    view.close()
    alerts = [json.loads(line) for line in (tmp_path / "file").read_text().splitlines()]
    assert [one["text"] for one in alerts] == ["A red circle.", "It goes", "Wait!"]
    assert [(one["start_us"], one["stop_us"]) for one in alerts] == [(0, 20), (20, 40), (50, 60)]


def test_what_is_to_be_whole_is_cut_at_no_sentence(tmp_path: Path) -> None:
    view = Sentences(Lines(tmp_path / "file"), whole=True)
    for index, word in enumerate(('{"seen": "A circle. ', 'A square."}')):
        view.event(Token(1, index, 5, word, None))
    view.event(ReplyDone(1, "stop", 2))
    view.close()
    (line,) = (tmp_path / "file").read_text().splitlines()
    assert json.loads(json.loads(line)["text"]) == {"seen": "A circle. A square."}


def test_a_webhook_is_tried_again_and_keeps_the_order() -> None:
    with address(503, 429) as (url, got):
        hook = Webhook(url, wait_seconds=0.01)
        for number in range(3):
            hook.put(alert(number))
        hook.close()
        assert [one["stop_us"] for one in got] == [0, 0, 0, 1, 2] and hook.lost == 0


def test_what_a_webhook_does_not_take_is_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is final; a fault is tried four times. Each loses one alert, and the next one goes on."""
    with address(400, 500, 500, 500, 500) as (url, got):
        hook = Webhook(url, wait_seconds=0.01)
        for number in range(3):
            hook.put(alert(number))
        hook.close()
        assert [one["stop_us"] for one in got] == [0, 1, 1, 1, 1, 2] and hook.lost == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.rpartition(": ")[2] for line in told] == ["status 400", "status 500"]


def test_a_redirect_is_not_followed_and_what_speaks_no_http_loses_one_alert(capsys: pytest.CaptureFixture[str]) -> None:
    with address(301) as (url, got):
        hook = Webhook(url, wait_seconds=0.01)
        for number in range(2):
            hook.put(alert(number))
        hook.close()
        assert [one["stop_us"] for one in got] == [0, 1] and hook.lost == 1
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as line:
                line.recv(1 << 16)
                line.sendall(b"good morning\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        hook = Webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/", wait_seconds=0.01)
        hook.put(alert(0))
        hook.close()
        thread.join()
        assert hook.lost == 1
    assert capsys.readouterr().err.count("an alert is lost") == 2


def test_what_is_no_address_and_no_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "http:// or https://" in refusal(capsys, "watch", "camera", "Tell me.", "--webhook", "file:///etc/passwd")
    assert "can be written" in refusal(capsys, "watch", "camera", "Tell me.", "--jsonl", str(tmp_path))
