"""What is appended in an order stands in the cache in that order, for every pair of item kinds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from penstock.actors.stream import Stream
from penstock.engine.family import Loaded
from penstock.streams.item import AudioBytes, AudioChunk, Image, Item, Text, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.reference.media import RATE, frames, picture, sound, wav

CHUNK = (sound(5, 0.6)[None] * 32767).astype(np.int16)
ITEMS: dict[str, Item] = {
    "text": Text("mountains"),
    "video": VideoFrame(frames(3, 1)[0]),  # alone: it waits for the second frame of its pair
    "audio": AudioChunk(CHUNK.tobytes(), RATE),  # 0.6 s of a block of 2 s
    "image": Image(picture(1, 60, 60)),
    "clip": AudioBytes(wav(sound(6, 0.7), RATE), final=True),
}


async def told(stream: Stream, words: list[int]) -> list[str]:
    """What the cache holds, kind by kind, in order."""
    kinds: list[str] = []
    for run in await stream.transcript():
        found = "".join(chr(id + 1) for id in run.ids)
        if run.seen is not None:
            kinds.append(run.seen.modality)
        elif "".join(chr(id + 1) for id in words) in found:
            kinds.append("text")
    return kinds


@pytest.mark.parametrize("format", ["turns", "live", "interrupt"])
def test_every_pair_of_kinds_in_every_order(loaded: Loaded, format: str) -> None:
    house = House(loaded, encoded=False)
    words = house.loaded.family.text_ids("mountains")

    async def work() -> None:
        async with house.engine() as engine:
            for first, second in itertools.product(ITEMS, repeat=2):
                names = [first, second, first, "text"]
                async with await engine.stream(Request(format=format)) as stream:
                    for name in names:
                        await stream.append(ITEMS[name])
                    await (await stream.ask("?", SamplingParams(max_tokens=1))).text()
                    kinds = [name.replace("clip", "audio") for name in names]
                    expected = [kind for kind, _ in itertools.groupby(kinds)]
                    assert [kind for kind, _ in itertools.groupby(await told(stream, words))] == expected, names

    house.run(work())
