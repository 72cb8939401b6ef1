"""Budgets in time become budgets in rows; a step that only decodes is the measure where media is live."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st
from penstock.engine.scheduling.pace import Pace, StepPace

LEAST, MOST, WHOLE = 16, 256, 1024
Base = st.floats(0.5, 400.0)
Row = st.floats(0.001, 5.0)


def test_most_until_something_is_measured() -> None:
    pace = Pace(50.0, 16, 256)
    assert pace.rows == 256
    pace.idle(10.0)
    assert pace.rows == 256


@given(st.floats(0.01, 5.0), st.floats(0.0, 40.0), st.integers(1, 500))
def test_steady_costs_give_the_rows_that_fit(row_ms: float, base_ms: float, rows: int) -> None:
    pace = Pace(50.0, 16, 256)
    for _ in range(60):
        pace.idle(base_ms)
        pace.took(rows, base_ms + rows * row_ms)
    fits = (50.0 - base_ms) / row_ms
    assert abs(pace.rows - max(16, min(256, fits))) <= 1


def test_it_follows_a_change() -> None:
    pace = Pace(50.0, 1, 1000)
    for _ in range(40):
        pace.took(10, 10.0)
    assert pace.rows in (49, 50)
    for _ in range(40):
        pace.took(10, 100.0)
    assert pace.rows in (4, 5)


def measured(base_ms: float, row_ms: float, target_ms: float = 0.0) -> StepPace:
    pace = StepPace(target_ms, LEAST, MOST, WHOLE)
    pace.idle(base_ms)
    pace.took(10, base_ms + 10 * row_ms)
    return pace


@given(Base, Row)
def test_a_step_that_appends_is_a_multiple_of_one_that_decodes_on_any_machine(base_ms: float, row_ms: float) -> None:
    """How fast the machine is does not matter, only what rows cost beside a step without them."""
    rows = measured(base_ms, row_ms).appends(0, 250.0)
    assert LEAST <= rows <= MOST
    assert rows == LEAST or base_ms + rows * row_ms <= 2 * base_ms + 1e-3
    if rows < MOST:
        assert base_ms + (rows + 1) * row_ms >= 1.5 * base_ms or rows == LEAST
    faster = measured(base_ms / 3, row_ms / 3).appends(0, 250.0)
    assert abs(faster - rows) <= 1


@given(Base, Row, st.floats(20.0, 1000.0), st.integers(1, 60), st.integers(1, 6))
def test_no_fewer_rows_than_keep_up(base_ms: float, row_ms: float, within_ms: float, rows: int, streams: int) -> None:
    """Pieces come at a steady rate, of several streams. What waits does not grow where the step's own limit allows it,
    though a slice of a tower stands between any two steps."""
    pace = measured(base_ms, row_ms)
    rate = streams * rows / (2 * within_ms)  # rows a millisecond
    step_ms = base_ms + MOST * row_ms + 2.5 * base_ms
    assume(rate * step_ms < MOST / 2)
    waiting, now, history = 0.0, 0.0, []
    for _ in range(400):
        appended = min(pace.appends(int(waiting), within_ms), int(waiting))
        took = base_ms + appended * row_ms + pace.patience_ms(appended, live=True)
        waiting, now = waiting - appended + rate * took, now + took
        history.append(waiting)
    assert max(history[200:]) <= max(history[:200]) + streams * rows + 1


@given(Base, Row, st.integers(0, 250))
def test_a_step_and_a_slice_before_it_together_take_a_multiple_of_a_step(
    base_ms: float, row_ms: float, waiting: int
) -> None:
    pace = measured(base_ms, row_ms)
    rows = pace.appends(0, 250.0)
    appended = min(rows, waiting)
    takes_ms = base_ms + appended * row_ms
    assume(takes_ms <= 2 * base_ms)  # else not even the least number of rows fits
    patience_ms = pace.patience_ms(appended, live=True)
    assert patience_ms > 0, "a tower always goes on"
    assert takes_ms + patience_ms <= 2.75 * base_ms
    assert pace.patience_ms(0, live=True) >= base_ms, "a tower has at least as much as a step that only decodes"


@given(Base, Row)
def test_without_live_streams_steps_are_filled(base_ms: float, row_ms: float) -> None:
    pace = measured(base_ms, row_ms)
    assert pace.appends(0, None) == WHOLE
    assert pace.patience_ms(0, live=False) > pace.patience_ms(0, live=True)
    assert pace.patience_ms(WHOLE, live=False) >= base_ms + WHOLE * row_ms - 1e-3, "a tower has half at least"


def test_a_time_that_is_asked_for_holds() -> None:
    pace = measured(10.0, 1.0, target_ms=40.0)
    assert pace.appends(0, 250.0) == 30
    assert pace.appends(0, None) == WHOLE


def test_before_a_step_was_measured_the_most_is_appended_and_no_tower_waits_long() -> None:
    pace = StepPace(0.0, LEAST, MOST, WHOLE)
    assert pace.appends(100, 250.0) == MOST
    assert pace.patience_ms(0, live=True) == 0.0
