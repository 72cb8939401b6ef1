"""Which Penstock this is. Out: a version, as the installed package says it."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Such as "0.1.0"; "(not installed)" where no package is."""
    try:
        return metadata.version("penstock")
    except metadata.PackageNotFoundError:
        return "(not installed)"
