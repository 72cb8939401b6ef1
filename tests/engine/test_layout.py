"""Positions and turns by tables: each format times each event, and the blocks of media by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from penstock.engine.conversation.layout import Layout
from penstock.engine.family import Family, Loaded
from penstock.engine.positions import Block, Clock, Cursor
from penstock.engine.span import Rows, Span
from penstock.streams.format import INTERRUPT, LIVE, TURNS, Format, State, choose

SYSTEM, USER, END, ASSISTANT = "system", "user_start", "user_end", "assistant_start"
CLOSE = "assistant_end"


def span(modality: str, patches: int = 1, side: int = 2, audio_rows: int = 0, run: int = 0) -> Span:
    count = patches * side * side + audio_rows
    grid = (patches, side, side) if patches else (0, 0, 0)
    ids = np.full(count, 7, dtype=np.int64)
    return Span(1, 0, modality, ids, grid, audio_rows, run, 0, 0)


def made(family: Family, format: Format, rule: str = "max", grid_seconds: float = 1.0) -> Layout:
    return Layout(family, format, rule, grid_seconds, None)


def told(family: Family, rows: list[Rows]) -> list[str]:
    """Names of what was laid, by its ids."""
    ids = [id for run in rows for id in run.ids.tolist()]
    names = {SYSTEM: family.system_ids(None), **family.turn_ids, "door": family.text_ids("door")}
    for kind in ("video", "audio"):
        names |= {f"<{kind}": family.block_ids[kind][0], f"{kind}>": family.block_ids[kind][1]}
    names["rows"] = [7]
    found: list[str] = []
    while ids:
        # "user_end" and "assistant_end" have the same ids in this template.
        name = next(name for name, known in names.items() if known and ids[: len(known)] == known)
        if name != "rows" or found[-1:] != ["rows"]:
            found.append(name)
        ids = ids[len(names[name]) :]
    return found


def at(layout: Layout, state: State) -> Layout:
    """The layout led into a state."""
    if state is not State.CLOSED:
        layout.text("door") if state is State.USER else layout.ask("door")
    else:
        layout.ask("door")
        layout.end()
    return layout


# What each event lays in each state outside `live`'s reply, and the state behind it; None: it waits.
OUTSIDE: dict[tuple[State, str], tuple[list[str], State] | None] = {
    (State.CLOSED, "media"): ([USER, "<video", "rows"], State.USER),
    (State.CLOSED, "text"): ([USER, "door"], State.USER),
    (State.CLOSED, "ask"): ([USER, "door", END, ASSISTANT], State.ASSISTANT),
    (State.USER, "media"): (["<video", "rows"], State.USER),
    (State.USER, "text"): (["door"], State.USER),
    (State.USER, "ask"): (["door", END, ASSISTANT], State.ASSISTANT),
    (State.ASSISTANT, "media"): None,
    (State.ASSISTANT, "text"): None,
    (State.ASSISTANT, "ask"): None,
    (State.ASSISTANT, "end"): ([END], State.CLOSED),
    (State.CLOSED, "end"): None,
    (State.USER, "end"): None,
}
INSIDE_LIVE: dict[tuple[State, str], tuple[list[str], State] | None] = {
    (State.ASSISTANT, "media"): (["<video", "rows", "video>"], State.ASSISTANT),
    (State.ASSISTANT, "text"): ([END, USER, "door", END, ASSISTANT], State.ASSISTANT),
    (State.ASSISTANT, "ask"): ([END, USER, "door", END, ASSISTANT], State.ASSISTANT),
}
TABLE = [(format, place) for format in (TURNS, LIVE, INTERRUPT) for place in OUTSIDE]


@pytest.mark.parametrize(("format", "place"), TABLE, ids=lambda value: getattr(value, "name", None) or "-".join(value))
def test_events(omni_loaded: Loaded, format: Format, place: tuple[State, str]) -> None:
    state, event = place
    wanted = INSIDE_LIVE.get(place, OUTSIDE[place]) if format is LIVE else OUTSIDE[place]
    family = omni_loaded.family
    layout = at(made(family, format), state)
    assert layout.state is state
    if wanted is None:
        assert layout.step(event) is None
        return
    act: dict[str, Any] = {
        "media": lambda: layout.media(span("video")),
        "text": lambda: layout.text("door"),
        "ask": lambda: layout.ask("door"),
        "end": layout.end,
    }
    assert told(family, act[event]()) == wanted[0]
    assert layout.state is wanted[1]


def test_the_default_system_turn_comes_once(omni_loaded: Loaded) -> None:
    family = omni_loaded.family
    layout = made(family, TURNS)
    assert told(family, layout.media(span("video"))) == [SYSTEM, USER, "<video", "rows"]
    assert told(family, layout.ask("")) == ["video>", END, ASSISTANT]
    layout.end()
    assert told(family, layout.text("door")) == [USER, "door"]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([span("video"), span("video")], ["<video", "rows"]),
        ([span("video"), span("video", side=3)], ["<video", "rows", "video>", "<video", "rows"]),
        ([span("audio", 0, 0, 5), span("audio", 0, 0, 5)], ["<audio", "rows"]),
        ([span("audio", 0, 0, 5), span("audio", 0, 0, 5, run=1)], ["<audio", "rows", "audio>", "<audio", "rows"]),
        ([span("video"), span("audio", 0, 0, 5)], ["<video", "rows", "video>", "<audio", "rows"]),
    ],
    ids=["two pairs", "another size", "two blocks", "another run", "sound behind pictures"],
)
def test_what_continues_a_block(omni_loaded: Loaded, spans: list[Span], expected: list[str]) -> None:
    family = omni_loaded.family
    layout = at(made(family, TURNS), State.USER)
    assert told(family, [rows for one in spans for rows in layout.media(one)]) == expected


def test_a_block_counts_on_in_time_and_its_wrapper_goes_behind_all_axes() -> None:
    """Pairs a second apart stand 25 positions apart; a wrapper goes behind the largest of time, height and width."""
    cursor = Cursor()
    cursor.text(10)
    block = Block("video", 10, 2, 3, 0)
    clock = Clock(25.0, 1.0)
    first, second = block.extend(1, 0, clock), block.extend(2, 0, clock)
    assert first.tolist() == [[10] * 6, [10, 10, 10, 11, 11, 11], [10, 11, 12] * 2]
    assert second[0].tolist() == [35] * 6 + [60] * 6
    block.leave(cursor, "max")
    assert cursor.text(1).tolist() == [[61]] * 3


@pytest.mark.parametrize(("rule", "behind"), [("max", 76), ("transformers", 10)])
def test_the_rules_differ_where_sound_ends_before_the_video(rule: str, behind: int) -> None:
    cursor = Cursor()
    block = Block("unit", 0, 1, 1, 0)
    block.extend(4, 10, Clock(25.0, 1.0))
    block.leave(cursor, rule)
    assert int(cursor.token()[0, 0]) == behind


def test_fractions_of_positions_are_cut_in_float32() -> None:
    """As the library has it: 0.7 * 25 * 2 in float32, then truncated."""
    patches = np.arange(40)
    expected = (torch.arange(40) * torch.tensor(0.7) * 25.0).long().tolist()
    assert Clock(25.0, 0.7).at(patches).tolist() == expected


@pytest.mark.parametrize(
    ("name", "trained", "format"),
    [("auto", False, "turns"), ("auto", True, "live"), ("live", False, "live"), ("interrupt", True, "interrupt")],
)
def test_the_format_in_force_comes_with_its_reason(name: str, trained: bool, format: str) -> None:
    chosen, why = choose(name, trained)
    assert chosen.name == format
    assert why.startswith("auto:") == (name == "auto")
