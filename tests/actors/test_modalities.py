"""What a model does not take is refused to the one who sent it, by name; the stream goes on."""

from __future__ import annotations

import numpy as np
import pytest
from penstock.codecs.errors import InputError
from penstock.engine.brook.recipe import model_path
from penstock.engine.config import EngineConfig
from penstock.engine.core import load
from penstock.streams.event import Appended
from penstock.streams.item import AudioBytes, AudioChunk, Image, VideoBytes, VideoFrame
from penstock.streams.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader, shots
from tests.reference.media import picture

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
