"""Who is let in: by what was measured, with the numbers, and nobody is refused who declares nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine.scheduling.admission import Admission
from penstock.engine.scheduling.granting import Flow
from penstock.errors import InputError, OverloadError
from penstock.streams.requests.request import Request
from penstock.streams.segment import MediaSpec, SizeRule

SPEC = MediaSpec(video=SizeRule(28, 1, 1 << 20))
CAMERA = Request(policy="latest", video_fps=4.0)  # two pairs of frames a second
ROWS, TOWER_MS, ROW_MS, STEP_MS = 20, 3.0, 1.0, 10.0


def measured(times: int = 64, admit: str = "measured") -> Admission:
    """Of a machine on which a pair takes 60 ms in the tower and 20 ms in the steps, which take 10 ms themselves."""
    admission = Admission(SPEC, admit)
    for _ in range(times):
        admission.piece("video", ROWS)
        admission.encoded(ROWS, ROWS * TOWER_MS)
        admission.stepped(0, STEP_MS)
        admission.stepped(ROWS, STEP_MS + ROWS * ROW_MS)
    return admission


def flow(pieces: float, rows: int = ROWS) -> Flow:
    """Media that comes so many times a second."""
    return Flow("video", 0, None, round(1e6 / pieces), rows, 0.0)


@given(st.integers(0, 12), st.floats(0.5, 30.0))
def test_a_stream_is_refused_where_it_needs_more_than_is_left(others: int, fps: float) -> None:
    admission = measured()
    live = [(stream, flow(1.0)) for stream in range(others)]
    request = Request(policy="latest", video_fps=fps)
    load = others * 0.08 + 0.01 * bool(others)
    needed = fps / 2 * 0.08 + 0.01 * max(0.0, fps / 2 - bool(others))
    assert admission.load(live) == pytest.approx(load)
    if abs(needed - max(0.0, 1 - load)) < 1e-6:
        return
    if needed <= 1 - load:
        admission.check(request, live)
        return
    with pytest.raises(OverloadError) as refusal:
        admission.check(request, live)
    left, need = map(int, re.findall(r"(\d+)%", str(refusal.value)))
    assert (left, need) == (pytest.approx(100 * max(0.0, 1 - load), abs=0.6), pytest.approx(100 * needed, abs=0.6))


def test_who_has_declared_counts_before_anything_comes_and_until_the_end() -> None:
    admission = measured()
    for stream in range(5):
        admission.check(CAMERA, [])
        admission.begin(stream, CAMERA)
    assert admission.load([]) == pytest.approx(5 * 0.16 + 0.02)
    assert admission.load([(0, flow(2.0))]) == pytest.approx(5 * 0.16 + 0.02), "not twice"
    assert admission.load([(0, flow(2.0, 2 * ROWS))]) == pytest.approx(6 * 0.16 + 0.02), "as large as it is"
    admission.begin(5, CAMERA)
    with pytest.raises(OverloadError):
        admission.check(CAMERA, [])
    admission.forget(5)
    admission.check(CAMERA, [])


@pytest.mark.parametrize(
    "request_",
    [Request(video_fps=60.0), Request(policy="latest"), Request(policy="latest", format="live"), Request()],
)
def test_who_declares_nothing_is_never_refused(request_: Request) -> None:
    measured().check(request_, [(1, flow(1000.0))])


def test_where_little_was_measured_or_all_are_wanted_nobody_is_refused() -> None:
    flood = [(1, flow(1000.0))]
    for admission in (Admission(SPEC, "measured"), measured(7), measured(admit="anyway")):
        admission.check(CAMERA, flood)
    assert Admission(SPEC, "measured").load(flood) is None
    with pytest.raises(OverloadError):
        measured(8).check(CAMERA, flood)


def test_a_cold_start_is_not_taken_for_the_machine() -> None:
    admission = Admission(SPEC, "measured")
    admission.encoded(ROWS, 60_000.0)
    admission.stepped(ROWS, 60_000.0)
    for _ in range(9):
        admission.piece("video", ROWS)
        admission.encoded(ROWS, 10.0)
        admission.stepped(ROWS, 10.0)
    admission.check(CAMERA, [])


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match="expected measured or anyway, got 'no'"):
        Admission(SPEC, "no")
