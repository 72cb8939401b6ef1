"""`penstock completion`: a script that completes the command line, made from its parser. Knows shtab."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import shtab

SHELLS = ("bash", "zsh", "fish")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for `shell`, one of `SHELLS`: paths are completed where the parser takes a `Path`, or media."""
    for action in _actions(parser):
        if action.type is Path or action.dest in ("words", "model"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(parser, shell=shell)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
