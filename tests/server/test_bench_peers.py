"""The engines of `penstock bench compare` do the same work, and the models of random weights are fit to be measured."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock.errors import ModelError
from penstock.server.bench import presets
from penstock.server.bench.cases import Case, latency_cases, measure, requests, session
from penstock.server.bench.peers import child, on_penstock, on_transformers

SMALL = presets.Shape(64, 96, 2, 4, 2, 2048, False, 32, 48, 2, 2, (1,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("random")
    presets.write(path, SMALL)
    return path


def answers(folder: Path, cases: list[Case]) -> list[list[dict[str, Any]]]:
    """What Penstock and `transformers` answer in float32, by engine and case."""

    async def ask() -> list[list[dict[str, Any]]]:
        found = []
        for adapter in (on_penstock, on_transformers):
            engine = await adapter.load(str(folder), "float32", "cpu")
            found.append([await child.run(engine, case.message | {"seed": 3}) for case in cases])
            await engine.close()
        return found

    return asyncio.run(ask())


def test_penstock_and_transformers_reply_alike_to_all_cases(folder: Path) -> None:
    cases = [requests("text", 2, 6), requests("image", 2, 6, "image", 84), requests("video", 1, 6, "video", 56)]
    ours, theirs = answers(folder, [*cases, session(2)])
    for mine, yours in zip(ours, theirs, strict=True):
        assert mine["ids"] == yours["ids"]
    for case, mine in zip(cases, ours, strict=False):
        assert [len(times) for times in mine["times"]] == [case.message["tokens"]] * case.message["count"]
        assert all(times == sorted(times) and times[0] > 0 for times in mine["times"])
    assert ours[-1]["frame"] > 0 and ours[-1]["question"] > 0
    assert len({token for reply in ours[0]["ids"] for token in reply}) > 3, "expected replies that vary"


@pytest.mark.parametrize("tied", [False, True])
def test_a_random_model_says_plain_words_and_never_ends(tied: bool, tmp_path: Path) -> None:
    presets.write(tmp_path, SMALL._replace(tied=tied))
    engine = asyncio.run(on_transformers.load(str(tmp_path), "bfloat16", "cpu"))
    tokenizer = engine.processor.tokenizer
    assert sum(weight.numel() for weight in engine.model.parameters()) > 2048 * 64
    assert (engine.model.lm_head.weight is engine.model.get_input_embeddings().weight) == tied
    prompt = tokenizer("What happens?", return_tensors="pt")
    ids = engine.model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    text = tokenizer.decode(ids)
    assert len(ids) == 24 and text.isascii() and text.isprintable() and len(set(ids.tolist())) > 5


def test_a_preset_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setenv("PENSTOCK_CACHE", str(tmp_path))
    monkeypatch.setattr(presets, "write", lambda folder, shape: made.append(folder))
    first = presets.model_folder("random:0.2b")
    assert presets.model_folder("random:0.2b") == first and len(made) == 1 and Path(first).is_dir()
    assert not list(Path(first).parent.glob(".*")), "nothing half made is left"
    assert presets.model_folder("Qwen/any") == "Qwen/any"
    with pytest.raises(ModelError, match=r"expected one of random:0\.2b, random:3b, random:7b, got random:9b"):
        presets.model_folder("random:9b")


def test_no_two_pictures_or_prompts_of_a_round_are_equal() -> None:
    case = requests("image", 4, 2, "image", 28).message
    seen = [prompt for seed in (1, 2) for prompt in child.prompts(case | {"seed": seed})]
    assert len({prompt["text"] for prompt in seen}) == 8
    assert len({prompt["image"].tobytes() for prompt in seen}) == 8
    assert len({pixels.tobytes() for pixels in child.pictures(session(5).message | {"seed": 1})}) == 7
    assert child.picture(1, 2, 30).shape == (30, 30, 3) and child.picture(1, 2, 30).dtype == np.uint8


def test_engines_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[tuple[str, str, int]] = []

    def engine(name: str) -> Any:
        async def run(case: dict[str, Any]) -> dict[str, Any]:
            calls.append((name, case["run"], case["seed"]))
            return {"seed": case["seed"]}

        return run

    cases = latency_cases([2], 4)[2:]
    measured = asyncio.run(measure({"a": engine("a"), "b": engine("b")}, cases, 2))
    assert [name for name, *_ in calls] == ["b", "a", "b", "a", "a", "b", "a", "b", "b", "a", "b", "a"]
    assert measured["a"] == measured["b"], "all get the same media"
    assert [answer["seed"] // 1000 for answer in measured["a"][cases[0].name]] == [1, 2]
