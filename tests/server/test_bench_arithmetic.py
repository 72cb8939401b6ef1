"""Lag, synchrony, the rule for keeping up, rates and the search: exact, and as properties."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.server.bench.arithmetic import (
    Said,
    Shown,
    decode_rate,
    gaps,
    keeps_up,
    lag,
    late,
    overall_rate,
    percentile,
    synchrony,
)
from penstock.server.bench.capacity import largest
from penstock.server.bench.compare import why
from penstock.server.bench.figures import Figure, per_round

SECONDS = st.floats(0, 100, allow_nan=False)


def test_the_lag_ends_with_the_first_token_that_could_see_the_piece() -> None:
    said = [Said(1.0, None), Said(1.1, 0), Said(1.2, 500_000), Said(1.3, 500_000), Said(1.4, 1_000_000)]
    assert lag(Shown(1.05, 500_000, 1.15), said) == pytest.approx(0.15)
    assert lag(Shown(1.0, 250_000, None), said) == pytest.approx(0.2), "a token that saw later media saw this too"


def test_without_a_later_token_the_lag_ends_in_the_cache() -> None:
    assert lag(Shown(1.0, 500_000, 3.5), [Said(1.2, 0)]) == 2.5
    assert lag(Shown(1.0, 500_000, None), [Said(1.2, 0)]) is None


@given(st.lists(SECONDS, min_size=1), st.integers(0, 20), SECONDS)
def test_the_lag_is_that_of_the_earliest_token_that_qualifies(times: list[float], first: int, due: float) -> None:
    said = [Said(time, place * 10) for place, time in enumerate(sorted(times))]
    seeing = [token.time for token in said if token.seen_us is not None and token.seen_us >= first * 10]
    assert lag(Shown(due, first * 10, None), said) == (min(seeing) - due if seeing else None)


def test_a_piece_that_never_went_in_is_not_in_time() -> None:
    assert synchrony([0.1, 0.5, 0.51, None], 0.5) == 0.5
    assert synchrony([], 0.5) == 1.0


@given(st.lists(st.none() | SECONDS, min_size=1), st.floats(0.01, 10), st.floats(0, 10))
def test_synchrony_is_a_share_that_grows_with_the_interval(
    lags: list[float | None], interval: float, more: float
) -> None:
    share = synchrony(lags, interval)
    assert 0 <= share <= synchrony(lags, interval + more) <= 1
    assert synchrony([*lags, None], interval) <= share


def test_a_server_keeps_up_where_nothing_is_lost_the_lag_stays_and_all_is_in_time() -> None:
    assert keeps_up([0.1] * 300, 0.5) == ""
    assert keeps_up([0.1] * 298 + [0.6], 0.5) == "", "one in 299 late is 99.7 %"
    assert keeps_up([0.1] * 297 + [0.6] * 3 + [0.1], 0.5) == "", "298 of 301 are in time: 99.0 %"
    assert keeps_up([0.1] * 90 + [0.6], 0.5) == "98.9% of the pieces were in time"
    assert keeps_up([0.1] * 90 + [None], 0.5) == "1 of 91 pieces never went in"
    assert keeps_up([0.1] * 3 + [0.2] * 3 + [0.36] * 3, 0.5) == "the lag grew from 0.10 to 0.36 s"
    assert keeps_up([0.1] * 3 + [0.2] * 3 + [0.35] * 3, 0.5) == ""


@given(st.lists(st.floats(0, 0.25), min_size=3, max_size=60))
def test_a_server_that_is_always_quick_keeps_up(lags: list[float]) -> None:
    assert keeps_up([*lags], 0.5) == ""


@given(st.floats(0.26, 5), st.integers(3, 50))
def test_a_lag_that_grows_by_more_than_half_an_interval_is_seen(growth: float, third: int) -> None:
    assert keeps_up([0.0] * third + [growth / 2] * third + [growth] * third, 0.5).startswith("the lag grew")


def test_a_percentile_is_one_of_the_values() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, percent) for percent in (1, 50, 60, 61, 99)] == [1, 3, 3, 4, 5]
    assert math.isnan(percentile([], 50))
    assert gaps([1.0, 1.5, 3.5]) == [0.5, 2.0] and gaps([1.0]) == []


def test_the_rate_counts_only_while_all_decode() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0, 6.0]
    assert decode_rate([first, second]) == (2 + 2) / 2
    assert decode_rate([first]) == 1.0
    assert math.isnan(decode_rate([[1.0, 2.0], [3.0, 4.0]])), "they never decoded together"
    assert overall_rate([first, second]) == 9 / 6


@given(st.integers(1, 8), st.integers(2, 40), st.floats(0.01, 1), st.floats(0, 5))
def test_the_rate_of_replies_in_step_is_that_of_the_steps(count: int, tokens: int, step: float, start: float) -> None:
    times = [start + place * step for place in range(tokens)]
    assert decode_rate([times] * count) == pytest.approx(count / step)


@given(st.lists(st.tuples(SECONDS, st.floats(0, 0.2))), st.floats(0.01, 0.1))
def test_a_send_is_late_if_it_came_after_what_is_allowed(sends: list[tuple[float, float]], allowed: float) -> None:
    dues = [due for due, _ in sends]
    assert late(dues, [due + delay for due, delay in sends], 0.3) == 0
    assert late(dues, [due + allowed + 1 for due in dues], allowed) == len(dues)


@given(st.integers(0, 70), st.integers(1, 64))
def test_the_search_finds_the_largest_number_in_few_trials(capacity: int, most: int) -> None:
    tried: list[int] = []

    async def holds(streams: int) -> bool:
        tried.append(streams)
        return streams <= capacity

    assert asyncio.run(largest(holds, most)) == min(capacity, most)
    assert len(tried) == len(set(tried)) <= 2 * math.log2(most) + 2 and max(tried) <= most


def test_there_is_no_ratio_between_unlike_answers() -> None:
    ours = {"ids": [[1, 2], [3, 4]]}
    assert why(ours, {"ids": [[1, 2], [3, 4]]}, "float32") == ""
    assert why(ours, {"ids": [[1, 2], [3]]}, "bfloat16") == "no ratio: Penstock gave 4 tokens, this one 3"
    assert why(ours, {"ids": [[1, 2, 3], [4]]}, "bfloat16").startswith("no ratio"), "as many in all, but not each"
    assert why(ours, {"ids": [[1, 2], [9, 4]]}, "bfloat16") == ""
    assert why(ours, {"ids": [[1, 2], [9, 4]]}, "float32") == "no ratio: in float32 1 of 2 replies have other tokens"
    assert why(ours, {"error": "out of memory"}, "bfloat16") == "failed: out of memory"


def test_a_figure_has_the_medians_of_what_is_known() -> None:
    figure = Figure(
        bench="live", case="a", what="b", unit="s", rounds=[3.0, None, 1.0], ratios=per_round([2.0, 1.0], [4.0, None])
    )
    assert (figure.median, figure.ratios, figure.ratio) == (2.0, [0.5, None], 0.5)
    empty = Figure(bench="live", case="a", what="b", unit="s", rounds=[math.nan])
    assert (empty.rounds, empty.median, empty.ratio) == ([None], None, None)
