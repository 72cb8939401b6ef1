"""Whether the machine keeps up with one more live stream, by what work has taken so far.

In: what towers and steps took, the live media of all streams, a request. Out: the share of the machine's time that one
more stream needs, beside the share that is left. It decides nothing else, and its clock is the caller's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

import msgspec

from ...errors import InputError, OverloadError
from ...streams.requests.request import Request
from ...streams.segment import MediaSpec
from .granting import Flow

# Measurements of each kind that are kept, and without how many nothing is said: the first ones are of a cold machine.
_NEWEST, _ENOUGH = 64, 8


class Declared(msgspec.Struct, frozen=True):
    """What a live stream says that it will send: pieces a second of one modality."""

    modality: str
    rate: float


def declared(request: Request, spec: MediaSpec) -> Declared | None:
    """What a request declares: a rate of frames, where media comes at its own pace and is not waited for."""
    if request.policy != "latest" or request.video_fps is None or spec.video is None:
        return None
    if request.audio_in_video:
        return Declared("unit", 1_000_000 / spec.unit_us)
    return Declared("video", request.video_fps / spec.temporal_patch)


class Admission:
    """What is known of costs, and of what streams have declared. `admit` as in `EngineConfig`."""

    def __init__(self, spec: MediaSpec, admit: str) -> None:
        if admit not in ("measured", "anyway"):
            raise InputError(f"admit: expected measured or anyway, got {admit!r}")
        self._spec = spec
        self._anyway = admit == "anyway"
        self._streams: dict[int, Declared] = {}
        self._rows: dict[str, deque[int]] = {}  # of pieces, by modality
        self._towers: deque[float] = deque(maxlen=_NEWEST)  # milliseconds a row
        self._appends: deque[tuple[int, float]] = deque(maxlen=_NEWEST)  # rows and milliseconds of a step
        self._decodes: deque[float] = deque(maxlen=_NEWEST)  # milliseconds of a step

    def piece(self, modality: str, rows: int) -> None:
        """A piece of media has so many rows."""
        self._rows.setdefault(modality, deque(maxlen=_NEWEST)).append(rows)

    def encoded(self, rows: int, ms: float) -> None:
        """The towers took so long for so many rows, steps between their slices not counted."""
        self._towers.append(max(0.0, ms) / rows)

    def stepped(self, appended: int, ms: float) -> None:
        """A step that appended so many rows took so long; one that appended none has decoded."""
        if appended:
            self._appends.append((appended, ms))
        else:
            self._decodes.append(ms)

    def check(self, request: Request, live: Iterable[tuple[int, Flow]]) -> None:
        """Raise OverloadError with the numbers where a new stream declares more than `live` media leaves.

        A stream that declares nothing is never refused, nor is any where too little was measured to say.
        """
        wish = declared(request, self._spec)
        if self._anyway or wish is None or not self._rows.get(wish.modality):
            return
        before = self._pieces(live)
        load, more = self._share(before), self._share([*before, (wish.rate, self._mean(wish.modality))])
        if load is None or more is None:
            return
        left, needed = max(0.0, 1.0 - load), more - load
        if needed > left:
            raise OverloadError(
                f"video_fps {request.video_fps:g} with the policy latest: expected a stream that needs at most "
                f"{left:.0%} of this machine's time, which the live streams leave, got one that needs {needed:.0%} by "
                "what was measured; ask for fewer frames a second, or let the engine admit it anyway"
            )

    def begin(self, stream: int, request: Request) -> None:
        """A stream is open."""
        wish = declared(request, self._spec)
        if wish is not None:
            self._streams[stream] = wish

    def forget(self, stream: int) -> None:
        """A stream has ended."""
        self._streams.pop(stream, None)

    def load(self, live: Iterable[tuple[int, Flow]]) -> float | None:
        """The share of the machine's time that live media needs; None where too little was measured."""
        return self._share(self._pieces(live))

    def _pieces(self, live: Iterable[tuple[int, Flow]]) -> list[tuple[float, float]]:
        """Pieces a second and rows of each: of what streams have declared, and of other live media as it comes."""
        found: dict[tuple[int, str], tuple[float, float]] = {}
        for stream, wish in self._streams.items():
            found[stream, wish.modality] = wish.rate, self._mean(wish.modality)
        for stream, flow in live:
            wish = self._streams.get(stream)
            mine = wish is not None and wish.modality == flow.modality
            rate = wish.rate if wish is not None and mine else flow.rate
            found[stream, flow.modality] = rate, flow.rows
        return list(found.values())

    def _mean(self, modality: str) -> float:
        rows = self._rows.get(modality, ())
        return sum(rows) / len(rows) if rows else 0.0

    def _share(self, pieces: list[tuple[float, float]]) -> float | None:
        """Seconds of work a second. Each piece passes the towers and is appended, and for the fastest stream there is a
        step for each of its pieces, in which replies of all streams can go on."""
        if min(len(self._towers), len(self._appends)) < _ENOUGH:
            return None
        step_ms = median(self._decodes) if self._decodes else 0.0
        row_ms = median(max(0.0, ms - step_ms) / rows for rows, ms in self._appends)
        rows = sum(rate * rows for rate, rows in pieces)
        steps = max((rate for rate, _ in pieces), default=0.0)
        return (rows * (median(self._towers) + row_ms) + steps * step_ms) / 1000
