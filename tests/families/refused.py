"""Model types that are refused, each with the reason that a load of it must say."""

from __future__ import annotations

from typing import NamedTuple

from .suite import Builder


class Refusal(NamedTuple):
    """`build` makes a small checkpoint; None: its configuration alone is refused. `why`: words of the reason."""

    build: Builder | None
    why: str


REFUSED: dict[str, Refusal] = {}
