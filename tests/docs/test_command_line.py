"""The page about the command line has the commands and options of the parser, no more and no fewer."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

import pytest
from pages import ROOT, blocks, tables
from penstock.server import cli

PAGE = ROOT / "docs" / "command-line.md"


def parsers(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands that do something, by name."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for word, child in group.choices.items():
            yield from parsers(child, f"{name} {word}")
    if not groups:
        yield name, parser


COMMANDS = dict(parsers(cli._parser(), "penstock"))


def sections() -> dict[str, str]:
    """The text below each heading that is a command."""
    parts = re.split(r"^## (penstock .*)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_a_section_and_a_row() -> None:
    assert set(sections()) == set(COMMANDS)
    listed = {re.findall(r"`([^`]+)`", row[0])[0] for row in tables(PAGE, "command")}
    assert listed == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command_are_those_of_the_parser(command: str) -> None:
    actions = [action for action in COMMANDS[command]._actions if not isinstance(action, argparse._HelpAction)]
    expected = {action.option_strings[-1] for action in actions if action.option_strings}
    if command == "penstock config":  # its section names those of `serve` by one link
        assert "(#penstock-serve)" in sections()[command]
        expected = {"--json"}
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", sections()[command], re.MULTILINE)) == expected


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_an_example(command: str) -> None:
    examples = [line for block in blocks("sh") if block.page == PAGE.name for line in block.text.splitlines()]
    assert any(re.search(rf"(^|[ |]){command}( |$)", line) for line in examples)
