"""docs/add-a-family.md, followed: the package among the demos is installed with pip, found, and answers as the library
does. A package that is not what it should be is named."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import penstock
import penstock.families
import pytest
import torch
from pages import ROOT
from penstock import Engine, EngineConfig, ModelError, Request, SamplingParams
from penstock.engine import families
from penstock.engine.loading.open import load
from test_contributing import FAMILY, code, steps

from tests.conftest import ANNOUNCED
from tests.fixtures.recipe import model_path
from tests.reference import media

TOY = ROOT / "demos" / "toy-family"
WORDS = "What is there?"
GREEDY = SamplingParams(max_tokens=8, temperature=0)
SHOWN = [media.picture(seed, 40, 60) for seed in (1, 2)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of packages with the Toy's, and below it the checkpoint `toy`: made by the commands of the page."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(TOY, home / "demos" / "toy-family")
    site = home / "site"
    install, write = code(steps("In a package of your own", FAMILY)[3], "sh").splitlines()
    offline = install.replace("pip install", f"pip install -q --no-index --no-build-isolation --target {site}")
    done = subprocess.run(
        [sys.executable, *offline.split()[1:]], cwd=home, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    _, script, folder = write.split()
    runpy.run_path(str(home / script))["main"](str(home / folder))  # in this process, which is quicker
    yield site
    sys.path.remove(str(site))


@pytest.fixture(scope="module")
def expected(site: Path) -> list[str]:
    """What plain `transformers` answers about each picture."""
    importlib.import_module("toy_family")
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model: Any
    processor: Any
    model, processor = (
        kind.from_pretrained(site.parent / "toy") for kind in (AutoModelForImageTextToText, AutoProcessor)
    )
    said = []
    for pixels in SHOWN:
        parts = [{"type": "image", "image": Image.fromarray(pixels)}, {"type": "text", "text": WORDS}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=GREEDY.max_tokens, do_sample=False)
        said.append(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    assert said[0] != said[1] and all(said)  # it sees
    return said


def asked(pixels: np.ndarray) -> Request:
    parts = [{"type": "image", "image": pixels}, {"type": "text", "text": WORDS}]
    return Request(messages=[{"role": "user", "content": parts}])


def test_the_toy_answers_as_transformers_does(site: Path, expected: list[str]) -> None:
    async def main() -> list[tuple[str, str]]:
        found = []
        async with await Engine.load(site.parent / "toy", config=EngineConfig(kv_tokens=1024)) as engine:
            assert engine.info.family == "toy" and engine.info.classes == {"image": "A"}
            for pixels in SHOWN:
                prompted = await engine.generate(asked(pixels), GREEDY)
                async with await engine.stream(Request(format="turns")) as stream:
                    await stream.append(penstock.Image(pixels))
                    found.append((prompted, await (await stream.ask(WORDS, GREEDY)).text()))
        return found

    assert asyncio.run(main()) == [(text, text) for text in expected]


@pytest.mark.slow
def test_the_toy_is_served(site: Path, expected: list[str]) -> None:
    serve = [sys.executable, "-m", "penstock.server.cli", "serve", "toy", "--port", "0", "--device", "cpu"]
    env = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}

    async def main(url: str) -> list[str]:
        async with penstock.connect(url) as connection:
            return [await connection.generate(asked(pixels), GREEDY) for pixels in SHOWN]

    with subprocess.Popen(serve, cwd=site.parent, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCED)
            assert asyncio.run(main(line.removeprefix(ANNOUNCED).strip())) == expected
        finally:
            process.terminate()


def test_the_module_is_short_and_uses_public_names() -> None:
    text = (TOY / "toy_family.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    taken = [
        (node.module, {alias.name for alias in node.names})
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("penstock")
    ]
    assert [module for module, _ in taken] == ["penstock.families"]
    assert taken[0][1] <= set(penstock.families.__all__)


def test_every_name_of_the_page_is_public() -> None:
    public = set(penstock.families.__all__)
    assert all(hasattr(penstock.families, name) for name in public)
    named = set(FAMILY.split("## In Penstock")[0].split("`"))
    used = {"ATTENTION", "Loaded", "OneAxisTowers", "Towers", "learn", "load_one_axis", "load_text", "open_model"}
    assert used | {"tower_pass"} <= named & public


NO_METHODS = """
from pathlib import Path
from typing import Any
from penstock.families import load_text
class Half:
    blocks = []
    def rows(self, segment): return 4
def load(path, *where): return load_text(Path(TEXT), *where)._replace(towers=Half())
"""
BROKEN = {
    "raises at import": (
        "import no_such_package",
        "got ModuleNotFoundError: No module named 'no_such_package' when it",
    ),
    "no load": ("towers = 3", "got AttributeError: .* has no attribute 'load' when it was imported"),
    "no function": ("load = 3", "expected a function load.path, dtype, device. -> Loaded, got int"),
    "raises": ("def load(path): pass", r"got TypeError: load\(\) takes 1 positional argument but 3 were given"),
    "another type": ("def load(*where): return where", "expected Loaded from load, got tuple"),
    "no towers": (NO_METHODS, "expected towers with knows, takes, .*, got Half without"),
}


def package(folder: Path, name: str, module: str, model_type: str) -> None:
    """A package as pip would leave it."""
    (folder / f"{name}.py").write_text(module, encoding="utf-8")
    about = folder / f"{name}-2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[penstock.families]\n{model_type} = {name}:load\n", encoding="utf-8")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a type that Penstock does not name."""
    shutil.copytree(model_path("llava"), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "vipllava"}))
    return tmp_path / "model"


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_package_is_named(
    name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, why = BROKEN[name]
    theirs = f"their_{name.replace(' ', '_')}"
    package(tmp_path, theirs, module.replace("TEXT", repr(str(model_path("text")))), "vipllava")
    monkeypatch.syspath_prepend(tmp_path)
    assert not families.is_tried("vipllava")
    named = f"the package {theirs} 2 registers {theirs}:load in penstock.families for 'vipllava': .*{why}"
    with pytest.raises(ModelError, match=named) as refused:
        load(checkpoint, EngineConfig())
    assert "\n" not in str(refused.value)


def test_a_package_that_brings_no_configuration_is_told_so(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "their_types", "def load(*where): pass", "no_such_type")
    monkeypatch.syspath_prepend(tmp_path)
    (checkpoint / "config.json").write_text('{"model_type": "no_such_type"}')
    with pytest.raises(ModelError, match=r"expected AutoConfig.register\('no_such_type', ...\) where it is imported"):
        load(checkpoint, EngineConfig())


def test_two_packages_for_one_type_are_refused_with_both(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("their_one", "their_two"):
        package(tmp_path, name, "def load(*where): pass", "vipllava")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(entry_points(group="penstock.families", name="vipllava")) == 2
    with pytest.raises(ModelError, match=r"expected one package .*, got their_one 2 .* and their_two 2"):
        load(checkpoint, EngineConfig())


def test_a_family_of_penstock_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "their_llava", "def load(*where): pass", "llava")
    monkeypatch.syspath_prepend(tmp_path)
    assert load(model_path("llava"), EngineConfig()).family.data.name == "llava"
