"""One shot equals `transformers.generate`, greedy, token for token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import InputError
from penstock.streams.event import ReplyDone, Token
from penstock.streams.requests.request import Request, SamplingParams

from tests.engine.rig import ROUNDING, TOLERANCE
from tests.fixtures.recipe import model_path
from tests.reference.check import smallest_margin
from tests.reference.media import frames, picture, sound
from tests.reference.stock import in_video_options, video_options

REPLY = 16
STREAM = 1_000_000  # no other test opens these

image, other_image = picture(1, 100, 70), picture(2, 56, 120)
clip, long_clip = frames(3, 4), frames(4, 12, 70, 90)
short_sound, long_sound = sound(5, 0.7), sound(6, 4.7)


def turn(*parts: str | tuple[str, Any]) -> dict[str, Any]:
    """A user turn of words and media."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part[0], part[0]: part[1]}
        for part in parts
    ]
    return {"role": "user", "content": content}


def said(words: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": words}]}


CASES: dict[str, list[dict[str, Any]]] = {
    "text": [turn("What do you see?")],
    "several turns": [turn("What do you see?"), said("A red door."), turn("Who came in?")],
    "image": [turn(("image", image), "What do you see?")],
    "several images": [turn("One", ("image", image), "two", ("image", other_image), ("image", picture(3)), "and?")],
    "video": [turn(("video", clip), "What do you see?")],
    "two videos": [turn(("video", clip), "then", ("video", long_clip), "What has changed?")],
    "sound": [turn(("audio", long_sound), "What do you hear?")],
    "sounds": [turn(("audio", long_sound), ("audio", short_sound), "What do you hear?")],
    "all": [turn(("image", image), ("video", clip), ("audio", long_sound), "Well?")],
    "all, the other way": [turn(("audio", short_sound), "Well?", ("video", long_clip), ("image", image))],
    "media in two turns": [turn(("video", clip), "Well?"), said("A door."), turn(("image", image), "And now?")],
}
IN_VIDEO: dict[str, list[dict[str, Any]]] = {
    "as long": [turn(("video", long_clip), ("audio", sound(7, 6.0)), "Well?")],
    "sound is shorter": [turn(("video", long_clip), ("audio", sound(9, 2.4)), "Well?")],
    "sound ends inside the last unit": [turn(("video", frames(4, 8)), ("audio", sound(9, 2.4)), "Well?")],
    "sound is longer": [turn(("video", clip), ("audio", sound(7, 5.1)), "Well?")],
    "two": [
        turn(("video", clip), ("audio", sound(7, 2.0)), "then", ("video", clip), ("audio", sound(8, 2.0)), "Well?")
    ],
}


NO_VIDEO = "expected text or image, got 'video'"
# What a processor cannot take in one prompt, by model and case, or by model and the media in it.
REFUSED: dict[tuple[str, ...], str] = {
    **{(model, *media): NO_VIDEO for model in ("llava", "gemma3") for media in (("video",), ("image", "video"))},
    ("smolvlm", "image", "video"): "expected images or video in one prompt, got both",
    ("llava_onevision", "two videos"): "expected videos of one length in one prompt, got 4, 12 frames",
}


def kinds(messages: list[dict[str, Any]]) -> set[str]:
    return {part["type"] for message in messages for part in message["content"]}


def generated(loaded: Loaded, request: Request, backend: str = "cpu") -> tuple[list[int], list[torch.Tensor], str]:
    """Ids, logits and reason of the end of a one-shot request."""
    core = Core(loaded, EngineConfig(kv_tokens=2048, backend=backend))
    core.open(STREAM, request)
    core.prompt(STREAM, request)
    logits, events = [], core.scheduler.events()
    while (done := core.step()) is not None:
        if done[1].tokens:
            assert core.language.logits is not None
            logits.append(core.language.logits[0].clone())
        events += core.scheduler.events()
    (reason,) = [event.reason for _, event in events if isinstance(event, ReplyDone)]
    return [event.id for _, event in events if isinstance(event, Token)], logits, reason


def stock(
    model: Any, processor: Any, messages: list[dict[str, Any]], fps: float | None = None, **options: Any
) -> tuple[list[int], torch.Tensor]:
    """Ids and logits of `generate` after the processor, with frames at `fps`; `options`: of audio in video."""
    media = {name: [] for name in ("image", "video", "audio")}
    for message in messages:
        for part in message["content"]:
            if part["type"] in media:
                media[part["type"]].append(part[part["type"]])
    heard = {"use_audio_in_video": True} if options else {}
    if heard:  # sound in video has no place of its own in the template
        messages = [m | {"content": [part for part in m["content"] if part["type"] != "audio"]} for m in messages]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    options |= video_options(model.config.model_type, [len(clip) for clip in media["video"]], fps)
    begun = processor.tokenizer.bos_token is not None and text.startswith(processor.tokenizer.bos_token)
    inputs = processor(
        text=[text],
        images=[media["image"]] if media["image"] else None,
        videos=[media["video"]] if media["video"] else None,
        return_tensors="pt",
        add_special_tokens=not begun,
        **({"audio": media["audio"]} if media["audio"] else {}),
        **options,
    )
    model.model.rope_deltas = model.rope_deltas = None
    result = model.generate(
        **inputs,
        **heard,
        max_new_tokens=REPLY,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return result.sequences[0, inputs["input_ids"].shape[1] :].tolist(), torch.cat(result.logits)


def assert_equal(got: tuple[list[int], list[torch.Tensor], str], expected: tuple[list[int], torch.Tensor]) -> None:
    assert smallest_margin(expected[1]) > 1e-3, "the fixture decides too narrowly to compare its tokens"
    assert got[0] == expected[0]
    bound = max(TOLERANCE, ROUNDING * float(expected[1].abs().max()))
    torch.testing.assert_close(torch.stack(got[1]), expected[1], rtol=0, atol=bound)


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@pytest.mark.parametrize("name", CASES)
def test_omni(omni: tuple[Any, Any], omni_loaded: Loaded, name: str) -> None:
    messages = CASES[name]
    request = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=REPLY))
    assert_equal(generated(omni_loaded, request), stock(*omni, messages))


@pytest.mark.parametrize("name", [name for name, messages in CASES.items() if "audio" not in kinds(messages)])
def test_sight(sight_plain: tuple[Any, Any], sight_served: Loaded, name: str) -> None:
    messages = CASES[name]
    request = Request(messages=messages, positions="transformers", params=SamplingParams(max_tokens=REPLY))
    assert_equal(generated(sight_served, request), stock(*sight_plain, messages))


@pytest.mark.parametrize("name", [name for name, messages in CASES.items() if "audio" not in kinds(messages)])
def test_stills(still_plain: tuple[Any, Any], still_served: Loaded, still_name: str, name: str) -> None:
    """Pictures are cut into tiles where the model's own processor does so; what it cannot take is refused."""
    messages = CASES[name]
    if reason := REFUSED.get((still_name, name)) or REFUSED.get((still_name, *sorted(kinds(messages) - {"text"}))):
        with pytest.raises(InputError, match=reason):
            generated(still_served, Request(messages=messages))
        return
    request = Request(messages=messages, params=SamplingParams(max_tokens=REPLY))
    assert_equal(generated(still_served, request), stock(*still_plain, messages))


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@pytest.mark.parametrize("name", IN_VIDEO)
def test_omni_with_sound_in_video(omni: tuple[Any, Any], omni_loaded: Loaded, name: str) -> None:
    messages = IN_VIDEO[name]
    params = SamplingParams(max_tokens=REPLY)
    request = Request(messages=messages, audio_in_video=True, params=params)
    count = sum(part["type"] == "video" for part in messages[0]["content"])
    assert_equal(generated(omni_loaded, request), stock(*omni, messages, **in_video_options(count)))


def test_omni_refuses_sound_in_video_without_a_sound_for_each(omni_loaded: Loaded) -> None:
    request = Request(messages=CASES["video"], audio_in_video=True)
    with pytest.raises(InputError, match="0 for 1"):
        generated(omni_loaded, request)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("question", ["What do you see?", "Who came in?", "a" * 300])
def test_text(text_plain: tuple[Any, Any], text_served: Loaded, question: str, backend: str) -> None:
    model, tokenizer = text_plain
    messages = [{"role": "system", "content": "You watch a door."}, {"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    result = model.generate(**prompt, max_new_tokens=REPLY, return_dict_in_generate=True, output_logits=True)
    ids = result.sequences[0, prompt["input_ids"].shape[1] :].tolist()
    request = Request(messages=messages, params=SamplingParams(max_tokens=REPLY))
    assert_equal(generated(text_served, request, backend), (ids, torch.cat(result.logits)))


def test_the_checkpoints_end_tokens_count(text_plain: tuple[Any, Any], text_name: str, tmp_path: Path) -> None:
    """A checkpoint whose generation configuration ends replies at a token that this reply has."""
    model, tokenizer = text_plain
    messages = [{"role": "user", "content": "What do you see?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    whole = model.generate(**prompt, max_new_tokens=REPLY)[0, prompt["input_ids"].shape[1] :].tolist()
    end = whole[REPLY // 2]

    folder = tmp_path / "model"
    shutil.copytree(model_path(text_name), folder)
    written = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(written | {"eos_token_id": [end]}))
    request = Request(messages=messages, params=SamplingParams(max_tokens=REPLY))
    ids, _, reason = generated(load(folder, EngineConfig()), request)

    theirs = model.generate(**prompt, max_new_tokens=REPLY, eos_token_id=[end])[0, prompt["input_ids"].shape[1] :]
    assert theirs.tolist() == [*ids, end]
    assert reason == "stop"
