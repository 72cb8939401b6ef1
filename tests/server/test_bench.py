"""Each benchmark runs and prints one JSON object a line: a setting, then figures with one value a round."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from penstock.errors import PenstockError
from penstock.server.bench import compare, endless, live, overhead, peer, ways
from penstock.server.bench.profile import PARTS
from penstock.server.cli import main

from tests.fixtures.recipe import model_path

STAND_IN = """#!/bin/sh
[ "$1" = -c ] && exec {python} "$@"
PYTHONPATH={here} exec {python} "$@"
"""


def bench(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], dict[tuple[str, ...], Any], int]:
    """What a benchmark prints: its setting, its figures by case, quantity and engine, and the exit code."""
    ragged = ("capacity", "endless")
    code = main([*words, "--json"])
    setting, *figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert setting["bench"] == words[1] and all(figure["bench"] == words[1] for figure in figures)
    assert all(len(figure["rounds"]) == len(figures[0]["rounds"]) for figure in figures if words[1] not in ragged)
    return setting, {(figure["case"], figure["what"], figure["engine"]): figure for figure in figures}, code


def test_latency(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(model_path("qwen2_5_vl")), "--rounds", "2", "--tokens", "4", "--frames", "1,2"]
    setting, figures, code = bench(capsys, "bench", "latency", *words)
    assert code == 0 and (setting["rounds"], setting["device"]) == (2, "cpu")
    one_shot = {(case, what) for case in ("text", "image 448", "video 16x224") for what in FIRST_AND_BETWEEN}
    sessions = {(case, what) for case in ("1 pictures", "2 pictures") for what in TAKEN_AND_ASKED}
    assert {key[:2] for key in figures} == one_shot | sessions
    assert all(value > 0 for figure in figures.values() for value in figure["rounds"])
    assert all(len(figures["2 pictures", what, "penstock"]["ratios"]) == 2 for what in TAKEN_AND_ASKED)


FIRST_AND_BETWEEN = ("first token", "between tokens")
TAKEN_AND_ASKED = ("taking in a picture", "question to first token")


@pytest.mark.slow
def test_latency_with_guesses(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(model_path("qwen2_5_vl")), "--rounds", "1", "--tokens", "24", "--speculative", "ngram"]
    _, figures, code = bench(capsys, "bench", "latency", *words)
    assert code == 0
    assert {case for case, _, _ in figures} == {"text", "repeated text", "4 repeated texts", "image 448"}
    for (_, what, engine), figure in figures.items():
        assert what == "time per token" and figure["rounds"][0] > 0
        assert len(figure["ratios"]) == (engine == "speculative")
    assert "guesses" in figures["text", "time per token", "speculative"]["note"]


def test_bargein(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--rounds", "1", "--histories", "64", "--tokens", "2"]
    _, figures, code = bench(capsys, "bench", "bargein", *words)
    ordinary, cut = figures.values()
    assert code == 0 and cut["against"] == "ordinary" and len(cut["ratios"]) == 1
    assert ordinary["rounds"][0] > 0 < cut["rounds"][0]


def test_throughput(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(model_path("qwen2_5_vl")), "--rounds", "1", "--requests", "1,3"]
    setting, figures, code = bench(capsys, "bench", "throughput", *words, "--tokens", "24", "--image-tokens", "3")
    assert code == 0 and setting["bench"] == "throughput"
    assert {key[:2] for key in figures} == {
        *((f"{count} text", what) for count in (1, 3) for what in ("decode", "slowest first token")),
        *(("3 image 224", what) for what in ("all tokens", "median first token", "slowest first token")),
    }
    assert figures["1 text", "decode", "penstock"]["unit"] == "tok/s"


def test_live(brook_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--url", brook_url, "--rounds", "1", "--fps", "10", "--tokens", "30"]
    setting, figures, code = bench(capsys, "bench", "live", *words)
    assert {what.rpartition(",")[0] or what for _, what, _ in figures} == {
        "pictures during the reply",
        "due to first token that sees it",
        "due to KV cache",
        "synchrony",
        "between tokens, idle",
        "between tokens, meanwhile",
    }
    assert setting["model"] and code == (0 if setting["rounds"] else 1)
    for (_, what, _), figure in figures.items():
        assert len(figure["rounds"]) == setting["rounds"], what
        if what.startswith("between") and setting["rounds"]:
            assert figure["median"] > 0


def test_a_round_that_does_not_end_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(live, "_round", stuck)
    monkeypatch.setattr(live, "_MOST_SECONDS", 0.02)
    with pytest.raises(PenstockError, match=r"expected a round of 128 tokens in 0\.02 s, and it took longer"):
        asyncio.run(live._timely(None, argparse.Namespace(tokens=64), 1))  # pyright: ignore[reportArgumentType]


def test_capacity(brook_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--url", brook_url, "--fps", "8", "--seconds", "0.5", "--most-streams", "2"]
    _, figures, code = bench(capsys, "bench", "capacity", *words)
    found = figures.pop(("search", "live streams", "penstock"))
    assert code == 0 and found["rounds"][0] in (0, 1, 2)
    tried = {case for case, _, _ in figures}
    assert tried == ({"1 streams"} if found["median"] == 0 else {"1 streams", "2 streams"})
    for case in tried:
        fits = int(case.split()[0]) <= found["median"]
        share = figures[case, "synchrony", "penstock"]
        assert fits == (share["note"] == "") and (share["median"] >= 99 or not fits)


def test_endless(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The window goes on; the history is refused where it is full; new streams begin, and may be shown much again."""
    monkeypatch.setattr(ways, "FULL_ROWS", 200)
    words = ["--fps=0.5", "--minutes=1.6", "--part=0.4", "--window=192", f"--plot={tmp_path / 'endless.svg'}"]
    setting, figures, code = bench(capsys, "bench", "endless", *words, "--beside", "full", "restart", "refill")
    found = {(engine, what): figure["rounds"] for (_, what, engine), figure in figures.items()}
    assert code == 0 and setting["rounds"] == 4
    assert all(90 < rows <= 192 for rows in found["window", "rows of the stream"])
    assert all(one > 0 for one in found["window", "taking in a pair, p50"])
    assert found["window", "question to first token, p50"][2] > 0 and found["window", "rows left"][2] >= 2
    assert found["window", "taking in a pair after a question, p50"][2] > 0
    assert found["full", "taking in a pair, p50"][0] and found["full", "taking in a pair, p50"][2] is None
    note = figures["parts of 0.4 min", "rows of the stream", "full"]["note"]
    assert "ended in minute 0.8 of media time: " in note and "200" in note
    again, new = found["refill", "new streams"], found["restart", "new streams"]
    assert sum(again) > sum(new) >= 1 and found["refill", "rows of the stream"][2] > 150
    assert (tmp_path / "endless.svg").read_text().count("<path d=") > 20


def test_a_window_that_is_too_small_to_be_filled_again_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """A picture has 16 rows. Of 100, seven eighths are shown again, and a question needs some, too."""
    code = main(["bench", "endless", "--fps=0.5", "--minutes=1", "--window=100", "--beside", "refill"])
    told = capsys.readouterr().err
    assert code == 2 and "--beside refill: expected room in a new stream of 100 rows" in told
    assert "give --window more rows" in told


def test_a_trend_is_what_rises_and_how_sure_that_is() -> None:
    even, ragged = ([(hour / 10, 100 + 5 * hour / 10 + bend * (-1) ** hour) for hour in range(10)] for bend in (0, 3))
    assert endless.trend(even[:2]) is None
    sure, unsure = endless.trend(even), endless.trend(ragged)
    assert sure is not None and unsure is not None
    assert sure.percent == pytest.approx(5 / 1.0225) and sure.error == pytest.approx(0, abs=1e-6)
    assert abs(unsure.percent - sure.percent) < 2 * unsure.error


def test_asides(capsys: pytest.CaptureFixture[str]) -> None:
    """Those who ask aside hold a page or two each, those with streams of their own the window."""
    words = ["--asides", "12", "--replays", "2", "--window", "256", "--rounds", "1", "--tokens", "3"]
    _, figures, code = bench(capsys, "bench", "asides", *words)
    aside, replay = figures["12 at once", "pages of each", "aside"], figures["2 at once", "pages of each", "replay"]
    assert code == 0 and 0.5 <= aside["median"] <= 3 and 6 <= replay["median"] <= 9
    assert replay["ratio"] == pytest.approx(replay["median"] / aside["median"], rel=1e-3)
    assert not any(figure["note"] for figure in figures.values())


def test_overhead(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without py-spy the parts of the time are not known, and the figures say why."""
    monkeypatch.setattr(overhead, "_ALONE", 3)
    words = ["--rounds", "1", "--streams", "2", "--seconds", "0.3", "--flame", str(tmp_path / "profile.json")]
    setting, figures, code = bench(capsys, "bench", "overhead", *words)
    assert code == 0 and setting["model"] == "Brook"
    alone, of = (
        {what: figure for (case, what, _), figure in figures.items() if case == wanted}
        for wanted in ("scheduler alone, 3 speak", "2 streams")
    )
    assert 0 < alone["policy"]["median"] < alone["all"]["median"]
    assert of["event loop lag, p50"]["median"] <= of["event loop lag, most"]["median"]
    assert of["steps, p50"]["median"] > 0 and 0 < of["event loop, of a core"]["median"] <= 110
    written = (tmp_path / "profile.json").exists()
    for part in ("host work", *PARTS):
        figure = of[f"time: {part}"]
        assert (figure["median"] is not None) == written == (figure["note"] == "")
    assert not written or of["time: model step"]["median"] > 0


def test_compare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """vLLM's side runs as it does with vLLM, on a stand-in that replies to every prompt with 7, 8, 9, ..."""

    class Same:
        about = "made up"

        async def run(self, case: dict[str, Any]) -> dict[str, Any]:
            ids = [list(range(7, 7 + case["tokens"]))]
            if case["run"] == "session":
                return {"frame": 0.5, "question": 1.0, "ids": ids}
            times = [[(place + 1) / 10 for place in range(case["tokens"])] for _ in range(case["count"])]
            return {"times": times, "ids": ids * case["count"]}

    @contextlib.asynccontextmanager
    async def open_peer(name: str, python: str | None, *settings: str) -> AsyncIterator[Any]:
        if python is None:
            yield Same()
        else:
            async with peer.open_peer(name, python, *settings) as opened:
                yield opened

    monkeypatch.setattr(compare, "open_peer", open_peer)
    python = stand_in(tmp_path)
    words = ["--vllm", python, "--model", "m", "--rounds", "1", "--frames", "2", "--requests", "1,2", "--tokens", "5"]
    setting, figures, code = bench(capsys, "bench", "compare", *words, "--image-tokens", "3")
    assert code == 0 and "vllm float32, vLLM 0 stand-in" in setting["device"]
    engines = {engine for *_, engine in figures}
    assert engines == {"penstock", "transformers", "vllm"}
    for (case, what, engine), figure in figures.items():
        assert figure["median"] is not None, (case, what, engine)
        assert (figure["ratio"] is None) == (engine == "penstock"), (case, what, engine, figure["note"])
    assert figures["1 text", "decode", "transformers"]["ratio"] == 1.0


def test_an_engine_that_dies_leaves_the_others(tmp_path: Path) -> None:
    async def ask() -> list[dict[str, Any]]:
        async with peer.open_peer("vllm", stand_in(tmp_path, "import os; os._exit(3)"), "m", "float32", "cpu") as child:
            case = {"run": "requests", "count": 1, "media": "text", "side": 1, "frames": 1, "tokens": 2, "seed": 0}
            return [await child.run(case), await child.run(case)]

    for answer in asyncio.run(ask()):
        assert answer == {"error": "vllm ended with code 3"}


def stand_in(folder: Path, dies: str = "") -> str:
    """A Python whose environment has a package `vllm` that computes nothing. It may die at a reply."""
    source = (
        (Path(__file__).parent / "vllm_stand_in.py")
        .read_text(encoding="utf-8")
        .replace('DIES = ""', f"DIES = {dies!r}")
    )
    for module in ("", "sampling_params", "engine", "engine.arg_utils", "engine.protocol", "v1", "v1.engine"):
        room = folder.joinpath("here", "vllm", *module.split("."))
        room.mkdir(parents=True, exist_ok=True)
        (room / "__init__.py").write_text(source if module == "" else "from vllm import *\n")
    (folder / "here" / "vllm" / "v1" / "engine" / "async_llm.py").write_text("from vllm import *\n")
    python = folder / "python"
    python.write_text(STAND_IN.format(python=sys.executable, here=folder / "here"))
    python.chmod(0o755)
    return str(python)


def test_append(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--histories", "200,400", "--rounds", "2", "--tokens", "30"]
    assert main(["bench", "append", "--json", *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    costs, latencies = lines[:2], lines[2:]
    assert [cost["history"] for cost in costs] == [200, 400]
    assert all({"history", "rows", "bytes", "append_ms", "decode_ms"} <= set(cost) for cost in costs)
    assert costs[0]["rows"] == costs[1]["rows"] > 1
    assert costs[0]["bytes"] == costs[1]["bytes"]
    assert [latency["others"] for latency in latencies] == [0, 8]
    assert [latency["tokens"] for latency in latencies] == [30, 30]
    assert latencies[1]["frames_appended"] >= 8


def test_cache(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(model_path("text")), "--device", "cpu", "--rounds", "2", "--histories", "100,300"]
    _, figures, code = bench(capsys, "bench", "cache", *words)
    steps = {(f"{rows} rows", f"a step, {kept}") for rows in (100, 300) for kept in ("auto", "int8", "fp8")}
    assert code == 0 and {key[:2] for key in figures} == steps
    assert all(value > 0 for one in figures.values() for value in one["rounds"])
    assert [one["against"] for one in figures.values()] == ["", "auto", "auto"] * 2


def test_grammar(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", str(model_path("qwen2_5_vl")), "--rounds", "2", "--streams", "1,2", "--tokens", "20"]
    _, figures, code = bench(capsys, "bench", "grammar", *words)
    steps = {(f"{count} streams", f"step, {way}") for count in (1, 2) for way in ("any words", "with a grammar")}
    assert code == 0 and {key[:2] for key in figures if "step" in key[1]} == steps
    masks = {case for case, what, _ in figures if what == "mask, worst"}
    assert len(masks) == 7 and all(
        value > 0 for one in figures.values() for value in one["rounds"] if "mask" in one["what"]
    )
