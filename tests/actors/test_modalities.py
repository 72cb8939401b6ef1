"""What a model does not take is refused to the one who sent it, by name; the stream goes on."""

from __future__ import annotations

import numpy as np
import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import InputError
from penstock.streams.event import Appended, Error
from penstock.streams.item import AudioBytes, AudioChunk, Image, VideoBytes, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader, shots
from tests.fixtures.recipe import model_path
from tests.reference.media import picture, sound

RATE = 16_000
SOUNDS = (AudioChunk(np.zeros(1600, np.float32), 16_000), AudioBytes(b"RIFF"))
SIGHTS = (Image(picture(1)), VideoFrame(picture(1)), VideoBytes(b"x"))


@pytest.mark.parametrize(("name", "takes"), [("llama", "text only"), ("qwen2_vl", "text, image, video")])
def test_only_what_the_model_takes_is_accepted(house: House, name: str, takes: str) -> None:
    loaded = load(model_path(name), EngineConfig())

    async def work() -> None:
        async with house.engine(loaded) as engine, await engine.stream(Request(format="live")) as stream:
            reader = Reader(stream)
            for item in SOUNDS if "video" in takes else (*SOUNDS, *SIGHTS):
                with pytest.raises(InputError, match=f"this model takes {takes}, got {type(item).__name__}"):
                    await stream.append(item)
            if "video" in takes:
                for frame in shots(1, 2):
                    await stream.append(frame)
                await stream.append(Image(picture(1)))
                await reader.see(Appended, 2)
            reply = await stream.ask("What do you see?", SamplingParams(max_tokens=4))
            assert await reply.text() and reply.reason == "length"

    house.run(work())


@pytest.mark.parametrize("early_ms", [1, 6, 10, 14, 40])
def test_sound_that_begins_just_before_a_unit_ends_costs_no_unit(house: House, early_ms: int) -> None:
    """What it has there is too short to be heard; it is what lies before the next unit's sound."""

    async def work() -> None:
        request = Request(format="turns", audio_in_video=True)
        async with house.engine() as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            for frame in shots(1, 9):
                await stream.append(frame)
            samples = sound(1, 2.2)[None]
            await stream.append(AudioChunk(samples, RATE, 2_000_000 - early_ms * 1000))
            assert await (await stream.ask("What do you hear?", SamplingParams(max_tokens=4))).text()
            assert not reader.of(Error)
            assert max(event.stop_us or 0 for event in reader.of(Appended)) >= 4_000_000

    house.run(work())
