"""What the documentation says is so, where it can be looked up: commands, links, paths, errors, tables of formats."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import pytest
from pages import CARD, HISTORY, PAGES, ROOT, Block, anchors, blocks, prose, tables
from penstock.demos import live
from penstock.engine.config import EngineConfig
from penstock.engine.families import BUILT_IN
from penstock.engine.loading.open import load
from penstock.errors import InputError, PenstockError
from penstock.server import cli, errors
from penstock.streams.format import INTERRUPT, LIVE, PER_FRAME, TURNS, UNITS, Format
from penstock.streams.requests.request import FORMATS, Request
from PIL import Image

from tests.families.crossing import CROSSING
from tests.fixtures.recipe import model_path

MAKEFILE = (ROOT / "Makefile").read_text() + (ROOT / "demos" / "brook" / "recipe.mk").read_text()
NOT_OURS = ("mkdir", "python3", ".venv/bin/python", "sudo", ".", "ffmpeg", "curl")  # the system's own


def check_make(arguments: list[str]) -> None:
    """Every target and every variable is in the Makefile."""
    for argument in arguments:
        variable, is_set, _ = argument.partition("=")
        pattern = rf"^{variable} \?=" if is_set else rf"^{argument}:"
        assert re.search(pattern, MAKEFILE, re.MULTILINE), f"make knows no {argument}"


def check_penstock(arguments: list[str]) -> None:
    """The command line takes these arguments."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            cli._parser().parse_args(arguments)
        except SystemExit as left:
            assert left.code == 0, f"penstock does not take {' '.join(arguments)}"


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block, without comments, redirections and variables set in front."""
    piped = [part for line in block.text.splitlines() for part in re.split(r" \| ", line)]
    lines = [shlex.split(re.sub(r" [<>] .*", "", part), comments=True) for part in piped]
    while any(line and re.fullmatch(r"[A-Z_]+=.*", line[0]) for line in lines):
        lines = [line[1:] if line and re.fullmatch(r"[A-Z_]+=.*", line[0]) else line for line in lines]
    return [line for line in lines if line]


@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.name)
def test_commands_exist(block: Block) -> None:
    for name, *arguments in commands(block):
        if name == "make":
            check_make(arguments)
        elif name == "penstock":
            check_penstock(arguments)
        else:
            assert name in NOT_OURS, f"a command that nobody checks: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Path) -> None:
    for line in re.findall(r"`([^`\n]+)`", prose(page)):
        name, *arguments = line.split()
        if name == "make":
            check_make(arguments)
        elif name == "penstock" and arguments:
            check_penstock(arguments if len(arguments) > 1 else [*arguments, "--help"])
        elif line.startswith("python -m penstock"):
            assert importlib.util.find_spec(arguments[1]) is not None, line


@pytest.mark.parametrize("flag", ["--file", "--model", "--url"])
def test_flags_of_the_demo_exist(flag: str) -> None:
    live._parser().parse_args([flag, "x"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: no {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    folders = "codecs|streams|engine|actors|server|demos|tests|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./]*)`", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name}: no {path}"


def test_the_readme_and_the_card_are_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
    assert len(CARD.read_text().splitlines()) < 85


def test_the_readme_shows_the_page_in_motion() -> None:
    (name,) = re.findall(r"^!\[.+\]\((\S+)\)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    with Image.open(ROOT / name) as picture:
        assert getattr(picture, "n_frames", 1) >= 20 and picture.info["loop"] == 0, "expected a picture that moves"
    assert (ROOT / name).stat().st_size < 1_500_000


def test_the_card_has_the_results_of_the_examination() -> None:
    """Each kind of question, with its number, how many were right, and the best constant answer."""
    cells = [cell for row in tables(CARD, "kind") for cell in row]
    rows = [tuple(cells[start : start + 4]) for start in range(0, len(cells), 4)]
    examined = [row[:4] for row in tables(HISTORY, "kind") if row[2].endswith("%") and len(row) == 8]
    assert len(rows) > 20 and sorted(rows) == sorted(tuple(row) for row in examined)


def test_the_map_is_that_of_the_repository() -> None:
    tree = next(block.text for block in blocks("") if "codecs/  " in block.text)
    named, parent = [], ""
    for line in tree.splitlines():
        entry = line.split()[0]
        if line.startswith(" "):
            named.append(parent + entry)
        else:
            parent = entry
            named.append(entry)
    for path in named:
        assert (ROOT / path).exists(), path
    have = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert have <= {path.rstrip("/") for path in named}


def _classes(root: type[PenstockError]) -> set[type[PenstockError]]:
    found = {root}
    for child in root.__subclasses__():
        found |= _classes(child)
    return found


def _documented() -> list[type[PenstockError]]:
    """The errors that users meet; others stay inside the engine."""
    return [kind for kind in _classes(PenstockError) if kind.__module__ in (PenstockError.__module__, errors.__name__)]


def test_the_glossary_has_few_words_each_once() -> None:
    words = re.findall(r"^\| (?!word)([\w ]+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert words == sorted(set(words)) and 20 < len(words) <= 44


def test_the_tree_of_errors_is_that_of_the_code() -> None:
    known = {kind.__name__: (kind.code, kind.__mro__[1].__name__) for kind in _documented()}
    tree = next(block.text for block in blocks("") if block.page == "errors.md")
    written, above = {}, {-1: "Exception"}
    for line in tree.splitlines():
        name, code = re.findall(r"\w+", line)[:2]
        depth = line.index(name) // 4
        above[depth] = name
        written[name] = (code, above[depth - 1])
    assert written == known


def test_every_code_is_explained() -> None:
    codes = {kind.code for kind in _documented()}
    explained = {row[0].strip("`") for row in tables(ROOT / "docs" / "errors.md", "code")}
    assert explained == codes


def _written(rows: list[list[str]]) -> dict[tuple[str, str], tuple[str, str, str]]:
    return {(state, event): (before, after, follows) for state, event, before, after, follows in rows}


def _coded(format: Format) -> dict[tuple[str, str], tuple[str, str, str]]:
    return {
        (str(state), event): (" ".join(step.before), " ".join(step.after), str(step.state))
        for (state, event), step in format.table.items()
    }


def test_the_tables_of_formats_are_those_of_the_code() -> None:
    written = _written(tables(ROOT / "docs" / "formats.md", "state"))
    assert written == _coded(LIVE) == _coded(PER_FRAME) == _coded(UNITS)
    common = {key: row for key, row in written.items() if key in _coded(TURNS)}
    assert common == _coded(TURNS) == _coded(INTERRUPT)


def test_every_format_is_described() -> None:
    described = {row[0].strip("`") for row in tables(ROOT / "docs" / "formats.md", "format")}
    assert described == set(FORMATS) - {"auto"}
    for format in described:
        page = (ROOT / "docs" / f"format-{format}.md").read_text()
        assert page.startswith(f"# The format `{format}`\n") and f"](format-{format}.svg)" in page


def test_a_format_that_is_not_served_is_refused_as_its_page_says() -> None:
    page = (ROOT / "docs" / "format-grouped.md").read_text()
    assert page.startswith("# The format `grouped`\n") and "](format-grouped.svg)" in page
    with pytest.raises(InputError) as refused:
        Request(format="grouped").check()
    assert f"\n{refused.value}\n" in page


# Types that another one of the tables stands for; the last has a test of its own (tests/engine/test_tried_pictures.py).
_SAME = {"qwen2_5_omni_thinker", "qwen3_omni_moe_thinker", "qwen3_vl_moe"}


def test_the_table_of_families_has_every_family_of_streams_and_no_failure() -> None:
    """Whole prompts are tested apart."""
    rows = {row[0].strip("`"): row[1:] for row in tables(ROOT / "docs" / "families.md", "model type")}
    assert rows.keys() == BUILT_IN.keys() - _SAME - CROSSING.keys()
    for family, (one_shot, streamed, spliced, beside, prompts, broken, _sees) in rows.items():
        assert int(one_shot) >= 3, family
        assert all(int(count) >= 1 for count in (streamed, spliced, beside, prompts, broken)), family
    assert not any("failed" in cell for cells in rows.values() for cell in cells)


def test_the_table_of_models_is_what_is_loaded(tmp_path: Path) -> None:
    fixtures = {"qwen2": "text", "qwen2_5_omni": "omni", "qwen3_omni_moe": "qwen3_omni"}
    rows = {row[0].strip("`"): row[1:] for row in tables(ROOT / "docs" / "models.md", "model type")}
    assert rows.keys() == BUILT_IN.keys() - _SAME
    for model_type, written in rows.items():
        if model_type in CROSSING:
            folder = CROSSING[model_type](tmp_path / model_type)
        else:
            folder = model_path(fixtures.get(model_type, model_type))
        classes = load(folder, EngineConfig()).family.data.classes
        assert written == [classes.get(modality, "") for modality in ("image", "video", "audio", "unit")], model_type
