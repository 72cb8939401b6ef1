"""Rows that were made elsewhere, in prompts. The law: rows that the model's own towers made are the same prompt as the
medium in whose place they are, whatever stands beside them; and in a stream they are laid as in a prompt."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import PenstockError
from penstock.streams.item import Embedding, Image, Text
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import ImageSegment, VideoSegment
from penstock.streams.size import fit
from safetensors.torch import save

from tests.actors.conftest import House
from tests.actors.test_embedding import as_item, made
from tests.families.built import BUILDERS
from tests.families.suite import opened
from tests.fixtures.loaded import served
from tests.fixtures.recipe import model_path
from tests.reference.media import picture, sound

SHORT = SamplingParams(max_tokens=6, temperature=0)
# One tile a picture, as in a stream: rows of several tiles are for those who made them to bring.
ONE_TILE: dict[str, dict[str, Any]] = {
    "omni": {},
    "qwen2_vl": {},
    "qwen3_vl": {},
    "llava": {},
    "gemma3": {},
    "smolvlm": {"do_image_splitting": False},
}
RATE = 16_000

Laid = list[tuple[list[int], list[list[int]]]]


async def told(engine: Engine, **request: Any) -> tuple[Laid, str]:
    """How a prompt is laid out, row by row, and what is said."""
    async with await engine.stream(Request(params=SHORT, window=None, **request)) as stream:
        said = await (await stream.prompted()).text()
        runs = await stream.transcript()
    ids = [id for run in runs for id in run.ids]
    places = [sum((run.positions[axis] for run in runs), start=[]) for axis in range(3)]
    return [(ids, places)], said


def message(*parts: Any, system: str | None = None) -> list[dict[str, Any]]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


def shown(loaded: Loaded, seed: int) -> tuple[np.ndarray, Embedding]:
    """A picture, and the rows that the tower makes of it."""
    rule = loaded.family.spec.image
    assert rule is not None
    pixels = np.asarray(picture(seed, *fit(rule, 70, 90)))
    return pixels, as_item(made(loaded, ImageSegment(1, 0, pixels)), "image")


def heard(loaded: Loaded, seconds: float) -> tuple[np.ndarray, Embedding]:
    """A sound, and the rows that the tower makes of all of it."""
    from penstock.streams.requests.prompt import Content, Media

    samples = sound(3, seconds)
    towers: Any = loaded.towers
    prompt = towers.prompt(Content([Media("audio", samples)], text=towers.placeholders()["audio"], video_fps=2.0))
    [rows] = [part.rows for part in prompt.embeds if part is not None]
    return samples, Embedding(rows.numpy(), "audio")


def part(item: Embedding) -> dict[str, Any]:
    return {"type": "embedding", "embedding": item}


@pytest.mark.parametrize("name", ONE_TILE)
def test_rows_in_place_of_some_pictures_are_the_same_prompt(house: House, name: str) -> None:
    """Each of two pictures, both and none; in one message and in two."""
    loaded = served(name)
    pictures, rows = zip(*(shown(loaded, seed) for seed in (1, 2)), strict=True)
    options = ONE_TILE[name]

    async def work() -> None:
        async with house.engine(loaded) as engine:
            found = []
            for ready in ((), (0,), (1,), (0, 1)):
                first, second = (
                    part(rows[place]) if place in ready else {"type": "image", "image": pictures[place]}
                    for place in range(2)
                )
                found.append(
                    await told(engine, messages=message("See: ", first, "or", second, " Well?"), processor=options)
                )
            assert all(one == found[0] for one in found[1:])
            other = [{"type": "image", "image": pictures[1]}, {"type": "image", "image": pictures[0]}]
            assert (await told(engine, messages=message(*other, "Well?"), processor=options))[1] != found[0][1]

    house.run(work())


@pytest.mark.parametrize("name", ["idefics2", "video_llava"])
def test_rows_are_the_picture_in_a_model_that_nobody_named(house: House, name: str, tmp_path: Path) -> None:
    loaded = opened(BUILDERS[name].build(tmp_path)).loaded
    pixels = [picture(seed, 56, 84) for seed in (1, 2)]
    rows = as_item(made(loaded, ImageSegment(1, 0, pixels[0])), "image")

    async def work() -> None:
        async with house.engine(loaded) as engine:
            first, second = ({"type": "image", "image": one} for one in pixels)
            if name == "idefics2":  # its processor lays marks
                with pytest.raises(PenstockError, match="embedding: expected kind text, got 'image'"):
                    await told(engine, messages=message(part(rows), "Well?"))
                return
            plain = await told(engine, messages=message(first, "and", second, "Well?"))
            assert await told(engine, messages=message(part(rows), "and", second, "Well?")) == plain

    house.run(work())


def test_rows_and_media_of_several_kinds_in_any_order(house: House) -> None:
    loaded = house.loaded
    pixels, seen = shown(loaded, 1)
    samples, ear = heard(loaded, 1.3)
    clip = np.stack([np.asarray(picture(seed, 56, 84)) for seed in (3, 4)])
    words = "a red door"
    spelt = loaded.text.get_input_embeddings()(torch.tensor(loaded.family.spelling.ids(words))).detach().numpy()
    image, video = {"type": "image", "image": pixels}, {"type": "video", "video": clip}
    audio = {"type": "audio", "audio": samples}
    orders = [
        ([image, video, "Look.", audio], [part(seen), video, "Look.", part(ear)]),
        ([audio, "Hear:\n", words, image, audio], [audio, "Hear:\n", part(Embedding(spelt, "text")), image, part(ear)]),
        ([video, image, words, image], [video, part(seen), part(Embedding(spelt, "text")), image]),
    ]

    async def work() -> None:
        async with house.engine() as engine:
            for plain, ready in orders:
                (laid, said), (other, same) = [await told(engine, messages=message(*parts)) for parts in (plain, ready)]
                assert said == same
                assert laid[0][1] == other[0][1]

    house.run(work())


def test_rows_of_several_kinds_stand_where_their_placeholders_do(house: House) -> None:
    """Among the media of a prompt only the order of one kind counts."""
    loaded = house.loaded
    (pixels, seen), (samples, ear) = shown(loaded, 1), heard(loaded, 0.7)
    towers: Any = loaded.towers
    image, audio = (towers.placeholders()[kind] for kind in ("image", "audio"))
    text = f"<|vision_bos|>{image}<|vision_eos|>Or<|audio_bos|>{audio}<|audio_eos|>?<|im_end|>"

    async def work() -> None:
        async with house.engine() as engine:
            plain = await told(engine, prompt=text, media=[pixels, samples])
            for media in ([seen, ear], [ear, seen], [samples, seen], [ear, pixels]):
                assert await told(engine, prompt=text, media=media) == plain

    house.run(work())


def test_frames_and_a_block_that_the_model_closes_with_a_row_of_its_own(house: House) -> None:
    """The rows of a clip of several patches stand at its times; those of LLaVA-OneVision end with its new line."""
    for name in ("qwen2_5_vl", "llava_onevision"):
        loaded = served(name)
        patch = loaded.family.spec.temporal_patch
        clip = np.stack([np.asarray(picture(seed, 56, 84)) for seed in range(3 * patch)])
        pieces = [made(loaded, VideoSegment(1, at, clip[at : at + patch], 0, 0)) for at in range(0, len(clip), patch)]
        rows = torch.cat([piece.embeds.rows for piece in pieces]).numpy()
        _, height, width = pieces[0].span.grid
        item = Embedding(rows, "video", (len(pieces), height, width) if height else None)

        async def work(loaded: Loaded, clip: np.ndarray, item: Embedding) -> None:
            async with house.engine(loaded) as engine:
                plain = await told(engine, messages=message({"type": "video", "video": clip}, "Well?"))
                assert await told(engine, messages=message(part(item), "Well?")) == plain

        house.run(work(loaded, clip, item))


@pytest.mark.parametrize("name", ["gemma3", "omni", "llava_onevision"])
def test_a_stream_lays_rows_as_a_prompt_does(house: House, name: str) -> None:
    loaded = served(name)
    _, rows = shown(loaded, 1)

    async def work() -> None:
        async with house.engine(loaded) as engine:
            [(ids, places)], said = await told(engine, messages=message(part(rows), "Well?"))
            async with await engine.stream(Request(format="turns", window=None)) as stream:
                await stream.append(rows)
                assert await (await stream.ask("Well?", SHORT)).text() == said
                runs = await stream.transcript()
            assert ids == [id for run in runs for id in run.ids]
            assert places[0] == [place for run in runs for place in run.positions[0]]

    house.run(work())


def test_an_engine_without_towers_takes_a_prompt_of_rows(house: House) -> None:
    loaded = house.loaded
    pixels, rows = shown(loaded, 1)
    bare = load(model_path("omni"), EngineConfig(language_only=True))

    async def work() -> None:
        async with house.engine() as engine:
            plain = await told(engine, messages=message({"type": "image", "image": pixels}, "Well?"))
        async with house.engine(bare) as engine:
            assert await told(engine, messages=message(part(rows), "Well?")) == plain
            with pytest.raises(PenstockError, match="no tower is loaded"):
                await told(engine, messages=message({"type": "image", "image": pixels}, "Well?"))

    house.run(work())


def test_every_form_of_the_rows_is_the_same_prompt(house: House, tmp_path: Path) -> None:
    loaded = served("qwen2_vl")
    _, item = shown(loaded, 1)
    grid = list(item.grid or ())
    from penstock.codecs.tensors import read_tensors

    assert isinstance(item.data, bytes)
    rows = read_tensors(item.data)["rows"]
    path = tmp_path / "rows.safetensors"
    path.write_bytes(item.data)
    file, raw = (base64.b64encode(data).decode() for data in (item.data, rows.tobytes()))
    as_raw = {"data": raw, "dtype": "float32", "shape": list(rows.shape), "grid": grid}
    forms: list[dict[str, Any]] = [
        part(item),
        {"type": "embedding", "kind": "image", "embedding": rows, "grid": grid},
        {"type": "embedding", "base64": file, "grid": grid},
        {"type": "embedding", "path": str(path), "grid": grid},
        {"type": "image_embeds", "image_embeds": file, "grid": grid},
        {"type": "image_embeds", "image_embeds": f"data:;base64,{file}", "grid": grid},
        {"type": "image_embeds", "image_embeds": as_raw},
    ]
    towers: Any = loaded.towers
    text = f"<|vision_start|>{towers.placeholders()['image']}<|vision_end|> Well?"
    ids = loaded.family.tokenizer(text)["input_ids"]

    async def work() -> None:
        async with house.engine(loaded) as engine:
            told_all = [await told(engine, messages=message(form, "Well?")) for form in forms]
            assert all(one == told_all[0] for one in told_all)
            by_text = await told(engine, media=[item], prompt=text)
            by_ids = await told(engine, media=[item], prompt_ids=ids)
            assert by_text == by_ids
            assert by_text[0][0][0].count(loaded.family.spec.rows.ids["image"]) == len(rows)

    house.run(work())


def test_rows_among_ids_are_refused_where_a_processor_sets_words_around_them(house: House) -> None:
    """Among ids nothing would set them, and the rows would stand bare."""
    loaded = served("gemma3")
    item = shown(loaded, 1)[1]
    towers: Any = loaded.towers
    ids = loaded.family.tokenizer(towers.placeholders()["image"])["input_ids"]

    async def work() -> None:
        async with house.engine(loaded) as engine:
            with pytest.raises(PenstockError, match="prompt_ids: expected messages or text for an embedding of kind"):
                await told(engine, media=[item], prompt_ids=ids)

    house.run(work())


@pytest.mark.parametrize("name", ["text", "omni"])
def test_the_embeddings_of_words_are_the_words(house: House, name: str) -> None:
    """All of a prompt, and a part of it."""
    loaded = served(name)
    ids = loaded.family.spelling.ids("See: a red door, and?")
    rows = loaded.text.get_input_embeddings()(torch.tensor(ids)).detach().numpy()

    async def work() -> None:
        async with house.engine(loaded) as engine:
            plain = await told(engine, prompt_ids=ids)
            for start, stop in ((0, len(ids)), (2, 4)):
                given = [*ids[:start], -1, *ids[stop:]]
                same = await told(engine, prompt_ids=given, media=[Embedding(rows[start:stop], "text")])
                assert (same[0][0][1], same[1]) == (plain[0][0][1], plain[1])
            door = loaded.text.get_input_embeddings()(torch.tensor(loaded.family.spelling.ids("a red door")))
            words = Embedding(door.detach().numpy(), "text")
            if name == "omni":
                by_words = await told(engine, messages=message("See:", "a red door", "!"))
                by_rows = await told(engine, messages=message("See:", part(words), "!"))
            else:
                by_words = await told(engine, messages=[{"role": "user", "content": "See:\na red door\n!"}])
                by_rows = await told(engine, messages=message("See:\n", part(words), "\n!"))
            assert by_words[1] == by_rows[1]

    house.run(work())


def test_rows_that_do_not_fit_are_refused_by_their_place(house: House) -> None:
    loaded = house.loaded
    width = loaded.family.spec.rows.width
    good = np.zeros((4, width), np.float32)
    broken = good.copy()
    broken[1, 1] = np.inf
    raw = base64.b64encode(good.tobytes()).decode()
    pickled = base64.b64encode(b"\x80\x04\x95rest of a pickle").decode()
    image: dict[str, Any] = {"type": "image_embeds"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({**image, "image_embeds": Embedding(good, "audio")}, "expected an embedding of image .*, got one of audio"),
        ({**image, "image_embeds": Embedding(good, "image"), "pts_us": 1}, "all of itself, got .* pts_us beside it"),
        ({**image, "image_embeds": raw, "base64": True, "dtype": ["float32"], "shape": [4, width]}, "dtype: expected"),
        ({**image, "image_embeds": raw, "base64": True, "dtype": "float32", "shape": [1] * 65}, "shape: expected"),
        (part(Embedding(good[:, 1:], "image", (1, 2, 2))), rf"embedding: expected rows \(n, {width}\) with n"),
        (part(Embedding(broken, "audio")), "embedding: expected finite numbers as rows, got NaN or infinity"),
        (part(Embedding(good, "image")), r"expected the grid \(temporal patches, height, width\) of its rows"),
        (image | {"image_embeds": pickled}, "expected a safetensors file, got bytes that are none"),
        (image | {"image_embeds": "no base64!"}, "expected base64, got"),
        (image | {"image_embeds": None}, "expected base64 of a safetensors file or of numbers, got null"),
        (image | {"rows": raw}, "expected its rows under 'image_embeds', got only"),
        (image | {"image_embeds": raw, "dtype": "float32"}, "expected dtype and shape beside raw bytes"),
        (image | {"image_embeds": raw, "dtype": "int8", "shape": [4, width]}, "dtype: expected float32, float16"),
        (
            image | {"image_embeds": raw, "dtype": "float16", "shape": [4, width]},
            rf"expected {8 * width} bytes of float16 in the shape \[4, {width}\], got {16 * width}",
        ),
        (image | {"image_embeds": raw, "dtype": "float32", "shape": [4.5]}, "shape: expected whole numbers"),
        (image | {"image_embeds": raw, "grid": [1, 2]}, "grid: expected three whole numbers, got a list of 2"),
        ({"type": "embedding", "embedding": raw, "kind": "smell"}, "kind: expected image, video, audio or text"),
    ]

    async def work() -> None:
        async with house.engine() as engine:
            for given, words in wrong:
                with pytest.raises(PenstockError) as refusal:
                    await told(engine, messages=message("Look:", given))
                assert re.search(r"^messages\[0\]\.content\[1\].*" + words, str(refusal.value)), refusal.value
            with pytest.raises(PenstockError, match=r"media\[0\]: embedding: expected rows"):
                await told(engine, prompt="<|IMAGE|>", media=[Embedding(good[:, 1:], "image", (1, 2, 2))])
            with pytest.raises(PenstockError, match="prompt_ids: expected an embedding of kind text for each -1"):
                await told(engine, prompt_ids=[1, -1])
            with pytest.raises(PenstockError, match="expected 0 of <|IMAGE|>, got 1 image"):
                await told(engine, prompt="Hello", media=[Embedding(good, "image", (1, 2, 2))])
            with pytest.raises(PenstockError, match="expected at most 1 image, got 2"):
                async with house.engine(limits_per_request={"image": 1}) as bounded:
                    two = [part(Embedding(good, "image", (1, 2, 2)))] * 2
                    await told(bounded, messages=message(*two, "Well?"))
        async with house.engine(served("qwen3_vl")) as engine:
            rows = made(served("qwen3_vl"), VideoSegment(1, 0, np.zeros((2, 56, 56, 3), np.uint8), 0, 1))
            with pytest.raises(PenstockError, match="expected no video in a prompt for this model"):
                await told(engine, messages=message(part(as_item(rows, "video", pts_us=0, stop_us=1)), "Well?"))

    house.run(work())


def test_a_part_of_rows_goes_into_a_stream_as_the_item_does(house: House) -> None:
    """After a prompt with rows, media and words go on behind them."""
    loaded = house.loaded
    pixels, rows = shown(loaded, 1)

    async def work() -> None:
        async with house.engine() as engine:
            found = []
            for first in ({"type": "image", "image": pixels}, part(rows)):
                request = Request(messages=message(first, "Well?"), params=SHORT, window=None)
                async with await engine.stream(request) as stream:
                    await (await stream.prompted()).text()
                    await stream.append(Image(pixels))
                    await stream.append(Text("And this?"))
                    said = await (await stream.ask("So?", SHORT)).text()
                    found.append((said, [run.positions for run in await stream.transcript()]))
            flat = [[place for run in runs for place in run[0]] for _, runs in found]
            assert (found[0][0], flat[0]) == (found[1][0], flat[1])

    house.run(work())


def test_what_is_saved_of_a_file_is_what_was_sent() -> None:
    """bfloat16 too, which numpy has not."""
    from penstock.codecs.tensors import from_raw, read_tensors

    rows = torch.randn(3, 4).to(torch.bfloat16)
    raw = rows.view(torch.uint16).numpy().tobytes()
    assert np.array_equal(from_raw(raw, "bfloat16", (3, 4)), rows.float().numpy())
    assert np.array_equal(read_tensors(save({"rows": rows}))["rows"], rows.float().numpy())
