"""Which towers and decoders `transformers` composes into a LLaVA that is served, from loads: docs/compositions.md.

`python -m tests.families.compositions` writes the page.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families.tried_towers import TriedTowers
from penstock.engine.loading.open import load
from penstock.errors import ModelError

from .census import _short, table
from .composed import PAIRS, SIGHTS, TEXTS, compose

PAGE = Path(__file__).parents[2] / "docs" / "compositions.md"
HEAD = f"""# Any tower with any decoder

Some configurations of `transformers` name a tower and a decoder of any kind: `LlavaConfig` has a `vision_config` and a
`text_config`. Penstock takes what the library puts together. A decoder that the tests of the families do not hold is
compared with the library's forward pass when it is loaded. A tower of another kind than CLIP's has to give as many rows
as the family counts, or the whole model is [tried](models.md#any-other-model). What does not pass is refused.

Made by `make features` with transformers {hf.__version__}, from loads of small random models. "By name": the family of
LLaVA. "Tried": the generic way. `tests/families/test_composed.py` compares one shot and media in mid-reply with the
library for each pair that is served. Classes that compose an encoder with a decoder that reads its states
(`vision-encoder-decoder`) have no rows in a cache; [every-model.md](every-model.md) has their reasons.

"""


def main() -> None:
    rows = [["tower", "decoder", "how", "why not"], ["---"] * 4, *(_row(sight, text) for sight, text in PAIRS)]
    served = sum(bool(row[2]) for row in rows[2:])
    told = f"Served: {served} of {len(PAIRS)} pairs, with {len(SIGHTS)} towers and {len(TEXTS)} decoders.\n\n"
    PAGE.write_text(HEAD + told + table(rows), encoding="utf-8")


def _row(sight: str, text: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        try:
            towers = load(compose(Path(folder), sight, text), EngineConfig()).towers
        except ModelError as error:
            why = _short(str(error).replace(folder, "it")).split("; tried as any other: ")[-1]
            return [f"`{sight}`", f"`{text}`", "", why]
    return [f"`{sight}`", f"`{text}`", "tried" if isinstance(towers, TriedTowers) else "by name", ""]


if __name__ == "__main__":
    main()
