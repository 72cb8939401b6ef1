"""What is measured of media on its way, and how much time is left for it. Time is what the test says."""

from __future__ import annotations

from statistics import median
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.scheduling.granting import Announced, Granting
from penstock.engine.scheduling.pace import Pace
from penstock.streams.event import Appended, Dropped, ReplyStarted, Seen, Token

STEP_US = 500_000
Ms = st.integers(0, 2_000)


def state(rows: int = 0, past: int = 0) -> Any:
    """A stream that wants spans, with rows laid and fed."""
    layout = SimpleNamespace(format=SimpleNamespace(rests=False, holds=True))
    request = SimpleNamespace(policy="block")
    return SimpleNamespace(rows=rows, past=past, inputs=[], parked=False, reply=None, layout=layout, request=request)


class Watch:
    """A stream whose pictures come, are granted and go in when the test says."""

    def __init__(self, stream: int = 1, granting: Granting | None = None) -> None:
        self.stream = stream
        self.states = {stream: state()}
        self.granting = granting or Granting(self.states, Pace(200.0, 16, 4096))
        self.granting.begin(stream)

    def comes(self, number: int, at_us: int, rows: int = 16) -> None:
        event = Dropped(number, "video", 1, number * STEP_US, number * STEP_US, "latest")
        piece = Announced((self.stream, number, 0), rows, number * STEP_US, event, at_us)
        assert self.granting.announce(self.stream, [piece], at_us) == []

    def goes_in(self, number: int, now_us: int) -> Appended:
        event = Appended(number, "video", number * STEP_US, number * STEP_US, 0, 16, 0)
        told = self.granting.times.tell(self.stream, event, now_us)
        assert isinstance(told, Appended)
        return told

    def says(self, number: int, now_us: int) -> Token:
        """A token that has seen a picture."""
        token = Token(1, 0, 5, "a", Seen(number, "video", number * STEP_US, number * STEP_US))
        told = self.granting.times.tell(self.stream, token, now_us)
        assert isinstance(told, Token)
        return told

    @property
    def figures(self) -> dict[str, Any]:
        return self.granting.times.statistics()["timeliness_by_stream"][self.stream]


@given(st.lists(st.tuples(Ms, st.booleans()), min_size=1, max_size=60))
def test_lag_synchrony_and_misses(pieces: list[tuple[int, bool]]) -> None:
    """Pictures come each half second by their own times; some go in after a while, some are dropped for newer ones."""
    watch = Watch()
    lags, overdue, dropped = [], 0, 0
    for number, (lag_ms, goes) in enumerate(pieces):
        came_us = 10_000_000 + number * STEP_US
        watch.comes(number, came_us)
        if not goes:
            gone = Dropped(number, "video", 1, number * STEP_US, number * STEP_US, "latest")
            watch.granting.times.tell(watch.stream, gone, came_us)
            dropped += 1
            continue
        told = watch.goes_in(number, came_us + lag_ms * 1000)
        assert (told.lag_us, told.overdue_us) == (lag_ms * 1000, max(0, lag_ms * 1000 - STEP_US))
        lags.append(lag_ms)
        overdue += lag_ms * 1000 > STEP_US
    figures, whole = watch.figures, watch.granting.times.statistics()["timeliness"]
    assert figures == whole, "of one stream and in total"
    assert (figures["pieces"], figures["missed"]) == (len(lags), overdue + dropped)
    assert figures["dropped"] == ({"latest": dropped} if dropped else {})
    assert figures["synchrony"] == (len(lags) - overdue) / len(pieces)
    if lags:
        assert sorted(lags)[(len(lags) - 1) // 2] == figures["lag_ms"]["p50"] <= median(lags)
        assert max(lags) >= figures["lag_ms"]["p95"] >= figures["lag_ms"]["p50"]


def test_a_picture_that_comes_too_late_is_not_our_fault_and_one_that_comes_early_is_not_due() -> None:
    watch = Watch()
    watch.comes(0, 0)
    watch.comes(1, 2 * STEP_US)  # half a second after its time
    watch.comes(2, 2 * STEP_US)  # just then
    watch.comes(3, 2 * STEP_US)  # half a second before it
    for number, overdue_ms in ((1, 100), (2, 100), (3, 0)):
        assert watch.goes_in(number, 3 * STEP_US + 100_000).overdue_us == overdue_ms * 1000


def test_the_age_of_what_a_token_has_seen_counts_from_when_it_was_handed_in() -> None:
    watch = Watch()
    watch.comes(0, 1_000)
    watch.goes_in(0, 5_000)
    assert watch.says(0, 9_000).age_us == 8_000
    assert watch.says(7, 9_000).age_us is None, "nobody knows when that came"
    assert watch.figures["age_ms"] == {"p50": 8.0, "p95": 8.0}
    watch.granting.fork(watch.stream, 2)
    twin = Watch(2, watch.granting)
    watch.granting.times.fork(watch.stream, 2)
    assert twin.says(0, 10_000).age_us == 9_000
    assert watch.goes_in(0, 20_000).lag_us is None, "laid again after a cut"
    assert watch.figures["pieces"] == 1


def test_what_is_kept_of_a_stream_does_not_grow_and_goes_with_it() -> None:
    watch = Watch()
    times = watch.granting.times
    for number in range(6_000):
        watch.comes(number, number * STEP_US)
        if number % 2:
            watch.goes_in(number, number * STEP_US + 1)
            watch.says(number, number * STEP_US + 2)
    kept = times._streams[watch.stream]
    assert watch.figures["pieces"] == 3_000
    assert len(kept.on_way) <= 4096 and len(kept.arrivals) <= 16
    assert max(len(held) for held in (kept.tally._lags_us, kept.tally._ages_us, kept.tally._timely)) <= 64
    watch.granting.forget(watch.stream)
    watch.goes_in(5_999, 0)
    watch.granting.times.tell(watch.stream, Dropped(1, "video", 1, 0, 0, "late"), 0)
    assert not times._streams and not watch.granting._flows and times.first(watch.stream) is None
    assert times.statistics()["timeliness"]["dropped"] == {"late": 1}


def test_a_piece_that_failed_is_no_longer_expected() -> None:
    watch = Watch()
    watch.comes(0, 0)
    watch.comes(1, STEP_US)
    watch.comes(2, 2 * STEP_US)
    watch.comes(3, 3 * STEP_US)
    watch.granting.failed((watch.stream, 0, 0))
    piece = watch.granting.times.first(watch.stream)
    assert piece is not None and piece.due_us == STEP_US
    watch.goes_in(2, 2 * STEP_US)  # so number 1 had no room
    piece = watch.granting.times.first(watch.stream)
    assert piece is not None and piece.due_us == 3 * STEP_US


def test_the_rows_of_a_step_follow_the_tightest_slack() -> None:
    """Half an interval is for the towers, half for the steps; what is overdue goes in at once."""
    watch = Watch()
    assert watch.granting.demand(0) is None, "nothing is live"
    watch.comes(0, 0)
    assert watch.granting.demand(0) == (0, STEP_US / 2000), "nothing waits to be fed"
    watch.states[1].rows = 16
    needs = [watch.granting.demand(ms * 1000) for ms in (0, 100, 240, 300, 700)]
    assert needs == [(16, 250.0), (16, 150.0), (16, 10.0), (16, 1.0), (16, 1.0)]


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 400)), min_size=1, max_size=6))
def test_of_several_streams_the_most_rows_for_their_time_count(streams: list[tuple[int, int]]) -> None:
    """By each deadline there is time for all that has to be in the cache by then."""
    states = {number: state(rows) for number, (rows, _) in enumerate(streams)}
    granting = Granting(states, Pace(200.0, 16, 4096))
    for number, (_, came_ms) in enumerate(streams):
        Watch(number, granting).comes(0, came_ms * 1000)
    now_us = 400_000
    left = [(max(1.0, came_ms + 250.0 - 400.0), rows) for rows, came_ms in streams]
    left = [(min(ms, 250.0), rows) for ms, rows in left]
    need = granting.demand(now_us)
    assert need is not None
    for ms, _ in left:
        assert need[0] / need[1] >= sum(rows for other, rows in left if other <= ms) / ms - 1e-9
    assert any(need[1] == ms for ms, _ in left)


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(0, 2)), min_size=1, max_size=6))
def test_what_is_due_goes_by_its_deadline(streams: list[tuple[int, int]]) -> None:
    """A piece whose media time has not come round is not due, and a stream without rows has nothing to feed."""
    states = {number: state(rows) for number, (_, rows) in enumerate(streams)}
    granting = Granting(states, Pace(200.0, 16, 4096))
    for number, (came_ms, _) in enumerate(streams):
        Watch(number, granting).comes(0, came_ms * 1000)
    now_us = 400_000
    due = [(came_ms, number) for number, (came_ms, rows) in enumerate(streams) if rows and came_ms <= 400]
    assert granting.due_first(now_us) == [number for _, number in sorted(due)]


def test_a_stream_presses_where_the_towers_take_too_long_and_its_reply_waits_for_one_interval() -> None:
    watch = Watch()
    pace = watch.granting._rows
    for _ in range(40):
        pace.took(16, 160.0)  # ten milliseconds a row
    started = ReplyStarted(1, 1)
    watch.granting.times.tell(watch.stream, started, 30_000)
    watch.comes(0, 0)
    assert watch.granting.pressing(0.0, 0) == {}, "160 of 250 ms"
    assert watch.granting.pressing(0.08, 80_000) == {}
    assert watch.granting.pressing(0.10, 100_000) == {watch.stream: 30_000 + STEP_US}
    assert watch.granting.grant(0.08) == [(watch.stream, 0, 0)]
    assert watch.granting.pressing(0.20, 200_000) == {}, "it will be ready after 40 ms"
    assert watch.granting.pressing(0.25, 250_000) == {watch.stream: 30_000 + STEP_US}, "it is not"
    watch.granting.encoded({(watch.stream, 0, 0)}, 0.26)
    assert watch.granting.pressing(0.26, 260_000) == {}


def test_media_counts_as_often_as_it_comes_and_no_more_than_its_times_say() -> None:
    watch = Watch()
    for number in range(40):
        watch.comes(number, number * 1_000)  # a film that is handed in at once
    ((_, flow),) = watch.granting.flows(0)
    assert flow.rate == 2.0
    for number in range(40, 80):
        watch.comes(number, number * 2 * STEP_US)  # slower than its times
    ((_, flow),) = watch.granting.flows(160 * STEP_US)
    assert 0.99 < flow.rate < 1.01
    assert watch.granting.cameras(160 * STEP_US) == [], "it waits: nothing of it is dropped"
