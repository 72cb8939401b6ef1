"""What a trial has found, as plain data, so that where the other half of the model is nothing has to be tried again.
In: towers that were tried. Out: `TrialFindings`, which other towers of the same checkpoint are given.
"""

from __future__ import annotations

from copy import copy

import msgspec
import numpy as np
import torch

from ...errors import ModelError
from ...streams.segment import Option
from ..encoding import decoder, encode
from ..family import Loaded
from ..logits import LogitRule
from .together import Ahead, Together
from .tried_towers import TriedTowers

# What is the same data in towers and findings.
_SAME = (
    *("streamed", "clip_frames", "least_frames", "video_more", "block_seconds", "longest_seconds"),
    *("tells_times", "times_inside", "exact_frames"),
)


class TrialFindings(msgspec.Struct, frozen=True):
    """Of one checkpoint. Fields that towers have too are what they are there (tried_towers.py).

    missing: what is not served, with the reasons. types: by the name of the decoder's argument, the numbers of ids that
    are not 0. template: the chat template with which it was tried. scale, cap, shut, width: the rule of its logits, and
    of how many words. word_marks: `Loaded.marks`.
    """

    streamed: dict[str, str]
    missing: dict[str, str]
    marks: dict[str, list[int]]
    nested: list[str]
    unwritten: list[str]
    clip_frames: int
    least_frames: int
    video_more: dict[str, bool]
    block_seconds: float
    longest_seconds: float | None
    ways: dict[str, tuple[int, bool]]
    tells_times: bool
    times_inside: bool
    exact_frames: int | None
    plain: list[str]
    exclusive: list[str]
    options: dict[str, Option]
    by_length: bool
    types: dict[str, dict[int, int]]
    template: str
    scale: float
    cap: float | None
    shut: list[int]
    width: int
    word_marks: list[int]


def findings_of(towers: TriedTowers, loaded: Loaded) -> TrialFindings:
    """What was found of these, as it is after it was sent."""
    shut = loaded.drawn.shut
    found = TrialFindings(
        **{name: copy(getattr(towers, name)) for name in _SAME},
        missing=dict(loaded.family.data.left_out),
        marks={kind: ids.tolist() for kind, ids in towers.marks.items()},
        nested=list(towers.nested),
        unwritten=sorted(towers.unwritten),
        ways={kind: (int(ahead.way), ahead.in_windows) for kind, ahead in towers.ways.items()},
        plain=sorted(towers.plain),
        exclusive=sorted(towers.exclusive),
        options=dict(towers.options.found),
        by_length=towers.options.by_length,
        types={name: _numbers(table) for name, table in towers.types.tables.items()},
        template=str(towers.processor.chat_template),
        scale=loaded.drawn.scale,
        cap=loaded.drawn.cap,
        shut=[] if shut is None else shut.nonzero().flatten().tolist(),
        width=0 if shut is None else len(shut),
        word_marks=sorted(loaded.marks),
    )
    return decoder(TrialFindings).decode(encode(found))


def take_findings(towers: TriedTowers, found: TrialFindings) -> None:
    """Make these towers such as the ones that were tried. ModelError where they differ by their classes already, or
    write other prompts."""
    other = [kind for kind in found.streamed if kind not in towers.senses]
    if other:
        raise ModelError(f"expected a model of which {', '.join(found.streamed)} can be served, got no {other[0]}")
    if str(towers.processor.chat_template) != found.template:
        raise ModelError("chat_template: expected the one with which its encoder was tried, got another")
    for kind in [kind for kind in towers.senses if kind not in found.streamed]:
        towers.leave_out(kind)
    for name in _SAME:
        setattr(towers, name, copy(getattr(found, name)))
    towers.marks = {kind: np.array(ids, dtype=np.int64) for kind, ids in found.marks.items()}
    towers.nested, towers.unwritten = tuple(found.nested), frozenset(found.unwritten)
    towers.ways = {kind: Ahead(Together(way), in_windows) for kind, (way, in_windows) in found.ways.items()}
    towers.plain, towers.exclusive = set(found.plain), set(found.exclusive)
    towers.options.found, towers.options.by_length = dict(found.options), found.by_length
    towers.types.take(found.types)


def rule_of(found: TrialFindings, device: torch.device) -> LogitRule:
    """What the model does with its logits."""
    shut = None
    if found.width:
        shut = torch.zeros(found.width, dtype=torch.bool, device=device)
        shut[found.shut] = True
    return LogitRule(found.scale, found.cap, shut)


def _numbers(table: torch.Tensor) -> dict[int, int]:
    where = table.nonzero().flatten()
    return dict(zip(where.tolist(), table[where].tolist(), strict=True))
