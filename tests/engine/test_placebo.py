"""What the model says next hangs on what was appended, and nothing before it does.

The same stream is played twice with everything in the same place, but for the pixels of the second append.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from penstock.engine.family import Loaded
from penstock.streams.event import Appended, Seen, Token

from tests.reference.media import frames, picture

from .rig import FRAME_US, Rig, Session

BEFORE, AFTER = 6, 10
FIRST = frames(1, 2)
SECOND = frames(2, 2)


def show_pair(pair: np.ndarray) -> Callable[[Session], None]:
    def show(session: Session) -> None:
        session.frame(pair[0], 2 * FRAME_US)
        session.frame(pair[1], 3 * FRAME_US)

    return show


def show_picture(pixels: np.ndarray) -> Callable[[Session], None]:
    return lambda session: session.image(pixels)


def played(loaded: Loaded, show: Callable[[Session], None], **config: Any) -> tuple[Session, int]:
    """A reply with an append in it; also how many rows went through the embedding."""
    rig = Rig(loaded, kv_tokens=1024, **config)
    session = rig.open(format="live")
    embedded: list[int] = []
    hook = rig.core.language.embed.register_forward_hook(lambda module, inputs, output: embedded.append(len(output)))
    try:
        session.frame(FIRST[0], 0)
        session.frame(FIRST[1], FRAME_US)
        session.ask("What do you see?", max_tokens=BEFORE + AFTER)
        rig.step(BEFORE)
        show(session)
        rig.run()
    finally:
        hook.remove()
    return session, sum(embedded)


def drawn(session: Session) -> list[tuple[int, torch.Tensor]]:
    return [session.draws[row] for row in sorted(session.draws)]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("show", "other"),
    [
        (show_pair(SECOND), show_pair(frames(3, 2))),
        (show_pair(SECOND), show_pair(np.stack([SECOND[0], picture(9, *SECOND[0].shape[:2])]))),
        (show_picture(picture(4)), show_picture(picture(5))),
    ],
    ids=["pair", "one frame", "picture"],
)
def test_other_pixels(
    omni_loaded: Loaded, show: Callable[[Session], None], other: Callable[[Session], None], backend: str
) -> None:
    (one, rows), (two, other_rows) = (played(omni_loaded, what, backend=backend) for what in (show, other))
    places = [(event.row, event.rows, event.position) for event in one.of(Appended)]
    assert places == [(event.row, event.rows, event.position) for event in two.of(Appended)] and len(places) == 2

    before, after = drawn(one)[:BEFORE], drawn(one)[BEFORE:]
    for (token, logits), (other_token, other_logits) in zip(before, drawn(two)[:BEFORE], strict=True):
        assert token == other_token
        assert torch.equal(logits, other_logits)
    assert float((after[0][1] - drawn(two)[BEFORE][1]).abs().max()) > 1e-2
    assert one.ids()[BEFORE:] != two.ids()[BEFORE:]

    fed, other_fed = one.rig.core.scheduler.streams[one.stream].rows, two.rig.core.scheduler.streams[two.stream].rows
    assert (rows, other_rows) == (fed, other_fed), "each row is computed once"


def test_the_same_pixels_change_nothing(omni_loaded: Loaded) -> None:
    (one, _), (two, _) = (played(omni_loaded, show_pair(SECOND)) for _ in range(2))
    for (token, logits), (other_token, other_logits) in zip(drawn(one), drawn(two), strict=True):
        assert token == other_token and torch.equal(logits, other_logits)


def test_seen_is_the_newest_span_that_the_row_could_attend_to(omni_loaded: Loaded) -> None:
    """Worked out again from what the plans fed, row by row."""
    session, _ = played(omni_loaded, show_pair(SECOND), append_rows=4)
    seen: dict[int, Seen | None] = {}
    newest: Seen | None = None
    for plan in session.rig.plans:
        for feed in plan.feeds:
            row = feed.first
            for run in feed.rows:
                whole = run.seen is not None and row + len(run) == span_end(session, row)
                newest = run.seen if whole else newest
                row += len(run)
                seen[row - 1] = newest
    tokens = session.of(Token)
    assert [event.seen for event in tokens] == [seen[row] for row in sorted(session.draws)]
    stops = [event.seen.stop_us for event in tokens]
    assert stops == [FRAME_US] * BEFORE + [3 * FRAME_US] * AFTER


def span_end(session: Session, row: int) -> int:
    """The row behind the span that `row` is in."""
    return next(event.row + event.rows for event in session.of(Appended) if event.row <= row < event.row + event.rows)


def test_tokens_come_before_between_and_after_two_appends(omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded, kv_tokens=1024)
    session = rig.open(format="live")
    session.ask("What do you see?", max_tokens=12)
    for number in range(2):
        rig.step(4)
        session.frame(SECOND[0], 2 * number * FRAME_US)
        session.frame(SECOND[1], (2 * number + 1) * FRAME_US)
    rig.run()
    order = [type(event).__name__ for event in session.events if isinstance(event, Token | Appended)]
    assert order == ["Token"] * 4 + ["Appended"] + ["Token"] * 4 + ["Appended"] + ["Token"] * 4
    seen = [event.seen.stop_us if event.seen else None for event in session.of(Token)]
    assert seen == [None] * 4 + [FRAME_US] * 4 + [3 * FRAME_US] * 4
