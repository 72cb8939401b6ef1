"""A client asks about the last seconds at their full frame rate, beside a narration, over the wire."""

from __future__ import annotations

import pytest
from harness import run, serving
from penstock.actors.engine import Engine
from penstock.actors.stream import Stream
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import InputError
from penstock.server.client import connect
from penstock.server.client_stream import ClientStream
from penstock.streams.item import VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.fixtures.recipe import model_path
from tests.reference.media import frames, png

CAMERA = Request(format="live", lookback=1.5)
CLIP = [png(pixels) for pixels in frames(2, 16)]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The small Omni model, loaded before the time of a test runs."""
    return load(model_path("omni"), EngineConfig())


async def asked(stream: Stream | ClientStream, **how: float) -> list[int]:
    """The answer aside, ten frames a second after the first."""
    for place, data in enumerate(CLIP):
        await stream.append(VideoFrame(data, place * 100_000))
    async with stream.aside("What came?", SamplingParams(max_tokens=8), **how) as reply:
        return [token.id async for token in reply]


def test_an_aside_over_the_wire_looks_back_as_in_process(loaded: Loaded) -> None:
    async def main() -> None:
        async with Engine(loaded, EngineConfig(kv_tokens=4096)) as engine, serving(engine) as url:
            async with await engine.stream(CAMERA) as stream:
                here = await asked(stream, lookback=1.0)
            async with await engine.stream(CAMERA) as stream:
                plainly = await asked(stream)
            async with connect(url) as connection:
                async with await connection.stream(CAMERA) as stream:
                    assert await asked(stream, lookback=1.0) == here != plainly
                    assert engine.statistics()["lookback_bytes"] == sum(map(len, CLIP[1:]))
                    with pytest.raises(InputError, match="at most 1.5, got 2"):
                        async with stream.aside("What?", lookback=2):
                            pass
                    assert await (await stream.ask("What?", SamplingParams(max_tokens=2))).text()
            assert engine.statistics()["lookback_bytes"] == 0

    run(main)
