"""A client sees how timely its media is: in the events, and in the figures of the server. Who cannot be served is told
why, and nobody else is.
"""

from __future__ import annotations

import asyncio

import pytest
from harness import get, run, serving
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import OverloadError
from penstock.server.client import connect
from penstock.streams.event import Appended, ReplyDone, Token
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.fixtures.recipe import model_path
from tests.reference.media import frames

CAMERA = Request(format="live", policy="latest", video_fps=2.0)
STEP_US = 500_000


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The small Omni model, loaded before the time of a test runs."""
    return load(model_path("omni"), EngineConfig())


def test_a_client_sees_lag_age_and_synchrony_over_the_wire(loaded: Loaded) -> None:
    async def main() -> None:
        async with Engine(loaded, EngineConfig()) as engine, serving(engine) as url, connect(url) as connection:
            loop = asyncio.get_running_loop()
            async with await connection.stream(CAMERA) as stream:
                began = loop.time()
                for number, pixels in enumerate(frames(1, 4)):
                    await stream.append(VideoFrame(pixels, number * STEP_US))
                await stream.ask("What?", SamplingParams(max_tokens=5))
                heard: list[tuple[object, float]] = []
                async for event in stream:
                    heard.append((event, 1e6 * (loop.time() - began)))
                    if isinstance(event, ReplyDone):
                        break
                pieces = [(event, at_us) for event, at_us in heard if isinstance(event, Appended)]
                assert len(pieces) == 2
                for piece, at_us in pieces:
                    assert piece.lag_us is not None and 0 < piece.lag_us < at_us
                    assert 0 <= piece.overdue_us < piece.lag_us
                tokens = [(event, at_us) for event, at_us in heard if isinstance(event, Token)]
                ages = [token.age_us for token, at_us in tokens if token.age_us is not None and token.age_us < at_us]
                assert len(ages) == 5 and ages == sorted(ages) and ages[0] > 0, "older with each token"
                status, body = await get(url, "/health")
                assert status == 200
                (figures,) = body["engine"]["timeliness_by_stream"].values()
                assert figures == body["engine"]["timeliness"]
                overdue = sum(piece.overdue_us > 0 for piece, _ in pieces)
                assert (figures["pieces"], figures["missed"], figures["dropped"]) == (2, overdue, {})
                assert figures["synchrony"] == 1 - overdue / 2
                lags = [piece.lag_us / 1000 for piece, _ in pieces if piece.lag_us is not None]
                assert figures["lag_ms"] == {"p50": min(lags), "p95": max(lags)}
                assert figures["age_ms"] == {"p50": ages[2] / 1000, "p95": ages[4] / 1000}
            assert engine.statistics()["timeliness_by_stream"] == {}

    run(main)


def test_who_cannot_be_served_in_time_is_told_why_and_others_go_on(loaded: Loaded) -> None:
    async def main() -> None:
        async with Engine(loaded, EngineConfig()) as engine, serving(engine) as url, connect(url) as connection:
            async with await connection.stream(CAMERA) as first:
                for _ in range(64):  # as on a machine on which a row takes a tenth of a second
                    engine._wiring.schedule._admission.piece("video", 16)
                    engine._wiring.schedule._admission.encoded(16, 800.0)
                    engine._wiring.schedule._admission.stepped(16, 800.0)
                with pytest.raises(OverloadError, match="at most 0% .* needs 160%"):
                    await connection.stream(CAMERA)
                await first.append(VideoFrame(frames(1, 1)[0], 0))
                reply = await first.ask("What?", SamplingParams(max_tokens=2))
                assert await reply.text() is not None
            await (await connection.stream(Request(format="live", policy="latest"))).close()

    run(main)
