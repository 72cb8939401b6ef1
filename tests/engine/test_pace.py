"""Budgets in time become budgets in rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.scheduling.pace import Pace


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
