"""The one door to `transformers`: its optional wheels are mended before it is imported, since it looks at them then."""

from __future__ import annotations

import traceback
from pathlib import Path

from ...codecs.wheels import mend_wheels

mend_wheels()

import transformers  # noqa: E402 (the mending has to come first)

transformers.logging.disable_progress_bar()
# Nobody is asked whether a checkpoint's code shall be run.
transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ("said_where", "transformers")


def said_where(error: Exception) -> str:
    """What an error says, and in which of the library's files it came up."""
    folder = Path(transformers.__file__).parent
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    own = [file.name for file in files if folder in file.parents]
    where = f"in the library's own {own[-1]}, " if own else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"
