"""What the words of a command line stand for: numbers, settings and folders. In: a word. Out: its value, or an error
that says what was expected.
"""

from __future__ import annotations

import argparse


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None


def number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None


def count(text: str) -> int:
    """A whole number from 1 on."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return value


def setting(text: str) -> tuple[str, bool | int | float]:
    """A name and its value: true, false or a number."""
    name, equals, value = text.partition("=")
    words = {"true": True, "false": False}
    try:
        if name and equals:
            return name, words[value] if value in words else float(value) if "." in value else int(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, NAME=true or NAME=false, got {text!r}")


def positive(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return value


def folder_by_name(text: str) -> tuple[str, str]:
    """A name and a folder."""
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"expected NAME=FOLDER, got {text!r}")
    return name, folder
