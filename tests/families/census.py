"""Every multimodal model type of the installed `transformers`, each with what a load of it said: docs/every-model.md.

`python -m tests.families.census` writes the page. It builds a small random model of each type that the suite has and
loads it. Of any other type it asks what the engine says of the library's default configuration.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families import BUILT_IN, check_config, loader
from penstock.engine.families.tried import check_tried
from penstock.engine.loading.open import load
from penstock.errors import ModelError
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

from .built import BUILDERS, TYPES
from .crossing import CROSSING
from .refused import REFUSED
from .suite import Builder

PAGE = Path(__file__).parents[2] / "docs" / "every-model.md"
HEAD = f"""# Every multimodal model of transformers

Made by `make features` with transformers {hf.__version__}, from loads of small random models. A letter is a
[streamability class](formats.md#how-exact-streamability-classes). "By name": a family of Penstock's own, tested in
[families.md](families.md) or, where words read media by cross-attention, in `tests/families/test_crossing.py`. "Tried":
the generic way ([models.md](models.md#any-other-model)); the suite `tests/families` holds its answers against the
library's. A type that is not served has its reason. "No small model yet" means that the suite has none of it: at load
it is tried like any other.

"""
COLUMNS = ("model type", "how", "image", "video", "sound", "why not")
_NOBODY = "no small model yet"


def main() -> None:
    rows = [row(model_type) for model_type in sorted({*MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES, *TYPES, *CROSSING})]
    served = sum(bool(cells[1]) for cells in rows)
    told = f"Served: {served} of {len(rows)} types.\n\n"
    PAGE.write_text(HEAD + told + table([list(COLUMNS), ["---"] * len(COLUMNS), *rows]), encoding="utf-8")


def row(model_type: str) -> list[str]:
    """The cells of one type."""
    name = f"`{model_type}`"
    if model_type in BUILT_IN:
        return [name, "by name", *_letters(_native(model_type)), ""]
    if model_type in REFUSED:
        return [name, "", "", "", "", _said(REFUSED[model_type].build, model_type)]
    if model_type in BUILDERS:
        with tempfile.TemporaryDirectory() as folder:
            data = load(BUILDERS[model_type].build(Path(folder)), EngineConfig()).family.data
        left = [f"{kind}: {why}" for kind, why in data.left_out.items() if not why.startswith("expected")]
        return [name, "tried", *_letters(data.classes), "; ".join(left)]
    return [name, "", "", "", "", _by_configuration(model_type)]


def _native(model_type: str) -> dict[str, str]:
    if model_type in CROSSING:
        with tempfile.TemporaryDirectory() as folder:
            return load(CROSSING[model_type](Path(folder)), EngineConfig()).family.data.classes
    from tests.features import MODEL_TYPES
    from tests.fixtures.loaded import served

    fixtures = {known: fixture for fixture, known in MODEL_TYPES.items()}
    whole = {"qwen3_vl_moe": "qwen3_vl"}.get(model_type, model_type.removesuffix("_thinker"))
    return served(fixtures.get(whole, whole)).family.data.classes


def _letters(classes: dict[str, str]) -> list[str]:
    return [classes.get(kind, "") for kind in ("image", "video", "audio")]


def _said(build: Builder | None, model_type: str) -> str:
    """What a load of its small model says; of a type without one, of its configuration."""
    if build is None:
        return _by_configuration(model_type)
    with tempfile.TemporaryDirectory() as folder:
        try:
            load(build(Path(folder)), EngineConfig())
        except ModelError as error:
            return _short(str(error).removeprefix(f"{folder}: "))
    raise AssertionError(f"{model_type} is served")


def _by_configuration(model_type: str) -> str:
    """What the engine says of the library's default configuration."""
    try:
        loader(model_type)
        config = hf.AutoConfig.for_model(model_type)
        check_config(config)
        check_tried(config)
    except ModelError as error:
        return _short(str(error))
    except Exception as error:  # some have no default
        return f"{_NOBODY} ({type(error).__name__})"
    return _NOBODY


def _short(error: str) -> str:
    """The reason alone."""
    return error.split("is not served: ", 1)[-1].split("; served are", 1)[0].replace("|", "\\|")


def table(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


if __name__ == "__main__":
    main()
