"""The training's spoken words, said once and kept. In: nothing. Out: a `Bank`, from `$PENSTOCK_CACHE` or
`~/.cache/penstock` after the first time. Evaluation says its own.
"""

from __future__ import annotations

import functools
import os
import pickle
from pathlib import Path

from .foreign import spoken
from .sound import Bank

TAKES = 150


@functools.lru_cache(1)
def training_bank() -> Bank:
    """Every word in 150 takes. Takes from 10,000 on are left to evaluation."""
    root = Path(os.environ.get("PENSTOCK_CACHE") or Path.home() / ".cache" / "penstock")
    file = root / f"brook-words-{TAKES}-{len(spoken(0))}-voices.pickle"
    if not file.is_file():
        root.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_bytes(pickle.dumps(Bank(range(TAKES), half=0)))
        draft.rename(file)
    return pickle.loads(file.read_bytes())
