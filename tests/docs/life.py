"""The drawings of docs/life.md, made from the tables of engine/conversation/rules.py. `make life` writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from penstock.engine.conversation.rules import MEDIA, READER, RULES, WHERE, Life

PAGE = Path(__file__).parents[2] / "docs" / "life.md"


def reply() -> str:
    """The life of a question and of its reply. Arrows between the same two lives are one, with a line each."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (life, what), rule in RULES.items():
        if rule.life is life and not rule.does:
            continue  # it changes nothing
        arrows.setdefault((life, rule.life), []).append(f"{what} / {rule.does}" if rule.does else what)
    lines = ["stateDiagram-v2", f"    [*] --> {Life.QUEUED}"]
    lines += [f"    {start} --> {stop}: {'<br>'.join(names)}" for (start, stop), names in arrows.items()]
    return "\n".join([*lines, f"    {Life.DONE} --> [*]", f"    {Life.REFUSED} --> [*]"])


def of_stream(table: Mapping[Any, StrEnum]) -> str:
    """One of the tables of a stream; the first state is that in which it begins."""
    first = next(iter(table))[0]
    names = {state: state.name.lower() for state, _ in table}
    lines = ["stateDiagram-v2", f"    [*] --> {names[first]}"]
    arrows: dict[tuple[StrEnum, StrEnum], list[str]] = {}
    for (start, what), stop in table.items():
        if start is not stop:
            arrows.setdefault((start, stop), []).append(what)
    return "\n".join(
        [*lines, *(f"    {names[a]} --> {names[b]}: {'<br>'.join(whats)}" for (a, b), whats in arrows.items())]
    )


def table() -> str:
    """Every rule."""
    rows = [f"| {life} | {what} | {rule.life} | {rule.does} |" for (life, what), rule in RULES.items()]
    return "\n".join(
        ["| in this life | if this happens | the life is then | and this is done |", "|---|---|---|---|", *rows]
    )


def written(page: str) -> str:
    """The page with what the tables say now."""
    drawings = {"reply": reply(), "media": of_stream(MEDIA), "where": of_stream(WHERE), "reader": of_stream(READER)}
    parts = {name: f"```mermaid\n{drawing}\n```" for name, drawing in drawings.items()} | {"table": table()}
    for name, text in parts.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        assert marks.search(page), f"expected the marks of {name}"
        page = marks.sub(lambda match, text=text: f"{match[1]}{text}\n{match[2]}", page)
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
