"""The one door to `transformers`: its optional wheels are mended before it is imported, since it looks at them then."""

from __future__ import annotations

from ...codecs.wheels import mend_wheels

mend_wheels()

import transformers  # noqa: E402 (the mending has to come first)

transformers.logging.disable_progress_bar()
# Nobody is asked whether a checkpoint's code shall be run.
transformers.dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # pyright: ignore[reportAttributeAccessIssue]

__all__ = ("transformers",)
