"""What `penstock serve` and `penstock ask` do with the machine: the options, the lines at the start, the refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from asking import refusal
from penstock.actors.info import EngineInfo
from penstock.engine.config import FITTING, EngineConfig
from penstock.engine.loading.memory import Memory
from penstock.server import cli
from penstock.server.config import ServerConfig
from penstock.streams.requests.request import Sampling

from tests.fixtures.recipe import model_path

URL = "http://127.0.0.1:8000"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, list[str]]]:
    """What `penstock serve` tells with these options, by name; it goes down as soon as it has told it."""

    async def serve(*_: object, on_listening: Callable[[str], None], **__: object) -> None:
        on_listening(URL)

    monkeypatch.setattr("penstock.server.app.serve", serve)

    def run(*arguments: str) -> dict[str, list[str]]:
        assert cli.main(["serve", "--port", "0", *arguments]) == 0
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == f"penstock: serving on {URL}"
        facts: dict[str, list[str]] = {}
        name = ""
        for line in lines:
            name = line[2:12].strip() or name
            facts.setdefault(name, []).append(line[12:])
        return facts

    return run


def test_the_start_says_who_has_how_much_and_why(started: Callable[..., dict[str, list[str]]]) -> None:
    facts = started("--device", "cpu")
    assert "float32 on cpu: a model so small is not faster in the checkpoint's bfloat16" in facts["model"][0]
    weights, encoder, cache, streams = facts["memory"]
    assert weights.startswith("39.0 MiB weights, ") and weights.endswith(" MiB the largest step")
    assert encoder.endswith(" the encoder at most")
    assert cache == "384.0 MiB KV cache: 1024 pages, 32768 tokens"
    assert streams == "4 streams of 8k tokens fit"


def test_the_options_of_the_start_are_heeded(started: Callable[..., dict[str, list[str]]]) -> None:
    facts = started(str(model_path("text")), "--device", "cpu", "--dtype", "bfloat16", "--kv-gib", "0.01")
    assert facts["model"][0].endswith(", bfloat16 on cpu")
    tokens = int(0.01 * 2**30) // 384 // 32 * 32
    assert facts["memory"][2] == f"10.2 MiB KV cache: {tokens // 32} pages, {tokens} tokens"
    assert started("--device", "cpu", "--threads", "1")["threads"] == ["1 compute: as threads says"]
    quantised = started("--device", "cpu", "--quantize", "int8")["memory"][0]
    assert float(quantised.split()[0]) < 26


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kv-gib", "100000"], r"needs (100000.0|99999.9) GiB for a KV cache of \d+ tokens"),
        (["--memory-fraction", "2"], "memory_fraction: expected more than 0 and at most 1, got 2"),
        (["--device", "tpu"], "device: expected auto, .*cpu, got 'tpu'"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "serve", "--port", "0", *arguments)
    assert re.search(told, line), line


def options(*arguments: str) -> EngineConfig:
    return cli.engine_config(cli._parser().parse_args(arguments))


def test_who_names_nothing_gets_what_fits() -> None:
    assert options("serve") == options("ask", "a.mp4", "What?") == FITTING
    asked = options(
        "ask", "--device", "cpu", "--dtype", "float16", "--quantize", "int8", "--threads", "2", "a.mp4", "W?"
    )
    assert (asked.device, asked.dtype, asked.quantize, asked.threads) == ("cpu", "float16", "int8", 2)


def test_serve_alone_says_some_of_it() -> None:
    assert cli.served_config(cli._parser().parse_args(["serve"])) == msgspec.structs.replace(FITTING, decode="workers")
    given = ["serve", "--no-prefix-cache", "--limit", "image=2", "--record", "here", "--slots", "1001"]
    config = cli.served_config(cli._parser().parse_args(given))
    assert (config.prefix_cache, config.limits_per_request, config.record) == (False, {"image": 2}, "here")
    assert config.slots == 1001


def test_an_answer_in_bfloat16(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from penstock.demos.film import draw
    from PIL import Image

    Image.fromarray(draw(0.0)).save(tmp_path / "pond.png")
    for more in (["--dtype", "bfloat16"], ["--quantize", "int8"]):
        assert cli.main(["ask", "--device", "cpu", *more, str(tmp_path / "pond.png"), "What do you see?"]) == 0
    said = capfd.readouterr().out.splitlines()
    assert len(said) == 2 and all("circle" in answer or "square" in answer for answer in said)


def test_a_server_has_its_own_device(capsys: pytest.CaptureFixture[str]) -> None:
    for own in (["--dtype", "bfloat16"], ["--no-cuda-graphs"]):
        assert cli.main(["ask", "--url", "ws://127.0.0.1:1", *own, "no.mp4", "What?"]) == 2
        assert "expected a model that is loaded here, got --url" in capsys.readouterr().err


def test_a_revision_is_one_of_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    picture = tmp_path / "pond.png"
    Image.new("RGB", (8, 8)).save(picture)
    asked = ["ask", "--model", str(tmp_path), "--revision", "v1.0", "--device", "cpu", str(picture), "What?"]
    assert cli.main(asked) == 2
    assert "expected no revision, as it is a folder, got 'v1.0'" in capsys.readouterr().err


def test_a_card_is_named_in_the_start_lines() -> None:
    memory = Memory(7 << 30, 300 << 20, 900 << 20, 57_344, 16, 40_960)
    info = EngineInfo(
        "org/name", "qwen3_vl", ("image",), ("turns",), False, 262_144, 9, memory.tokens, "cuda:0", "bfloat16",
        "as the checkpoint has it", Sampling(temperature=0.6, top_p=0.9), memory,
    )  # fmt: skip
    facts = cli._facts("http://127.0.0.1:8000", info, ServerConfig(), own=False)
    assert ("model", "org/name (qwen3_vl), bfloat16 on cuda:0: as the checkpoint has it") in facts
    assert ("replies", "temperature 0.6, top_p 0.9, unless a request says otherwise") in facts
    assert facts[-4:] == [
        ("memory", "7.0 GiB weights, 300.0 MiB the largest step"),
        ("", "900.0 MiB the encoder at most"),
        ("", "35.0 GiB KV cache: 40960 pages, 655360 tokens"),
        ("", "80 streams of 8k tokens fit"),
    ]


def test_the_engine_tells_what_it_took() -> None:
    import asyncio

    from penstock import Engine

    async def work() -> EngineInfo:
        async with await Engine.load(model_path("text"), config=EngineConfig(kv_tokens=640)) as engine:
            return engine.info

    info = asyncio.run(work())
    assert (info.device, info.dtype, info.why, info.kv_tokens) == ("cpu", "float32", "", 640)
    assert info.memory.kv_bytes == 640 * info.memory.token_bytes
