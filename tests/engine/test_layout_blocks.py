"""Blocks inside a layout: what stands alone, where rows stand, what a cut and a refusal leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from penstock.engine.conversation.laying import Limits, lay_within
from penstock.engine.conversation.layout import Layout
from penstock.engine.conversation.state import StreamState
from penstock.engine.family import Loaded
from penstock.engine.pages import PagePool, PageTable
from penstock.engine.plan import Changes
from penstock.engine.positions import Cursor
from penstock.engine.span import Rows, Span
from penstock.errors import ContextOverflowError
from penstock.streams.format import LIVE, TURNS, State
from penstock.streams.requests.request import Request

MEDIA = 7


def span(kind: str, patches: int = 1, height: int = 2, width: int = 3, audio_rows: int = 0) -> Span:
    count = patches * height * width + audio_rows
    ids = np.full(count, MEDIA, dtype=np.int64)
    return Span(1, 0, kind, ids, (patches, height, width), audio_rows, 0, 0, 0)


def laid(rows: list[Rows]) -> tuple[list[int], np.ndarray]:
    return [id for run in rows for id in run.ids.tolist()], np.concatenate([run.positions for run in rows], axis=1)


def opened(loaded: Loaded, rule: str = "max", format: Any = TURNS) -> Layout:
    layout = Layout(loaded.family, format, rule, 1.0, "x")
    layout.text("door")
    return layout


def test_images_never_share_a_block(omni_loaded: Loaded) -> None:
    before, after = omni_loaded.family.block_ids["image"]
    layout = opened(omni_loaded)
    ids, _ = laid([*layout.media(span("image")), *layout.media(span("image"))])
    assert ids == [*before, *[MEDIA] * 6, *after, *before, *[MEDIA] * 6]


@pytest.mark.parametrize("kind", ["image", "video"])
def test_in_an_assistant_turn_each_span_stands_alone(omni_loaded: Loaded, kind: str) -> None:
    before, after = omni_loaded.family.block_ids[kind]
    layout = opened(omni_loaded, format=LIVE)
    layout.ask("")
    ids, _ = laid([*layout.media(span(kind)), *layout.media(span(kind))])
    assert ids == [*before, *[MEDIA] * 6, *after] * 2


@pytest.mark.parametrize(("rule", "behind"), [("max", 26), ("transformers", 4)])
def test_a_unit_block(omni_loaded: Loaded, rule: str, behind: int) -> None:
    """Both wrappers of each side share a position; the video comes first, the sound counts from the same start."""
    layout = opened(omni_loaded, rule)
    start = layout.cursor.text_next
    before, after = omni_loaded.family.block_ids["unit"]
    assert len(before) == len(after) == 2
    rows = layout.media(span("unit", patches=2, height=1, width=1, audio_rows=4))
    ids, positions = laid([*rows, *layout.ask("")])
    assert ids[:10] == [*before, *[MEDIA] * 6, *after]
    inside = [start + 1 + offset for offset in (0, 25, 0, 1, 2, 3)]
    closing = start + 1 + behind
    assert positions[0, :10].tolist() == [start, start, *inside, closing, closing]
    assert positions[0, 10] == closing + 1


def test_a_second_unit_counts_on_from_the_start_of_its_block(omni_loaded: Loaded) -> None:
    layout = opened(omni_loaded)
    first, second = (span("unit", patches=2, height=1, width=1, audio_rows=4) for _ in range(2))
    start = layout.cursor.text_next + 1
    layout.media(first)
    ids, positions = laid(layout.media(second))
    assert ids == [MEDIA] * 6
    assert (positions[0] - start).tolist() == [50, 75, 4, 5, 6, 7]


@pytest.mark.parametrize("rule", ["max", "transformers"])
def test_back_to_a_token_forgets_what_was_laid_behind_it(omni_loaded: Loaded, rule: str) -> None:
    layout = opened(omni_loaded, rule, LIVE)
    layout.ask("")
    place = int(layout.token(300).positions[0, 0])
    twin = layout.copy()
    layout.media(span("video", width=40))
    layout.token(301)
    layout.end()
    layout.media(span("video"))
    layout.back_to(Cursor(place + 1, place + 1))
    assert layout.state is State.ASSISTANT
    for one in (layout, twin):
        assert one.token(302).positions.tolist() == [[place + 1]] * 3
    assert laid(layout.end())[0] == laid(twin.end())[0]


@pytest.mark.parametrize(("limits", "numbers"), [((60, 9_999), "at most"), ((9_999, 60), "60 positions")])
def test_a_refused_input_leaves_no_trace(omni_loaded: Loaded, limits: tuple[int, int], numbers: str) -> None:
    layout, table = Layout(omni_loaded.family, TURNS, "max", 1.0, "x"), PageTable(PagePool(1, 4))
    stream = StreamState(1, [0], Request(), layout, table, Changes())
    wide = Limits(9_999, 9_999)
    lay_within(stream, wide, lambda layout: layout.media(span("video")), 2)  # leaves its block open
    twin = stream.layout.copy()
    rows, entries = stream.rows, len(stream.laid)
    with pytest.raises(ContextOverflowError, match=numbers):
        lay_within(stream, Limits(*limits), lambda layout: layout.media(span("video", patches=20)), 2)
    assert (stream.rows, len(stream.laid)) == (rows, entries)
    ids, positions = laid(lay_within(stream, wide, lambda layout: layout.media(span("video")), 2))
    twin_ids, twin_positions = laid(twin.media(span("video")))
    assert ids == twin_ids == [MEDIA] * 6
    assert np.array_equal(positions, twin_positions)


def test_time_passes_in_a_block_of_which_rows_have_left_the_window(omni_loaded: Loaded) -> None:
    """The next piece begins a block, which stands behind what was dropped in between."""
    layout = opened(omni_loaded)
    _, first = laid(layout.media(span("video", height=1, width=1)))
    layout.sever()
    dropped = span("video", height=0, width=0)
    for _ in range(3):
        layout.passes(dropped)
    _, second = laid(layout.media(span("video", height=1, width=1)))
    assert 75 <= int(second[0, -1] - first[0, -1]) < 75 + 10
