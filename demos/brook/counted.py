"""What streams take in of the films that they are shown, counted, with or without options that let them take less.

In: a house (doors.py) and what its requests say of that. Out: the same house, which counts. It knows no questions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import msgspec
from penstock import Appended, Dropped, Event, Item, Request, SamplingParams

from .world import Scene


class SceneLine(NamedTuple):
    """One line of the table of scenes: `kind` says of which. `right`: the share of the `questions` that were answered
    right; `rows` and `video`: rows of media and, among them, of pictures, for each second of film; `frames` and
    `sound`: how many frames and seconds of sound of each second were left out."""

    kind: str
    seconds: float
    questions: int
    right: float
    rows: float
    video: float
    frames: float
    sound: float


class Taken:
    """What was taken in of all films of one sort of scene, and what was answered about them."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.marks: list[bool] = []
        self.rows = self.video = self.frames = self.sound_us = 0

    def note(self, event: Event) -> None:
        """An event of a stream that is shown such a film."""
        if isinstance(event, Appended):
            self.rows += event.rows
            self.video += event.rows if event.modality == "video" else 0
        elif isinstance(event, Dropped) and event.reason in ("still", "rate"):
            if event.modality == "video":
                self.frames += event.count
            else:
                self.sound_us += (event.stop_us or 0) - (event.start_us or 0)

    def line(self, scenes: str) -> SceneLine:
        """Of all that was noted."""
        right, each = sum(self.marks) / max(1, len(self.marks)), max(self.seconds, 1e-9)
        shares = (self.rows / each, self.video / each, self.frames / each, self.sound_us / 1e6 / each)
        return SceneLine(scenes, self.seconds, len(self.marks), right, *shares)


def sort_of(scene: Scene) -> str:
    """ "still" where nothing in the pictures changes, else "busy"."""
    return "still" if not scene.changes and not scene.foreign else "busy"


class CountedStream:
    """A stream that notes what it takes in. The events that nobody reads are noted when it is closed."""

    def __init__(self, stream: Any, taken: Taken) -> None:
        self._stream, self._taken = stream, taken
        self.ask, self.fork = stream.ask, stream.fork

    async def append(self, item: Item) -> None:
        await self._stream.append(item)

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self._stream:
            self._taken.note(event)
            yield event

    async def close(self) -> None:
        await self._stream.close()
        async for event in self._stream:
            self._taken.note(event)


class CountingHouse:
    """A house whose streams note what they take in. `sparing`: fields of their requests, by which they take less."""

    def __init__(self, house: Any, sparing: dict[str, Any], taken: Taken) -> None:
        self._house, self._sparing, self._taken = house, sparing, taken

    async def stream(self, request: Request) -> CountedStream:
        sparing = msgspec.structs.replace(request, **self._sparing)
        return CountedStream(await self._house.stream(sparing), self._taken)

    async def generate(self, request: Request, params: SamplingParams | None = None) -> str:
        return await self._house.generate(request, params)


def table(lines: Sequence[SceneLine]) -> str:
    """The lines under one another, with a head."""
    head = (
        f"{'scenes':22} {'s':>5} {'asked':>5} {'right':>7} {'rows/s':>7} {'of video':>8} {'left out: frames/s':>19} "
        f"{'sound s/s':>9}"
    )
    return "\n".join(
        [head]
        + [
            f"{line.kind:22} {line.seconds:5.0f} {line.questions:5} {line.right:7.1%} {line.rows:7.1f} "
            f"{line.video:8.1f} {line.frames:19.2f} {line.sound:9.2f}"
            for line in lines
        ]
    )
