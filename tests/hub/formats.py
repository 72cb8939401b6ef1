"""The quantisation formats of the installed `transformers`, each with what a load of small checkpoints in it said here:
docs/quantised.md.

`python -m tests.hub.formats PACKAGES [NAME ...]` tries them, all or those that are named, and writes the page. Those
that need the same packages share a process (one_format.py). PACKAGES is a folder in which each package that a format
needs lies in a folder of its own, as `pip install --no-deps --target PACKAGES/NAME NAME` puts it there; what is not
there is tried without. What was found is kept in formats.json, so that the page can be made again.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

FAMILIES = (
    *("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "llava_onevision", "gemma3", "smolvlm"),
    *("omni", "qwen3_omni"),
)
ROOT = Path(__file__).parents[2]
PAGE, FOUND = ROOT / "docs" / "quantised.md", Path(__file__).with_name("formats.json")
# What is installed for a format beside `accelerate` and `psutil`.
NEEDS: dict[str, tuple[str, ...]] = {
    "torchao int8": ("torchao",),
    "torchao int8, activations too": ("torchao",),
    "torchao int4": ("torchao",),
    "torchao fp8": ("torchao",),
    "bitsandbytes_4bit": ("bitsandbytes",),
    "bitsandbytes_8bit": ("bitsandbytes",),
    "compressed-tensors int8": ("compressed_tensors", "loguru"),
    "compressed-tensors int4": ("compressed_tensors", "loguru"),
    "compressed-tensors int8, activations too": ("compressed_tensors", "loguru"),
    "compressed-tensors fp8, activations too": ("compressed_tensors", "loguru"),
    "quanto": ("optimum_quanto", "ninja"),
    "hqq": ("hqq", "einops", "termcolor"),
    "aqlm": ("aqlm", "scipy"),
    "vptq": ("vptq",),
    "fp_quant": ("fp_quant", "scipy"),
    "gptq": ("optimum", "gptqmodel", "datasets", "torchao"),
    "awq": ("gptqmodel", "datasets", "torchao"),
    "auto-round": ("auto_round", "py_cpuinfo", "datasets"),
}
_ALWAYS = ("accelerate", "psutil")
# How far our logits may be from those of the library's model: rounding of float32; or, where activations are rounded
# too, a part of what the format costs.
EXACT, SHARE = 1e-4, 0.7
HEAD = """# Quantised checkpoints

Made by `python -m tests.hub.formats` with transformers {library}, torch {torch}, on {machine} without CUDA. For each
format that `transformers` names, small checkpoints were written, one for words and one that also sees (Qwen2.5-VL, its
tower in floats), and loaded as `penstock serve` loads them. A format runs if the logits over pages, with media that
comes into a running reply, are those of the library's own model of the same weights. "Off by" is what the format costs:
the error of that model's logits beside the model in floats, root mean square in standard deviations (random weights
are off by more than trained ones). "Weights" is what the model takes of what it takes in floats; embeddings, output
layer and tower, which stay in floats, are most of so small a model. Where layers are no plain linear layers, the
decoder runs as the library has it, over the weights as they are stored; `fp8` the library itself puts into floats on a
CPU, and `compressed-tensors` anywhere. `torchao int4` is its `IntxWeightOnlyConfig`; `Int4WeightOnlyConfig` is written
and run on CUDA alone. `bitsandbytes_8bit` takes columns that are large in some row of a step in floats for all of its
rows, so what runs beside a stream changes its logits a little, by less than the format costs. "Not shown": no weight of
these models could be written in the format, so only its name was in the checkpoint. "Not tried": no run of it is
recorded.

"""
FAMILIES_HEAD = """## Families by name

Formats that run, in the families that are served by name, each with its towers in floats and with its towers in the
format too. "Yes": both are the library's own model of the same weights, in a stream and in one shot; where no
activations are rounded, token for token. "Decoder": only with the towers in floats. `gptq` and `awq` were tried
no other way.

"""
COLUMNS = ("format", "on a CPU", "packages", "off by", "weights", "held as, or why not")


def names() -> list[str]:
    """All formats; some by type."""
    typed = {name for name in NEEDS if " " in name}
    return sorted({*AUTO_QUANTIZATION_CONFIG_MAPPING} - {name.split()[0] for name in typed} | typed)


def main(packages: Path, wanted: list[str]) -> None:
    found = json.loads(FOUND.read_text()) if FOUND.is_file() else {}
    found = {name: said for name, said in found.items() if name in names()}
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in wanted or names():
        groups.setdefault(NEEDS.get(name, ()), []).append(name)
    for needs, group in groups.items():
        found |= tried(group, [packages / need for need in (*_ALWAYS, *needs)])
        lines = [f"{json.dumps(name)}: {json.dumps(said, sort_keys=True)}" for name, said in sorted(found.items())]
        FOUND.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    PAGE.write_text(page(found), encoding="utf-8")


def tried(group: list[str], packages: list[Path]) -> dict[str, Any]:
    """What a process of its own said of each of these formats, and the packages that it had."""
    there = [package for package in packages if package.is_dir()]
    paths = [os.environ.get("PYTHONPATH", ""), str(ROOT), *map(str, there)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.hub.one_format", folder, *group]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{group}: {done.stderr[-2000:]}")
    versions = {
        one.metadata["Name"]: one.version for place in there for one in metadata.distributions(path=[str(place)])
    }
    said = json.loads(done.stdout.splitlines()[-1])
    return {name: said[name] | {"packages": versions} for name in group}


def page(found: dict[str, Any]) -> str:
    head = HEAD.format(library=hf.__version__, torch=torch.__version__.partition("+")[0], machine=platform.machine())
    rows = [row(name, found[name]) if name in found else [f"`{name}`", "not tried", *[""] * 4] for name in names()]
    runs = sum(cells[1] == "runs" for cells in rows)
    return f"{head}Of {len(rows)} formats {runs} run on this CPU.\n\n{_table([COLUMNS, *rows])}\n\n{_families(found)}\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def _families(found: dict[str, Any]) -> str:
    """The part about the families by name; what is refused is told below its table."""
    refused: dict[str, list[str]] = {}
    rows: list[list[str]] = [["format", *FAMILIES]]
    for name, said in found.items():
        if not all(_runs(said[kind]) for kind in ("words", "pictures")) or FAMILIES[0] not in said:
            continue
        cells = []
        for family in FAMILIES:
            kept, towers = (_runs(one) for one in said[family])
            cells.append("yes" if kept and towers else "decoder" if kept else "no")
            for one, which in zip(said[family], ("", ", towers too"), strict=True):
                if not _runs(one) and "unwritten" not in one:
                    reason = _reason([one]).rpartition("its family says: ")[2].partition("; tried as any other")[0]
                    refused.setdefault(f"`{name}`{which}: {reason}", []).append(family)
        rows.append([f"`{name}`", *cells])
    notes = "\n".join(f"- {', '.join(which)} in {reason}" for reason, which in refused.items())
    return FAMILIES_HEAD + _table(rows) + ("\n\nNot so, and why:\n\n" + notes if notes else "")


def row(name: str, said: dict[str, Any]) -> list[str]:
    kinds = [said["words"], said["pictures"]]
    needed = ("accelerate", *NEEDS.get(name, ()))
    had = sorted((one.lower(), version) for one, version in said["packages"].items())
    packages = ", ".join(f"{one} {version}" for one, version in had if one.replace("-", "_") in needed)
    if all(_runs(kind) for kind in kinds):
        cost = max(kind["cost"] for kind in kinds)
        part = said["words"]["bytes"] / said["words"]["floats"]
        return [f"`{name}`", "runs", packages, f"{cost:.2g}", f"{part:.0%}", said["words"]["layer"]]
    return [f"`{name}`", *_why_not(kinds), "", "", _reason(kinds)]


def _runs(kind: dict[str, Any]) -> bool:
    """Loaded, its weights really in this format, and as the library's own model."""
    if not 0 < kind.get("cost", 0) or kind["gap"] > max(EXACT, SHARE * kind["cost"]):
        return False
    same, said = kind.get("same", (0, 0))
    return kind["gap"] > EXACT or same == said


def _why_not(kinds: list[dict[str, Any]]) -> list[str]:
    reason = _reason(kinds)
    if any(kind.get("cost") == 0 for kind in kinds):
        return ["not shown", ""]  # only its name could be put into a checkpoint
    if "expected a CUDA device" in reason:
        return ["needs CUDA", ""]
    package = next((part for part in reason.split("pip install '")[1:]), "").partition("'")[0]
    return ["refused: a package is missing", package] if package else ["refused", ""]


def _reason(kinds: list[dict[str, Any]]) -> str:
    said = next(kind for kind in kinds if not _runs(kind))
    nothing = "of these models it holds no weight" if said.get("cost") == 0 else "its logits are not the library's"
    return str(said.get("error") or said.get("failed") or said.get("unwritten") or nothing).replace("|", "\\|")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
