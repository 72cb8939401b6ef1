"""The steps of CONTRIBUTING.md and of docs/add-a-family.md, followed: what is written there is enough."""

from __future__ import annotations

import asyncio
import io
import re
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import penstock
import pytest
import torch
from pages import ROOT
from penstock import Engine, EngineConfig, Request, SamplingParams
from penstock.codecs import picture
from penstock.engine import families
from penstock.engine.loading.open import load
from penstock.errors import FormatError
from penstock.streams.timeline import Timeline
from PIL import Image
from test_command_line import COMMANDS

from tests.reference import media

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FAMILY = (ROOT / "docs" / "add-a-family.md").read_text(encoding="utf-8")


def steps(heading: str, page: str = PAGE) -> list[str]:
    """The numbered steps below a heading."""
    section = re.split(r"^## ", page.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    return re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]


def code(step: str, language: str = "py") -> str:
    """The code of a step."""
    return textwrap.dedent(re.findall(rf"^ *```{language}\n(.*?)^ *```$", step, re.MULTILINE | re.DOTALL)[0])


@pytest.fixture
def vipllava(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a small model whose family is added as steps 1 to 3 say."""
    loader, registered, builder, *_ = steps("In Penstock", FAMILY)
    file = re.match(r"`(\w+\.py)`, a new module in `engine/families/`", loader)
    assert file is not None
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / file[1]).write_text(code(loader), encoding="utf-8")
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path / "families")])
    monkeypatch.setattr(families, "BUILT_IN", dict(families.BUILT_IN))
    exec(code(registered), {"BUILT_IN": families.BUILT_IN})
    path = re.match(r"`([\w/]+)\.py`", builder)
    assert path is not None
    name = path[1].replace("/", ".")
    rooms: dict[str, Any] = dict(vars(import_module(name if name.startswith("tests.") else f"penstock.{name}")))
    exec(code(builder), rooms)
    (tmp_path / "model").mkdir()
    rooms["build_vipllava"](tmp_path / "model")
    return tmp_path / "model"


def test_a_family_is_added_in_under_60_lines() -> None:
    written = "".join(code(step) for step in steps("In Penstock", FAMILY) if "```py" in step)
    assert len(written.splitlines()) < 60


WORDS = "What is there?"
GREEDY = SamplingParams(max_tokens=12, temperature=0)
SHOWN = [media.picture(seed, 70, 90) for seed in (1, 2)]


def expected(model: Any, processor: Any, pixels: np.ndarray) -> str:
    """What plain `transformers` answers about a picture."""
    parts = [{"type": "image", "image": Image.fromarray(pixels)}, {"type": "text", "text": WORDS}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": parts}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=GREEDY.max_tokens, do_sample=False)
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


async def answers(path: Path) -> list[tuple[str, str]]:
    """What Penstock answers about each picture: to a prompt, and in a stream."""
    found = []
    async with await Engine.load(path, config=EngineConfig(kv_tokens=1024)) as engine:
        for pixels in SHOWN:
            parts = [{"type": "image", "image": pixels}, {"type": "text", "text": WORDS}]
            prompted = await engine.generate(Request(messages=[{"role": "user", "content": parts}]), GREEDY)
            async with await engine.stream(Request(format="turns")) as stream:
                await stream.append(penstock.Image(pixels))
                found.append((prompted, await (await stream.ask(WORDS, GREEDY)).text()))
    return found


def test_a_family_that_is_added_answers_as_transformers_does(vipllava: Path) -> None:
    from transformers import AutoProcessor, VipLlavaForConditionalGeneration

    loaded = load(vipllava, EngineConfig())
    assert type(loaded.towers).__name__ == "VipLlavaTowers"
    (segment,) = Timeline(loaded.family.spec).image(1, SHOWN[0]).segments
    assert [len(span.ids) for span, _ in loaded.towers.encode([(1, segment)])] == [loaded.towers.rows(segment)]
    model, processor = (kind.from_pretrained(vipllava) for kind in (VipLlavaForConditionalGeneration, AutoProcessor))
    wanted = [expected(model, processor, pixels) for pixels in SHOWN]
    assert wanted[0] != wanted[1]  # it sees
    assert asyncio.run(answers(vipllava)) == [(text, text) for text in wanted]


def test_a_picture_format_that_is_added_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    pixels = media.picture(1, 30, 40)
    Image.fromarray(pixels).save(file, "BMP")
    with pytest.raises(FormatError, match="got a BMP picture"):
        picture.decode_picture(file.getvalue())
    rooms = {"FORMATS": picture.FORMATS, "_MARKS": picture._MARKS}
    exec(code(steps("Add a codec")[0]), rooms)
    for name in ("FORMATS", "_MARKS"):
        monkeypatch.setattr(picture, name, rooms[name])
    assert (picture.decode_picture(file.getvalue()) == pixels).all()


def test_every_bench_has_a_test() -> None:
    benches = [name.removeprefix("penstock bench ") for name in COMMANDS if name.startswith("penstock bench ")]
    tests = (ROOT / "tests" / "server" / "test_bench.py").read_text(encoding="utf-8")
    assert benches and all(f'"bench", "{name}"' in tests for name in benches)


def test_every_recipe_names_the_tests_that_hold_it() -> None:
    recipes = re.findall(r"^## (Add a [\w ]+)$", PAGE, re.MULTILINE)
    assert len(recipes) == 4
    found = [(name, PAGE) for name in recipes if name != "Add a family of models"]
    for recipe, page in (*found, ("In a package of your own", FAMILY), ("In Penstock", FAMILY)):
        assert len(steps(recipe, page)) >= 3 and "`tests/" in page.split(f"## {recipe}\n")[1], recipe
