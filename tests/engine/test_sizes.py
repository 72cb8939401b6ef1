"""A picture, or a pair of frames, has as many rows in a stream as the library's processor gives it in one shot."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Pixels
from penstock.engine.config import EngineConfig
from penstock.engine.families import qwen_vl, sizes
from penstock.engine.families.tried_towers import TriedTowers
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import InputError, ModelError
from penstock.streams.requests.options import sized
from penstock.streams.requests.prompt import Content, Media
from penstock.streams.segment import ImageSegment
from penstock.streams.timeline import Timeline
from PIL import Image
from transformers.video_utils import VideoMetadata

from tests.fixtures.recipe import model_path

# Height and width: landscape, portrait, tiny, huge, extreme.
GRID = [(1080, 1920), (1920, 1080), (3, 5), (1, 1), (2000, 1600), (20, 2000), (1500, 9)]
AREA = {"min_pixels": 32 * 28 * 28, "max_pixels": 40 * 28 * 28}


@pytest.fixture(scope="module", params=["omni", "qwen3_omni"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """An Omni whose files name the sizes of the published checkpoints."""
    folder = tmp_path_factory.mktemp(request.param) / "model"
    shutil.copytree(model_path(request.param), folder)
    file = folder / "processor_config.json"
    config = json.loads(file.read_text())
    for part in ("image_processor", "video_processor"):
        config[part]["size"] = {"shortest_edge": 56 * 56, "longest_edge": 12_845_056}
    file.write_text(json.dumps(config))
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    del config["size"]
    file.write_text(json.dumps(config))
    return load(folder, EngineConfig())


def streamed(loaded: Loaded, kind: str, shape: tuple[int, int], count: int, options: dict[str, int]) -> int:
    """Rows of one picture, or of a clip whose length was declared, by the rules of a stream."""
    timeline = Timeline(sized(loaded.family.spec, options), expected_frames=count)
    pixels = np.zeros((*shape, 3), dtype=np.uint8)
    if kind == "image":
        segments = timeline.image(1, pixels).segments
    else:
        step = round(1_000_000 / loaded.family.spec.video_fps)
        segments = timeline.feed(1, [Pixels(pixels, at * step) for at in range(count)]).segments
        segments += timeline.flush(2).segments
    return sum(loaded.towers.rows(segment) for segment in segments)


def one_shot(loaded: Loaded, kind: str, shape: tuple[int, int], count: int, options: dict[str, int]) -> int:
    """Rows of the same in a whole prompt: pieces of media by the plain processor, called with what the user asks."""
    towers: Any = loaded.towers
    processor, token = towers.processor, towers.placeholders()[kind]
    pixels = np.zeros(shape if kind == "image" else (count, *shape), dtype=np.uint8)[..., None].repeat(3, axis=-1)
    content = Content([Media(kind, pixels)], text=token, options=dict(options), video_fps=2.0)
    asked = towers.media_options({"image": [], "video": [], "audio": [], kind: [pixels]}, content) if options else {}
    if kind == "video":
        known = VideoMetadata(total_num_frames=count, fps=2.0, frames_indices=list(range(count)))
        frames = {"do_sample_frames": False, "video_metadata": [[known]] if towers.nested else [known]}
        asked = {**asked, "videos_kwargs": {**asked.get("videos_kwargs", {}), **frames}}
    piece = Image.fromarray(pixels) if kind == "image" else torch.from_numpy(pixels).permute(0, 3, 1, 2)
    media = [[piece]] if towers.nested else [piece]
    ids = processor(text=[token], **{f"{kind}s": media}, return_tensors="pt", **asked)["input_ids"][0]
    return int((ids == processor.tokenizer.convert_tokens_to_ids(token)).sum())


def check(loaded: Loaded, kind: str, shape: tuple[int, int], count: int = 2, **options: int) -> None:
    try:
        expected = one_shot(loaded, kind, shape, count, options)
    except ValueError as error:
        assert "aspect ratio" in str(error)
        with pytest.raises(InputError, match="aspect ratio"):
            streamed(loaded, kind, shape, count, options)
    else:
        assert streamed(loaded, kind, shape, count, options) == expected, (kind, shape, count, options)


@pytest.mark.parametrize("shape", GRID, ids=str)
def test_of_sight(sight_served: Loaded, shape: tuple[int, int]) -> None:
    check(sight_served, "image", shape)
    check(sight_served, "video", shape)
    check(sight_served, "image", shape, **AREA)
    check(sight_served, "video", shape, **AREA)


@pytest.mark.parametrize("shape", GRID, ids=str)
def test_of_sight_and_sound(published: Loaded, shape: tuple[int, int]) -> None:
    if shape[0] * shape[1] < 1 << 18:  # its pictures have up to 16k rows
        check(published, "image", shape)
    check(published, "video", shape)
    check(published, "video", shape, **AREA)


def test_frames_have_the_size_that_the_processor_asks_for_and_not_that_of_its_part(published: Loaded) -> None:
    rows = {"qwen2_5_omni": 720, "qwen3_omni_moe": 966}[published.family.data.name]
    doors = (streamed, one_shot)
    assert [door(published, "video", (1080, 1920), 2, {}) for door in doors] == [rows, rows]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(2, 9), st.integers(1, 40), st.integers(0, 40))
def test_of_any_size_length_and_bounds(
    sight_served: Loaded, height: int, width: int, count: int, least: int, more: int
) -> None:
    rule = sight_served.family.spec.image
    assert rule is not None
    factor = rule.factor**2
    options = {"min_pixels": least * factor, "max_pixels": (least + more) * factor + 17}
    check(sight_served, "image", (height, width), **options)
    check(sight_served, "video", (height, width), count)


@pytest.mark.parametrize("shape", GRID, ids=str)
def test_of_towers_of_one_size(still_served: Loaded, shape: tuple[int, int]) -> None:
    """In a stream a picture is one tile, as it is in a prompt among several, and its rows are the same."""
    towers: Any = still_served.towers
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    options = {"do_image_splitting": False} if still_served.family.data.name == "smolvlm" else {}
    token = towers.placeholders()["image"]
    content = Content([Media("image", pixels)] * 2, text=f"{token} and {token}", options=options)
    timeline = Timeline(still_served.family.spec)
    (segment,) = timeline.image(1, pixels).segments
    assert isinstance(segment, ImageSegment)
    ((_, alone),) = towers.encode([(1, segment)])
    first = next(part for part in towers.prompt(content).embeds if part is not None)
    assert towers.rows(segment) == len(alone.rows) == len(first.rows)
    assert torch.allclose(alone.rows, first.rows, atol=1e-4)


def test_what_is_too_long_is_refused_through_every_door(still_served: Loaded) -> None:
    towers: Any = still_served.towers
    pixels = np.zeros((1, 201, 3), dtype=np.uint8)
    content = Content([Media("image", pixels)], text=towers.placeholders()["image"])
    for door in (lambda: towers.prompt(content), lambda: Timeline(still_served.family.spec).image(1, pixels)):
        with pytest.raises(InputError, match="picture of 201 x 1: expected an aspect ratio of at most 200, got 201"):
            door()


def test_a_size_that_the_tokenizers_file_names_holds_through_every_door() -> None:
    """As Brook's does: only it goes before what the processor would ask for of frames."""
    loaded = load(model_path("omni"), EngineConfig())
    frames = np.zeros((4, 300, 400, 3), dtype=np.uint8)
    towers: Any = loaded.towers
    content = Content([Media("video", frames)], text=towers.placeholders()["video"], video_fps=2.0)
    rows = sum(len(part.rows) for part in towers.prompt(content).embeds if part is not None)
    assert rows == streamed(loaded, "video", (300, 400), 4, {}) == 2 * 12


def test_a_rule_that_the_processor_does_not_follow_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learnt is compared with what comes out. Then the model is served as one that nobody named, if it can."""
    monkeypatch.setattr(sizes, "fit", lambda rule, height, width: (28, 28))
    where = (model_path("qwen2_5_vl"), torch.float32, torch.device("cpu"))
    with pytest.raises(ModelError, match=r"its processor makes 40 x 9 pixels of image \d+ x \d+, expected 28 x 28 by"):
        qwen_vl.load(*where)
    assert isinstance(load(model_path("qwen2_5_vl"), EngineConfig()).towers, TriedTowers)
