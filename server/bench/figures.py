"""What a benchmark says: figures with one value a round, as JSON lines or as a table.

In: figures. Out: text. It does not know how they were measured.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity.

    case: what ran, such as "image 448". what: what was measured of it. engine: who was measured. unit: "s", "ms",
    "tok/s", "%", "streams" or "x". rounds: the value of each round; null for one that failed. median: of the others;
    null if there are none. ratios: per round the quotient that `against` names; null where there is none to give.
    note: what a reader has to know, such as why there is no ratio.
    """

    bench: str
    case: str
    what: str
    unit: str
    rounds: list[float | None]
    engine: str = "penstock"
    against: str = ""
    ratios: list[float | None] = []
    note: str = ""
    median: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        for name, values in (("rounds", self.rounds), ("ratios", self.ratios)):
            kept = [None if one is None or not math.isfinite(one) else float(f"{one:.6g}") for one in values]
            msgspec.structs.force_setattr(self, name, kept)
        msgspec.structs.force_setattr(self, "median", _median(self.rounds))
        msgspec.structs.force_setattr(self, "ratio", _median(self.ratios))


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with what the figures were taken: the first line with `--json`, the heading of the table."""

    bench: str
    model: str
    dtype: str
    device: str
    processor: str
    cores: int
    rounds: int


def setting(bench: str, model: str | None, dtype: str, device: str, rounds: int) -> Setting:
    """That of this machine."""
    named = model or "Brook"
    return Setting(
        bench=bench,
        model=named,
        dtype=dtype,
        device=device,
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        rounds=rounds,
    )


def per_round(above: Sequence[float | None], below: Sequence[float | None]) -> list[float | None]:
    """`above / below` of each round that has both."""
    return [a / b if a is not None and b else None for a, b in zip(above, below, strict=True)]


def show(where: Setting, figures: Iterable[Figure], as_json: bool) -> None:
    """Print them on stdout: one JSON object a line, or a table."""
    figures = list(figures)
    if as_json:
        for line in (where, *figures):
            print(msgspec.json.encode(line).decode(), flush=True)
        return
    print(
        f"bench {where.bench}: {where.model}, {where.dtype} on {where.device}, {where.processor}, {where.cores} cores; "
        f"medians of {where.rounds} rounds"
    )
    rows = [["case", "what", "engine", "median", "rounds", "ratio", "ratios per round"]]
    rows += [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in dict.fromkeys(f"{one.case}, {one.engine}: {one.note}" for one in figures if one.note):
        print(note)
    sys.stdout.flush()


def progress(what: str) -> None:
    """Say on stderr what goes on."""
    print(f"penstock bench: {what}", file=sys.stderr, flush=True)


def _row(figure: Figure) -> list[str]:
    ratio = "" if figure.ratio is None else f"{_number(figure.ratio)} x {figure.against}"
    return [
        figure.case,
        figure.what,
        figure.engine,
        "not measured" if figure.median is None else f"{_number(figure.median)} {figure.unit}",
        " ".join(map(_number, figure.rounds)),
        ratio,
        " ".join(map(_number, figure.ratios)) if ratio else "",
    ]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
