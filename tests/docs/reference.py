"""The pages in docs/reference/, made from docstrings and signatures: `make reference` writes them.

In: the source files of the public classes, as text; nothing of the package is imported. Out: pages. In a docstring a
line `name: words`, or `name, name: words`, says what fields or parameters are; lines that are indented belong to it.
"""

from __future__ import annotations

import ast
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
WIDTH = 120
# How members are used that nobody calls by name.
USES = {"Stream.__anext__": "async for event in stream", "Reply.__aiter__": "async for token in reply"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Names = tuple[str, ...]


class Page(NamedTuple):
    """One page: its title, the file that it is made of, its classes, and the members of each that users call."""

    title: str
    source: str
    classes: dict[str, Names]
    introduced: bool = False  # it begins with the docstring of the file, which explains fields that classes share


ADAPTERS = ("load_adapter", "unload_adapter")
REPLIES = ("stream", "restore", "generate", "generate_all")
ENGINE = ("load", *REPLIES, *ADAPTERS, "close", "until_failed", "statistics", "check")
TALK = ("append", "ask", "watch", "prompted", "interrupt", "listen", "end", "fork", "aside")
STREAM = (*TALK, "snapshot", "transcript", "close")
TOLD = ("Appended", "ReplyStarted", "Token", "Resting", "ReplyDone", "Dropped", "Credit", "Held", "Evicted")
EVENTS = (*TOLD, "MediaDecoded", "SpeechStarted", "SpeechStopped", "Error", "Closed")
PARTS = ("Seen", "TranscriptRow", "Usage")
ITEMS = ("Text", "Image", "VideoFrame", "VideoBytes", "AudioChunk", "AudioBytes", "Embedding")
PAGES = {
    "engine": Page("`Engine`", "actors/engine.py", {"Engine": ENGINE, "EngineInfo": ()}),
    "stream": Page("`Stream`", "actors/stream.py", {"Stream": (*STREAM, "__anext__", "credit_bytes", "closed")}),
    "reply": Page("`Reply`", "actors/reply.py", {"Reply": ("__aiter__", "text", "count")}),
    "events": Page("Events", "streams/event.py", dict.fromkeys((*EVENTS, *PARTS), ()), introduced=True),
    "items": Page("Items", "streams/item.py", dict.fromkeys(ITEMS, ()), introduced=True),
    "request": Page("`Request`", "streams/requests/request.py", {"Request": ("check",)}),
    "window": Page("`Window`", "streams/requests/window.py", {"Window": ("check",)}),
    "turn-detection": Page("`TurnDetection`", "streams/requests/turns.py", {"TurnDetection": ("check",)}),
    "sampling-params": Page(
        "`SamplingParams`", "streams/requests/request.py", {"SamplingParams": ("check",), "Sampling": ()}
    ),
    "structured": Page("`Structured`", "streams/requests/structured.py", {"Structured": ("check",)}),
    "engine-config": Page("`EngineConfig`", "engine/config.py", {"EngineConfig": ()}),
}


def page(name: str) -> str:
    """The text of one page."""
    title, source, classes, introduced = PAGES[name]
    module = parsed(ROOT / source)
    found = {kind: known for kind in classes if (known := defined(kind, ROOT / source))}
    shared = dict.fromkeys(docstring(module)[1], "as above.") if introduced else {}
    made = [f"# {title}", f"*Made by `make reference` from the docstrings of `{source}`.*"]
    if introduced:
        made += written(module)
    for kind, members in classes.items():
        made += [] if title == f"`{kind}`" else [f"## {kind}"]
        node, home = found[kind]
        made += written(node, fields(node), shared)
        usable = methods(node, home)
        for member in members:
            use = USES.get(f"{kind}.{member}")
            made.append(f"## {use or member}")
            if use is None:
                made += called(usable[member])
            made += written(usable[member])
    return "\n\n".join(made) + "\n"


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def methods(kind: ast.ClassDef, file: Path) -> dict[str, Function]:
    """The methods of a class of `file`, those of its bases in the package included."""
    found: dict[str, Function] = {}
    for base in reversed(kind.bases):
        home = defined(ast.unparse(base).partition("[")[0], file)
        found |= {} if home is None else methods(*home)
    return found | {node.name: node for node in kind.body if isinstance(node, Function)}


def defined(name: str, file: Path) -> tuple[ast.ClassDef, Path] | None:
    """The class that a file calls `name`, and where it stands; None for one from outside the package."""
    for node in parsed(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, file
        if isinstance(node, ast.ImportFrom) and node.level and name in [alias.name for alias in node.names]:
            return defined(name, file.parents[node.level - 1] / f"{(node.module or '').replace('.', '/')}.py")
    return None


def fields(kind: ast.ClassDef) -> dict[str, str]:
    """The fields of a class of plain data: type and default of each. Other classes have none."""
    if not any(ast.unparse(base).endswith("Struct") for base in kind.bases):
        return {}
    lines = [node for node in kind.body if isinstance(node, ast.AnnAssign)]
    return {ast.unparse(node.target): declared(node.annotation, node.value) for node in lines}


def declared(annotation: ast.expr | None, default: ast.expr | None) -> str:
    """A type and a default, as they are written in code."""
    kind = "" if annotation is None else ast.unparse(annotation)
    if default is None:
        return kind
    return f"{kind} = {literal(default)}"


def literal(value: ast.expr) -> str:
    """A default in double quotes where it is text, as our code has it."""
    text = ast.unparse(value)
    return f'"{text[1:-1]}"' if text.startswith("'") else text


def called(method: Function) -> list[str]:
    """How a method is called, without `self`; nothing for a property."""
    if any(ast.unparse(decorator) == "property" for decorator in method.decorator_list):
        return []
    managed = any(ast.unparse(decorator) == "asynccontextmanager" for decorator in method.decorator_list)
    plain, keywords = method.args.args[1:], method.args.kwonlyargs
    defaults = [None] * (len(method.args.args) - len(method.args.defaults)) + method.args.defaults
    listed = [parameter(*pair) for pair in zip(plain, defaults[1:], strict=True)]
    if keywords:
        listed += ["*", *(parameter(*pair) for pair in zip(keywords, method.args.kw_defaults, strict=True))]
    awaited = "async with " if managed else "await " if isinstance(method, ast.AsyncFunctionDef) else ""
    name = f"{awaited}{method.name}"
    gives = "" if method.returns is None else f" -> {ast.unparse(method.returns)}"
    if managed:
        gives = gives.replace("-> AsyncIterator[", "as ").removesuffix("]")
    line = f"{name}({', '.join(listed)}){gives}"
    if len(line) > WIDTH - 20:
        line = "\n".join([f"{name}(", *(f"    {one}," for one in listed), f"){gives}"])
    return [f"```\n{line}\n```"]


def parameter(argument: ast.arg, default: ast.expr | None) -> str:
    return f"{argument.arg}: {declared(argument.annotation, default)}"


def written(
    node: ast.Module | ast.ClassDef | Function,
    declared: dict[str, str] | None = None,
    shared: dict[str, str] | None = None,
) -> list[str]:
    """The paragraphs of a docstring, its fields as a list. `declared` are the fields that there are, by their names;
    those that the docstring does not explain, `shared` has to. Raises ValueError where these are not the same fields.
    """
    paragraphs, meanings = docstring(node)
    if declared:
        told = {name: meanings.get(name) or (shared or {}).get(name, "") for name in declared}
        wrong = [name for name in (*told, *meanings) if not told.get(name)]
        if wrong:
            raise ValueError(f"expected fields that are declared and explained, got {', '.join(wrong)}")
        meanings = told
        paragraphs = paragraphs if None in paragraphs else [*paragraphs, None]
    made = []
    for paragraph in paragraphs:
        made += [wrapped(paragraph)] if paragraph is not None else [listed(meanings, declared or {})]
    return made


def docstring(node: ast.Module | ast.ClassDef | Function) -> tuple[list[str | None], dict[str, str]]:
    """The paragraphs of a docstring, with None where its fields stand, and what it says of each field."""
    paragraphs: list[str | None] = []
    meanings: dict[str, str] = {}
    for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
        if not re.match(r"[a-z_]+(, [a-z_]+)*: ", paragraph):
            paragraphs.append(paragraph)
            continue
        paragraphs.append(None)
        for entry in re.split(r"\n(?! )", paragraph):
            names, _, words = entry.partition(": ")
            meanings |= dict.fromkeys(names.split(", "), " ".join(words.split()))
    return paragraphs, meanings


def listed(meanings: dict[str, str], declared: dict[str, str]) -> str:
    """Fields as a list; those that are explained by the same words stand together."""
    together: dict[str, list[str]] = {}
    for name, words in meanings.items():
        sign = f": `{declared[name]}`" if name in declared else ""
        together.setdefault(words, []).append(f"**`{name}`**{sign}")
    between = "<br>" if declared else ": "
    return "\n".join(wrapped(f"- {', '.join(names)}{between}{words}", "  ") for words, names in together.items())


def wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in PAGES:
        (FOLDER / f"{name}.md").write_text(page(name), encoding="utf-8")
