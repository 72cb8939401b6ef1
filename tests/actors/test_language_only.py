"""An engine without the weights of towers. The law: rows that the model's own towers made elsewhere give the reply of
the whole model; media itself is refused, with the way out."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from penstock.engine.config import EngineConfig
from penstock.engine.families.absent import AbsentTowers
from penstock.engine.family import Loaded
from penstock.engine.loading.forecast import forecast
from penstock.engine.loading.memory import weight_bytes
from penstock.engine.loading.open import load
from penstock.errors import InputError
from penstock.streams.item import Image, Text
from penstock.streams.requests.request import Request
from penstock.streams.segment import AudioSegment, ImageSegment, VideoSegment
from penstock.streams.size import fit

from tests.actors.conftest import House
from tests.actors.test_embedding import SHORT, as_item, made, told
from tests.actors.watch import shots
from tests.families.tiled import vipllava
from tests.fixtures.loaded import served
from tests.fixtures.recipe import model_path
from tests.reference.media import picture, sound

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3_omni", "qwen3_vl", "llava_onevision", "smolvlm")]
NAMES = ("omni", "gemma3", *SLOW)
ALONE = EngineConfig(language_only=True)


@cache
def alone(name: str) -> Loaded:
    return load(model_path(name), ALONE)


def tower_bytes(loaded: Loaded) -> int:
    """Of all that is not the decoder, its output layer or a row that closes a block."""
    towers: Any = loaded.towers
    inside = {*loaded.text.modules(), *loaded.head.modules()}
    whole = towers.model
    own = {id(whole), *(id(part) for part in whole.modules() if loaded.text in part.modules())}
    parts = [part for part in whole.modules() if part not in inside and id(part) not in own]
    tensors = {
        t.data_ptr(): t.nbytes for part in parts for t in (*part.parameters(False), *part.buffers(False))
    }  # fmt: skip
    return sum(tensors.values())


@pytest.mark.parametrize("name", NAMES)
def test_no_weights_of_towers_are_loaded_and_the_memory_says_so(name: str) -> None:
    whole, language = served(name), alone(name)
    assert isinstance(language.towers, AbsentTowers)
    towers: Any = language.towers.family_towers
    assert towers.model is not None and towers.blocks
    assert all(weight.is_meta for block in towers.blocks for weight in block.parameters())
    saved = tower_bytes(whole)
    assert saved > 0
    ending = sum(rows.nbytes for rows in language.family.endings.values())
    assert weight_bytes(whole) - weight_bytes(language) == saved + ending
    assert forecast(model_path(name), ALONE).memory.weight_bytes == weight_bytes(language)


def items(loaded: Loaded, name: str) -> list[Any]:
    """What the whole model's towers make of a picture, of frames, of sound."""
    spec = loaded.family.spec
    assert spec.image is not None
    found = [as_item(made(loaded, ImageSegment(1, 0, picture(1, *fit(spec.image, 70, 90)))), "image")]
    if spec.video is not None and name != "llava_onevision":
        frames = np.stack([np.asarray(shot.data) for shot in shots(1, spec.temporal_patch)])
        clip = made(loaded, VideoSegment(1, 1, frames, 0, 500_000))
        found.append(as_item(clip, "video", pts_us=0, stop_us=500_000))
    if spec.audio_rate:
        found.append(as_item(made(loaded, AudioSegment(1, 2, sound(1, 1.0), 0, 100, 0, 0, 1_000_000)), "audio"))
    return found


@pytest.mark.parametrize("name", ("omni", "gemma3", *SLOW[1:2]))
def test_rows_from_elsewhere_give_the_reply_of_the_whole_model(house: House, name: str) -> None:
    shown = [Text("Look:"), *items(served(name), name)]
    request = Request(messages=[{"role": "user", "content": "What is it?"}], params=SHORT)

    async def work() -> None:
        laid = []
        for loaded in (served(name), alone(name)):
            async with house.engine(loaded) as engine:
                async with await engine.stream(Request(window=None)) as stream:
                    laid.append((await told(stream, shown), await engine.generate(request)))
        assert laid[0] == laid[1]

    house.run(work())


def test_media_is_refused_with_the_way_out(house: House) -> None:
    parts = [{"type": "image", "image": picture(1, 70, 90)}, {"type": "text", "text": "What is it?"}]
    way = r"no tower is loaded \(language_only\): what an encoder elsewhere made of it comes in as Embedding"

    async def work() -> None:
        async with house.engine(alone("omni")) as engine:
            assert engine.info.modalities == () and engine.info.classes == {}
            assert set(engine.info.embeddings) == {"image", "video", "audio", "text"}
            assert set(engine.info.left_out) == {"image", "video", "audio", "unit"}
            async with await engine.stream(Request()) as stream:
                with pytest.raises(InputError, match=f"this model takes text only, got Image: {way}"):
                    await stream.append(Image(picture(1, 70, 90)))
            with pytest.raises(InputError, match=f"expected text, got 1 pieces of media: {way}"):
                await engine.generate(Request(messages=[{"role": "user", "content": parts}], params=SHORT))

    house.run(work())


def test_of_a_model_that_is_tried_the_towers_are_let_go_of(house: House, tmp_path: Path) -> None:
    """It is opened and tried whole; then it is the whole model without its towers."""
    folder = vipllava(tmp_path)
    whole, language = load(folder, EngineConfig()), load(folder, ALONE)
    assert isinstance(language.towers, AbsentTowers)
    assert weight_bytes(whole) - weight_bytes(language) == tower_bytes(whole) > 0
    assert forecast(folder, ALONE).memory.weight_bytes == weight_bytes(language)
    shown = [Text("Look:"), as_item(made(whole, ImageSegment(1, 0, picture(1, 70, 90))), "image")]

    async def work() -> None:
        laid = []
        for loaded in (whole, language):
            async with house.engine(loaded) as engine, await engine.stream(Request(window=None)) as stream:
                laid.append(await told(stream, shown))
        assert laid[0] == laid[1]
        async with house.engine(language) as engine, await engine.stream(Request()) as stream:
            with pytest.raises(InputError, match=r"takes text only, got Image: no tower is loaded"):
                await stream.append(Image(picture(1, 70, 90)))

    house.run(work())


def test_a_text_model_is_what_it_was() -> None:
    assert type(load(model_path("text"), ALONE).towers).__name__ == "NoTowers"
