"""What comes with the package: small, bfloat16, in the published form, and it does what it was trained for."""

from __future__ import annotations

import asyncio
import json
import struct
from math import prod
from typing import Any

import numpy as np
from penstock import Engine, Request, SamplingParams, VideoFrame
from penstock.engine.loading.open import BROOK
from PIL import Image, ImageDraw


def test_the_weights_are_small_and_bfloat16() -> None:
    file = BROOK / "model.safetensors"
    assert file.stat().st_size < 40e6
    with file.open("rb") as opened:
        tensors = json.loads(opened.read(struct.unpack("<Q", opened.read(8))[0]))
    tensors.pop("__metadata__", None)
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    assert 5e6 <= sum(prod(tensor["shape"]) for tensor in tensors.values()) <= 15e6


def test_plain_transformers_opens_it() -> None:
    from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

    processor: Any = Qwen2_5OmniProcessor.from_pretrained(BROOK)
    assert 1000 <= len(processor.tokenizer) <= 2000
    model: Any = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(BROOK).float().eval()
    picture = Image.new("RGB", (112, 112), (16, 52, 60))
    ImageDraw.Draw(picture).ellipse((40, 40, 72, 72), fill=(220, 40, 40))
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What do you see?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=text, images=[picture], return_tensors="pt")
    said = model.generate(**inputs, max_new_tokens=12, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert processor.batch_decode(said, skip_special_tokens=True) == ["a red circle."]


def test_it_is_silent_while_nothing_happens() -> None:
    """The opening sentence, then nothing for eight seconds of media; then the change."""

    def still(colour: tuple[int, int, int]) -> np.ndarray:
        picture = Image.new("RGB", (112, 112), (16, 52, 60))
        ImageDraw.Draw(picture).ellipse((20, 40, 54, 74), fill=colour)
        return np.asarray(picture)

    async def main() -> list[tuple[str, int]]:
        async with await Engine.load() as engine, await engine.stream(Request(format="live")) as stream:
            for frame in range(2):
                await stream.append(VideoFrame(still((220, 40, 40)), pts_us=frame * 500_000))
            reply = await stream.watch("Tell me what happens.", SamplingParams(max_tokens=200))
            for frame in range(2, 24):
                colour = (220, 40, 40) if frame < 18 else (45, 85, 220)
                await stream.append(VideoFrame(still(colour), pts_us=frame * 500_000))
                await asyncio.sleep(0.15)  # as a camera does: what comes all at once is seen all at once
            await stream.end()
            seen = [(token.text, token.seen and token.seen.stop_us) async for token in reply]
            return [(text, stop_us or 0) for text, stop_us in seen if text.strip()]

    told = asyncio.run(main())
    words = "".join(text for text, _ in told)
    assert words.strip().startswith("I see a red circle.") and "turned blue." in words
    change = [time for text, time in told if time > 2_000_000]
    assert change and min(change) >= 9_000_000, told
