"""Frames sent over a WebSocket change the reply that is running, from the very next token on and not before.

One reply runs while two more frame pairs come from a client. Everything is real but the moment of two steps: the
scheduler waits with the step behind token `FIRST` (and `SECOND`) until the pair that the client sends on reading that
token has been encoded. So two runs place every row alike, whatever arrives when.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from harness import run, serving
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.plan import Feed, Plan, Result
from penstock.server.client import connect
from penstock.streams.event import Appended, Event, Seen, Token
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.encoded import encode_all
from tests.fixtures.recipe import model_path

FIRST, SECOND, TOKENS = 7, 15, 26
STEP_US = 500_000


class Watched:
    """Holds the steps of one stream as told above, and keeps what each of its steps was given and gave."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.stream = 0
        self.feeds: list[Feed] = []  # of the stream's steps, in order
        self.logits: list[torch.Tensor] = []  # of the rows that gave tokens, in order
        self.rows: list[Any] = []  # the transcript

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """While it is watched."""
        scheduler = self._engine._wiring.schedule._scheduler
        language = self._engine._wiring.generate._language
        plan, step = scheduler.plan, language.run

        def held_plan() -> Plan | None:
            state = scheduler.streams.get(self.stream)
            return None if state is not None and self._waits(state) else plan()

        def kept_step(plan: Plan) -> Result:
            result = step(plan)
            drawn = [feed for feed in plan.feeds if feed.draw is not None]
            for feed in plan.feeds:
                if feed.stream == self.stream:
                    self.feeds.append(feed)
            for number, feed in enumerate(drawn):
                if feed.stream == self.stream:
                    assert language.logits is not None and len(language.logits) == len(drawn)
                    self.logits.append(language.logits[number].clone())
            return result

        scheduler.plan, language.run = held_plan, kept_step
        try:
            yield
        finally:
            scheduler.plan, language.run = plan, step

    def _waits(self, state: Any) -> bool:
        if state.reply is None:
            return state.replies == 0  # All that comes before the reply is fed in one step.
        media = sum(rows.seen is not None for rows in state.laid) + sum(len(input.spans) for input in state.inputs)
        said = len(state.reply.ids)
        return media < 1 + (said >= FIRST) + (said >= SECOND)


def pair(seed: int) -> list[np.ndarray]:
    """Two frames of noise, `(84, 84, 3)` uint8."""
    return list(np.random.default_rng(seed).integers(0, 255, (2, 84, 84, 3), dtype=np.uint8))


async def play(engine: Engine, url: str, pairs: list[list[np.ndarray]]) -> tuple[Watched, list[Event]]:
    """Ask behind the first pair, send the others when token FIRST and SECOND have been read; gives all events."""
    watched = Watched(engine)
    with watched.on():
        async with connect(url) as connection:
            stream = await connection.stream(Request(format="live"))
            watched.stream = stream.id
            times = iter(range(0, 6 * STEP_US, STEP_US))
            for frame in pairs[0]:
                await stream.append(VideoFrame(frame, next(times)))
            reply = await stream.ask("What is there?", SamplingParams(max_tokens=TOKENS))
            async for token in reply:
                if token.index + 1 in (FIRST, SECOND):
                    for frame in pairs[1 if token.index + 1 == FIRST else 2]:
                        await stream.append(VideoFrame(frame, next(times)))
            watched.rows = engine._wiring.schedule._scheduler.transcript(stream.id)
            await stream.close()
            return watched, [event async for event in stream]


def tokens_before_last_append(events: list[Event]) -> int:
    """Tokens that came before the last `Appended`."""
    last = max(place for place, event in enumerate(events) if isinstance(event, Appended))
    return sum(isinstance(event, Token) for event in events[:last])


def seen_by_plan(feeds: list[Feed]) -> list[Seen | None]:
    """For each row that gave a token: the last span among all rows that it could attend to, from the plans alone."""
    rows: dict[int, Seen | None] = {}
    found: list[Seen | None] = []
    for feed in feeds:
        place = feed.first
        for part in feed.rows:
            rows.update((place + offset, part.seen) for offset in range(len(part)))
            place += len(part)
        if feed.draw is not None:
            found.append(next((rows[row] for row in range(place - 1, -1, -1) if rows[row] is not None), None))
    return found


@pytest.mark.parametrize("encoded", [False, True])
def test_a_frame_changes_the_very_next_token_and_none_before(encoded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if encoded:
        encode_all(monkeypatch)

    async def main() -> None:
        async with (
            await Engine.load(model_path("omni"), config=EngineConfig(prefix_cache=False)) as engine,
            serving(engine) as url,
        ):
            watched, events = await play(engine, url, [pair(1), pair(2), pair(3)])
            same, same_events = await play(engine, url, [pair(1), pair(2), pair(3)])
            other, other_events = await play(engine, url, [pair(1), pair(2), pair(4)])
            engine.check()

        told = [event for event in events if isinstance(event, Appended | Token)]
        kinds = "".join("a" if isinstance(event, Appended) else "t" for event in told)
        assert kinds == "a" + "t" * FIRST + "a" + "t" * (SECOND - FIRST) + "a" + "t" * (TOKENS - SECOND)
        assert tokens_before_last_append(events) == tokens_before_last_append(other_events) == SECOND

        spoken = [event for event in events if isinstance(event, Token)]
        newest = [1] * FIRST + [3] * (SECOND - FIRST) + [5] * (TOKENS - SECOND)  # The frame that each has seen.
        assert [token.seen and token.seen.stop_us for token in spoken] == [frame * STEP_US for frame in newest]
        assert [token.seen for token in spoken] == seen_by_plan(watched.feeds)

        assert len(watched.logits) == len(same.logits) == len(other.logits) == TOKENS
        assert [(rows.row, rows.positions, rows.seen) for rows in watched.rows] == [
            (rows.row, rows.positions, rows.seen) for rows in other.rows
        ], "expected both runs to place every row alike"
        # The same pixels give the same run, so what differs below comes from the pixels.
        assert all(torch.equal(first, second) for first, second in zip(watched.logits, same.logits, strict=True))
        again = [event for event in same_events if isinstance(event, Token)]
        assert [(token.id, token.text, token.seen) for token in again] == [
            (token.id, token.text, token.seen) for token in spoken
        ]
        for index in range(SECOND):
            assert torch.equal(watched.logits[index], other.logits[index]), f"token {index} has seen a later frame"
        assert (watched.logits[SECOND] - other.logits[SECOND]).abs().max() > 1e-2
        assert watched.logits[SECOND].argmax() == spoken[SECOND].id

    run(main)
