"""What `latency`, `throughput` and `compare` run, and how rounds are interleaved.

In: engines that answer cases (peers/child.py says what a case is). Out: their answers by engine, case and round. It
does not know what is read from them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .figures import progress

Answer = dict[str, Any]
Measured = dict[str, list[Answer]]  # by name of the case, one answer a round
Runs = Callable[[dict[str, Any]], Awaitable[Answer]]

SIDE, IMAGE_SIDE, VIDEO_FRAMES = 224, 448, 16
_SESSION_TOKENS = 8
# After an answer of one engine, before another one is asked: until then its process may still compute.
_PAUSE_SECONDS = 0.5


class Case(NamedTuple):
    """A case and what it is called. The seed is added for each round, so that no round sees what another has seen."""

    name: str
    message: dict[str, Any]

    @property
    def is_session(self) -> bool:
        """It is a stream that is shown pictures, not a number of requests."""
        return self.message["run"] == "session"


def requests(name: str, count: int, tokens: int, media: str = "text", side: int = SIDE) -> Case:
    """`count` requests at once, each answered with `tokens` tokens."""
    message = {"run": "requests", "count": count, "media": media, "side": side, "tokens": tokens}
    return Case(name, message | {"frames": VIDEO_FRAMES})


def session(frames: int) -> Case:
    """A stream with so many pictures, each of 224 x 224."""
    message = {"run": "session", "frames": frames, "side": SIDE, "tokens": _SESSION_TOKENS}
    return Case(f"{frames} pictures", message)


def latency_cases(frames: Sequence[int], tokens: int) -> list[Case]:
    """One request of each kind, and sessions of these lengths."""
    return [
        requests("text", 1, tokens),
        requests(f"image {IMAGE_SIDE}", 1, tokens, "image", IMAGE_SIDE),
        requests(f"video {VIDEO_FRAMES}x{SIDE}", 1, tokens, "video"),
        *(session(count) for count in frames),
    ]


def guessed_cases(tokens: int, sees: bool) -> list[Case]:
    """One request of each kind, and some at once, whose tokens are guessed. `sees`: the model takes images."""
    return [
        requests("text", 1, tokens),
        requests("repeated text", 1, tokens, "repeated"),
        requests("4 repeated texts", 4, tokens, "repeated"),
        *([requests(f"image {IMAGE_SIDE}", 1, tokens, "image", IMAGE_SIDE)] if sees else []),
    ]


def throughput_cases(counts: Sequence[int], tokens: int, image_tokens: int) -> list[Case]:
    """So many text requests at once, and the largest number of requests with an image each."""
    most = max(counts)
    return [
        *(requests(f"{count} text", count, tokens) for count in counts),
        requests(f"{most} image {SIDE}", most, image_tokens, "image"),
    ]


async def measure(engines: Mapping[str, Runs], cases: Sequence[Case], rounds: int) -> dict[str, Measured]:
    """Each case on each engine in turn, `rounds` times and once before that which is not counted.

    In every second round the engines run in the opposite order, so that none always comes after the same one.
    """
    measured: dict[str, Measured] = {name: {case.name: [] for case in cases} for name in engines}
    for turn in range(rounds + 1):
        progress(f"round {turn} of {rounds}" if turn else "warming up")
        for number, case in enumerate(cases):
            message = case.message | {"seed": turn * 1000 + number}
            order = list(engines) if turn % 2 else list(engines)[::-1]
            for name in order:
                if len(engines) > 1:
                    await asyncio.sleep(_PAUSE_SECONDS)
                answer = await engines[name](message)
                if turn:
                    measured[name][case.name].append(answer)
    return measured
