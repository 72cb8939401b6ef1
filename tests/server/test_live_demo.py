"""The live demo's film and its run, against a server whose engine gives one token for each piece of the film."""

from __future__ import annotations

import asyncio
import io
import json

import av
import pytest
from fake_engine import FakeEngine
from harness import run, serving
from penstock.demos import live
from penstock.demos.brook.film import CONTAINERS, FPS
from penstock.demos.film import make_film, pieces, read_film
from penstock.demos.view import FilmView, JsonFilmView, TextFilmView
from penstock.streams.event import Closed, Token
from penstock.streams.item import Item, VideoBytes

SECONDS = 1.25


@pytest.fixture(scope="module")
def film() -> bytes:
    return make_film(SECONDS)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_film_is_a_whole_file_with_sound(container: str) -> None:
    file = make_film(SECONDS, container)
    with av.open(io.BytesIO(file), "r") as opened:
        frames = list(opened.decode(video=0))
    with av.open(io.BytesIO(file), "r") as opened:
        sound = sum(frame.samples / frame.sample_rate for frame in opened.decode(audio=0))
    assert len(frames) == round(SECONDS * FPS)
    assert SECONDS - 0.05 < sound < SECONDS + 0.15


@pytest.mark.parametrize("container", CONTAINERS)
def test_the_pieces_are_the_file_in_rising_time(container: str) -> None:
    file = make_film(SECONDS, container)
    cut = list(pieces(file))
    assert b"".join(piece.data for piece in cut) == file
    times = [piece.time_us for piece in cut]
    assert times == sorted(times) and len(cut) > 10
    assert SECONDS * 1e6 - 100_000 < times[-1] < SECONDS * 1e6 + 100_000


@pytest.mark.parametrize("file", [b"", b"not a film", make_film(0.2)[:200]])
def test_what_is_no_film_is_a_value_error(file: bytes) -> None:
    with pytest.raises(ValueError, match="expected a film"):
        list(pieces(file))


def play(film: bytes, view: FilmView) -> tuple[FakeEngine, live.Watcher]:
    engine = FakeEngine()
    options = live._parser().parse_args(["--tail-seconds", "0.1"])
    found: list[live.Watcher] = []

    async def main() -> None:
        gate = engine.gate = asyncio.Semaphore(0)

        def one_token(item: Item) -> None:
            gate.release()

        engine.refuse = one_token
        async with serving(engine) as url:
            found.append(await live.watch(url, read_film(film), options, view))

    run(main)
    return engine, found[0]


def test_the_demo_sends_the_whole_film_and_prints_times(film: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    engine, watcher = play(film, JsonFilmView())
    sent = engine.streams[0].items
    assert all(isinstance(item, VideoBytes) for item in sent)
    assert b"".join(bytes(item.data) for item in sent) == film  # type: ignore[union-attr]
    assert [item.final for item in sent] == [False] * (len(sent) - 1) + [True]  # type: ignore[union-attr]
    assert engine.streams[0].ended and engine.streams[0].request.format == "live"
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    tokens = [line for line in lines if "type" not in line]
    assert len(tokens) == watcher.tokens_before_end + watcher.tokens_after_end
    assert watcher.tokens_before_end > 0
    assert all(set(token) == {"reply", "text", "seen_us", "played_us"} for token in tokens)
    played = [token["played_us"] for token in tokens]
    assert played == sorted(played)
    kinds = [line["type"] for line in lines if "type" in line]
    assert kinds[0] == "started" and {"appended", "reply", "done", "closed"} <= set(kinds)


def test_people_are_told_where_a_model_was_not_trained_for_live(
    film: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    play(film, TextFilmView())
    told = capsys.readouterr().out
    assert "not trained to speak while it watches" in told and "newest frame seen" in told and "w0 w1" in told
    assert "h264 224 x 224 and aac, 1.3 s" in told
    assert max(map(len, told.splitlines())) <= 80


def test_a_long_block_of_words_is_wrapped_and_the_rest_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    view = TextFilmView()
    for index in range(100):
        view.token(Token(1, index, 0, " word", None), 1_000_000 if index < 99 else 2_000_000, 3_000_000)
    view.event(Closed("closed"), 4_000_000)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) < 80 for line in lines)
    first, rest, last = lines[: TextFilmView.ROWS], lines[TextFilmView.ROWS], lines[TextFilmView.ROWS + 1]
    assert first[0].startswith("   3.00 s |            1.00 s | word word") and first[1].split("|")[:2] == [
        " " * 10,
        " " * 19,
    ]
    shown = " ".join(first).count("word")
    assert f"... and {99 - shown} tokens more" in rest and "2.00 s | word" in last
    assert lines[-1] == "   4.00 s | stream closed"
