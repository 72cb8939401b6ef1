"""A prompt with the model's own placeholders, and token ids with one placeholder for each piece of media, give what
`transformers.generate` gives for the same text and media; options of the processor hold as they do there.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.errors import InputError
from penstock.streams.event import ReplyDone, Token
from penstock.streams.requests.options import sized
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.size import fit

from tests.reference.check import smallest_margin
from tests.reference.media import frames, picture, sound
from tests.reference.stock import video_options

REPLY = 8
streams = count(2_000_000)  # no other test opens these

IMAGE, OTHER, CLIP = picture(1, 100, 70), picture(2, 56, 120), frames(3, 4)
SOUND = sound(5, 1.3)
ORDERS: dict[str, list[tuple[str, np.ndarray]]] = {
    "image": [("image", IMAGE)],
    "images": [("image", OTHER), ("image", IMAGE), ("image", OTHER)],
    "video": [("video", CLIP)],
    "image and video": [("image", IMAGE), ("video", CLIP)],
    "video and images": [("image", OTHER), ("video", CLIP), ("image", IMAGE)],
    "all": [("audio", SOUND), ("image", IMAGE), ("video", CLIP), ("audio", SOUND[:9000])],
}
PICTURES = {name: pieces for name, pieces in ORDERS.items() if name != "all"}


def text_of(processor: Any, media: list[tuple[str, np.ndarray]]) -> str:
    """Words around the placeholders, with the wrappers that the model's own template sets."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "Look here"}]
    for kind, _ in media:
        content += [{"type": kind, kind: "x"}, {"type": "text", "text": "and then"}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def stock(
    model: Any, processor: Any, text: str, media: list[tuple[str, np.ndarray]], fps: float | None = None, **options: Any
) -> Any:
    """Ids of the prompt, ids of the reply and its logits; frames stand at `fps`."""
    options |= video_options(model.config.model_type, [len(data) for kind, data in media if kind == "video"], fps)
    given: dict[str, list[np.ndarray]] = {}
    for kind, data in media:
        given.setdefault(kind if kind == "audio" else f"{kind}s", []).append(data)
    begun = processor.tokenizer.bos_token is not None and text.startswith(processor.tokenizer.bos_token)
    shaped = {name: values if name == "audio" else [values] for name, values in given.items()}
    inputs = processor(text=[text], return_tensors="pt", add_special_tokens=not begun, **shaped, **options)
    model.model.rope_deltas = model.rope_deltas = None
    result = model.generate(**inputs, max_new_tokens=REPLY, return_dict_in_generate=True, output_logits=True)
    ids = inputs["input_ids"][0].tolist()
    return ids, result.sequences[0, len(ids) :].tolist(), torch.cat(result.logits)


def generated(loaded: Loaded, **request: Any) -> tuple[list[int], list[int], torch.Tensor]:
    """The same of a one-shot request."""
    core = Core(loaded, EngineConfig(kv_tokens=4096, backend="cpu"))
    asked = Request(positions="transformers", params=SamplingParams(max_tokens=REPLY), **request)
    stream = next(streams)
    core.open(stream, asked)
    core.prompt(stream, asked)
    rows = sum(len(run) for run in core.scheduler.streams[stream].laid)
    logits, events = [], core.scheduler.events()
    while (done := core.step()) is not None:
        if done[1].tokens:
            assert core.language.logits is not None
            logits.append(core.language.logits[0].clone())
        events += core.scheduler.events()
    assert [event.reason for _, event in events if isinstance(event, ReplyDone)]
    ids = [id for run in core.scheduler.transcript(stream) for id in run.ids][:rows]
    return ids, [event.id for _, event in events if isinstance(event, Token)], torch.stack(logits)


def assert_equal(got: tuple[list[int], list[int], torch.Tensor], expected: Any) -> None:
    assert smallest_margin(expected[2]) > 1e-3, "the fixture decides too narrowly to compare its tokens"
    assert got[:2] == expected[:2]
    torch.testing.assert_close(got[2], expected[2], rtol=0, atol=1e-4)


def with_one_placeholder_each(
    processor: Any, text: str, media: list[tuple[str, np.ndarray]]
) -> tuple[list[int], list[np.ndarray]]:
    """The text's ids as a client has them who has not run the processor."""
    begun = processor.tokenizer.bos_token is not None and text.startswith(processor.tokenizer.bos_token)
    return processor.tokenizer(text, add_special_tokens=not begun)["input_ids"], [data for _, data in media]


def compare(loaded: Loaded, plain: tuple[Any, Any], media: list[tuple[str, np.ndarray]], **options: Any) -> None:
    """`options`: what the stock processor has to be told beside the media."""
    model, processor = plain
    text = text_of(processor, media)
    expected = stock(model, processor, text, media, **options)
    assert_equal(generated(loaded, prompt=text, media=[data for _, data in media]), expected)
    ids, values = with_one_placeholder_each(processor, text, media)
    got = generated(loaded, prompt_ids=ids, media=values)
    assert len(ids) < len(got[0])
    assert_equal(got, expected)


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@pytest.mark.parametrize("name", ORDERS)
def test_omni(omni: tuple[Any, Any], omni_loaded: Loaded, name: str) -> None:
    compare(omni_loaded, omni, ORDERS[name])


@pytest.mark.parametrize("name", PICTURES)
def test_sight(sight_plain: tuple[Any, Any], sight_served: Loaded, name: str) -> None:
    compare(sight_served, sight_plain, PICTURES[name])


@pytest.mark.parametrize("name", ["image", "images"])
def test_stills(still_plain: tuple[Any, Any], still_served: Loaded, still_name: str, name: str) -> None:
    compare(still_served, still_plain, PICTURES[name])


def test_a_clip_where_frames_are_pictures(still_plain: tuple[Any, Any], still_served: Loaded, still_name: str) -> None:
    """LLaVA-OneVision and SmolVLM take one, the others say that they take none."""
    if "video" in still_served.family.modalities:
        compare(still_served, still_plain, ORDERS["video"])
        return
    with pytest.raises(InputError, match="expected text or image, got 'video'"):
        generated(still_served, prompt="Well?", media=[CLIP])


def test_text_and_its_ids(text_plain: tuple[Any, Any], text_served: Loaded) -> None:
    model, tokenizer = text_plain
    inputs = tokenizer("The door was", return_tensors="pt")
    result = model.generate(**inputs, max_new_tokens=REPLY, return_dict_in_generate=True, output_logits=True)
    ids = inputs["input_ids"][0].tolist()
    expected = ids, result.sequences[0, len(ids) :].tolist(), torch.cat(result.logits)
    assert_equal(generated(text_served, prompt="The door was"), expected)
    assert_equal(generated(text_served, prompt_ids=ids), expected)


@pytest.mark.parametrize("kind", ["prompt", "prompt_ids"])
def test_placeholders_are_counted(omni: tuple[Any, Any], omni_loaded: Loaded, kind: str) -> None:
    _, processor = omni
    text = text_of(processor, [("image", IMAGE), ("image", OTHER), ("audio", SOUND)])
    ids, _ = with_one_placeholder_each(processor, text, [])
    given = {"prompt": text} if kind == "prompt" else {"prompt_ids": ids}
    image, audio = (processor.image_token.replace("|", r"\|"), processor.audio_token.replace("|", r"\|"))
    with pytest.raises(InputError, match=f"^{kind}: expected 2 of {image}, got 1 image$"):
        generated(omni_loaded, **given, media=[IMAGE, SOUND])
    with pytest.raises(InputError, match=f"^{kind}: expected 1 of {audio}, got 2 audios$"):
        generated(omni_loaded, **given, media=[IMAGE, SOUND, OTHER, SOUND])
    with pytest.raises(InputError, match="^prompt_ids: expected token ids below"):
        generated(omni_loaded, prompt_ids=[*ids, 1 << 20], media=[IMAGE, OTHER, SOUND])


def test_placeholders_are_counted_by_models_that_see(sight_plain: tuple[Any, Any], sight_served: Loaded) -> None:
    placeholders_are_counted(sight_plain[1], sight_served)


def test_placeholders_are_counted_by_models_of_one_axis(still_plain: tuple[Any, Any], still_served: Loaded) -> None:
    placeholders_are_counted(still_plain[1], still_served)


def placeholders_are_counted(processor: Any, loaded: Loaded) -> None:
    text = text_of(processor, [("image", IMAGE), ("image", OTHER)])
    towers: Any = loaded.towers
    token = re.escape(towers.placeholders()["image"])
    for given in (
        {"prompt": text},
        {"prompt_ids": with_one_placeholder_each(processor, text, [])[0]},
    ):
        with pytest.raises(InputError, match=f"^{next(iter(given))}: expected 2 of {token}, got 1 image$"):
            generated(loaded, **given, media=[IMAGE])


def test_a_text_model_takes_no_media(text_served: Loaded) -> None:
    with pytest.raises(InputError, match="expected text, got 1 pieces of media"):
        generated(text_served, prompt="Well?", media=[IMAGE])


def test_a_model_that_sees_takes_no_sound(sight_served: Loaded) -> None:
    with pytest.raises(InputError, match="expected text, image or video, got 'audio'"):
        generated(sight_served, prompt="Well?", media=[SOUND])


# The fixtures' own bounds lie on both sides of these.
BOUNDS = {"smaller": {"min_pixels": 784, "max_pixels": 4000}, "larger": {"min_pixels": 40_000, "max_pixels": 60_000}}


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("order", ["image", "image and video"])
def test_bounds_on_pixels_are_those_of_the_processor(
    sight_plain: tuple[Any, Any], sight_served: Loaded, name: str, order: str
) -> None:
    media, bounds = ORDERS[order], BOUNDS[name]
    text = text_of(sight_plain[1], media)
    expected = stock(*sight_plain, text, media, **bounds)
    values = [data for _, data in media]
    got = generated(sight_served, prompt=text, media=values, processor=bounds)
    assert_equal(got, expected)
    assert got[0] != generated(sight_served, prompt=text, media=values)[0]


def test_omni_keeps_to_bounds_and_rate(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    media = ORDERS["all"]
    text = text_of(omni[1], media)
    bounds = BOUNDS["smaller"]
    expected = stock(*omni, text, media, fps=1.0, **bounds)
    options = {"fps": 1.0, **bounds}
    assert_equal(generated(omni_loaded, prompt=text, media=[data for _, data in media], processor=options), expected)


def test_a_stream_sizes_pictures_by_the_same_bounds(sight_plain: tuple[Any, Any], sight_served: Loaded) -> None:
    processor = sight_plain[1].image_processor
    for bounds in BOUNDS.values():
        size = {"shortest_edge": bounds["min_pixels"], "longest_edge": bounds["max_pixels"]}
        grid = processor([IMAGE], size=size, return_tensors="pt")["image_grid_thw"][0].tolist()
        rule = sized(sight_served.family.spec, bounds).image
        assert rule is not None
        height, width = fit(rule, *IMAGE.shape[:2])
        assert [height // processor.patch_size, width // processor.patch_size] == grid[1:]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_pixel": 9}, "processor option 'max_pixel': expected one of those that this model has"),
        ({"max_pixels": 1}, r"processor option 'max_pixels': expected a whole number in \[\d+, 1073741824\], got 1"),
        ({"max_pixels": "many"}, "got 'many'"),
        ({"max_pixels": 4000.5}, "got 4000.5"),
        ({"min_pixels": 60_000, "max_pixels": 4000}, "'min_pixels': expected at most max_pixels, 4000, got 60000"),
        ({"fps": 0}, r"processor option 'fps': expected a number in \[0.1, 60\], got 0"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_are_refused(sight_served: Loaded, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        generated(sight_served, prompt="Well?", processor=options)


def test_options_of_others(still_plain: tuple[Any, Any], still_served: Loaded, still_name: str) -> None:
    """Tiles of SmolVLM, crops of Gemma 3; LLaVA has none."""
    wide = picture(4, 60, 400)
    known: dict[str, dict[str, Any]] = {
        "smolvlm": {"do_image_splitting": False},
        "gemma3": {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 30},
    }
    options = known.get(still_name)
    if options is None:
        with pytest.raises(InputError, match="'max_pixels': expected one of those that this model has"):
            generated(still_served, prompt="Well?", processor={"max_pixels": 4000})
        return
    text = text_of(still_plain[1], [("image", wide)])
    expected = stock(*still_plain, text, [("image", wide)], **options)
    got = generated(still_served, prompt=text, media=[wide], processor=options)
    assert_equal(got, expected)
    assert got[0] != generated(still_served, prompt=text, media=[wide])[0]
