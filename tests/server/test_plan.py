"""`penstock plan`: the table, the JSON object, and one line for what does not fit.

That the numbers are right is in engine/test_forecast.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.loading.adapter import read_adapter
from penstock.engine.loading.fitting import fitted
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.server.cli import main

from tests.fixtures.adapters import adapter
from tests.fixtures.recipe import model_path


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["plan", *arguments]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    return out.out


def test_the_table_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    head, *lines = told(capsys, "--device-gib", "24").splitlines()
    assert head == "Brook (qwen2_5_omni), bfloat16 on cuda: as the checkpoint has it"
    names = [line[2:11].strip() for line in lines]
    assert names == ["free", "weights", "step", "encoder", "cache", "", "left", "fits", ""]
    gib = {name: amount(line[12:]) for name, line in zip(names, lines, strict=True) if name not in ("", "fits")}
    assert gib["free"] == 24
    assert sum(gib[name] for name in ("weights", "step", "encoder", "cache", "left")) == pytest.approx(24, abs=0.2)
    assert re.fullmatch(r"  fits      \d+ rows of cache, \d+ streams of 8k tokens", lines[-2])
    assert "estimated" in lines[-1]


def test_the_table_of_the_documentation_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    assert f"```\n{told(capsys, '--device-gib', '24')}```\n" in page


def amount(text: str) -> float:
    number, unit = text.split()[:2]
    return float(number) / {"GiB": 1, "MiB": 1 << 10, "KiB": 1 << 20}[unit.rstrip(",:")]


def test_json_is_one_object_with_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(model_path("text"))
    found = json.loads(told(capsys, folder, "--device-gib", "2", "--device", "cpu", "--kv-gib", "0.5", "--json"))
    memory = found["memory"]
    assert (found["model"], found["family"], found["device"], found["free_bytes"]) == (folder, "qwen2", "cpu", 2 << 30)
    assert memory["kv_bytes"] == memory["pages"] * memory["page_tokens"] * memory["token_bytes"]
    assert 0 <= (1 << 29) - memory["kv_bytes"] < memory["page_tokens"] * memory["token_bytes"]
    assert memory["tokens"] == memory["pages"] * memory["page_tokens"]
    shares = sum(memory[f"{name}_bytes"] for name in ("weight", "step", "encoder", "kv"))
    assert found["left_bytes"] == found["free_bytes"] - shares > 0


def test_a_cache_in_eight_bits_says_how_many_more_rows_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    """As the documentation has it."""
    given = ["--device-gib", "24", "--kv-dtype", "int8"]
    lines = told(capsys, *given).splitlines()
    assert lines[6].endswith("a row in int8: 1.78 times as many rows as in bfloat16")
    assert "\n".join(lines[5:7]) in (Path(__file__).parents[2] / "docs" / "memory.md").read_text()
    rows = [json.loads(told(capsys, *words, "--json"))["memory"]["tokens"] for words in (given[:2], given)]
    assert rows[1] / rows[0] == pytest.approx(1.78, rel=0.01)


def test_a_cache_that_leaves_too_little_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "--device-gib", "2", "--kv-gib", "1.5").splitlines()
    (left,) = [line for line in lines if line.startswith("  left")]
    assert re.fullmatch(r"  left      none: [\d.]+ [GM]iB too little for the step and the encoder", left)


def test_max_pixels_is_short_for_an_option_of_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    model = [str(model_path("qwen2_5_vl")), "--device-gib", "24"]
    plain, short = told(capsys, *model), told(capsys, *model, "--max-pixels", "20000000")
    assert short == told(capsys, *model, "--processor", "max_pixels=20000000")
    encoder = [line for text in (plain, short) for line in text.splitlines() if line.startswith("  encoder")]
    assert encoder[0] != encoder[1]


def test_a_draft_model_and_adapters_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """As they are when they are loaded: the draft's weights, what its rows add to a row, and the matrices."""
    folder, size = str(model_path("text")), ["--device-gib", "2", "--device", "cpu", "--dtype", "float32"]
    own = adapter("text", 1)
    guessing, wearing = ["--speculative", folder], ["--adapter", f"a={own}", "--adapter", f"b={own}"]
    bare, both = (json.loads(told(capsys, folder, *size, *more, "--json")) for more in ([], [*guessing, *wearing]))
    loaded = load(folder, EngineConfig(speculative=folder))
    assert both["memory"]["weight_bytes"] == weight_bytes(loaded) == 2 * both["draft_bytes"]
    assert both["memory"]["token_bytes"] == 2 * bare["memory"]["token_bytes"]
    assert both["adapter_bytes"] == 2 * fitted(read_adapter(own), loaded).nbytes > 0 == bare["adapter_bytes"]
    shares = sum(both["memory"][f"{name}_bytes"] for name in ("weight", "step", "encoder", "kv"))
    assert both["left_bytes"] == both["free_bytes"] - shares - both["adapter_bytes"]
    names = {
        line[2:11].strip(): line[12:] for line in told(capsys, folder, *size, *guessing, *wearing).splitlines()[1:]
    }
    assert names["draft"] == f"{names['weights']}, the weights of {folder}"
    assert amount(names["adapters"]) == pytest.approx(both["adapter_bytes"] / 2**30, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--device-gib", "0.2"], "free on cuda beside the weights; try --quantize int8 or a smaller model"),
        (["--device", "tpu"], "device: expected auto, "),
        (["--processor", "sharpness=2"], "processor option 'sharpness': expected one of those"),
        (["--adapter", "a=/nowhere/at/all"], "adapter: expected a folder, got 'all'"),
        (["--speculative", "/nowhere/at/all"], "speculative: expected ngram or a model that can be served: /nowhere"),
        (["/nowhere/at/all"], "/nowhere/at/all: expected the folder of a checkpoint"),
    ],
)
def test_what_cannot_be_is_one_line(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *arguments]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err.startswith("penstock: error: ") and reason in out.err and out.err.count("\n") == 1
