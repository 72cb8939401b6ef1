"""Cases on plain `transformers`: a static batch for requests, one user with a kept cache for a session.

It knows models of Qwen2-VL's and Qwen2.5-VL's kind: a session needs their positions.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

import numpy as np
import torch

from ....engine.runner.library import transformers
from .on_penstock import VIDEO_FPS


class _Clock:
    """Notes when each step of `generate` has given its tokens."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """A step's tokens; the first call has the prompts."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to note."""


class Transformers:
    """A model and its processor. `about` says what it computes with."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.about = (
            f"{str(model.dtype).removeprefix('torch.')} on {model.device}, transformers {transformers.__version__}"
        )

    @classmethod
    async def load(cls, model: str, dtype: str, device: str) -> Self:
        """Load it as the library does."""
        library: Any = transformers
        loaded = library.AutoModelForImageTextToText.from_pretrained(model, dtype=getattr(torch, dtype))
        return cls(loaded.to(device).eval(), library.AutoProcessor.from_pretrained(model))

    async def close(self) -> None:
        """Nothing has to be stopped."""

    async def requests(self, prompts: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        """All prompts as one static batch."""
        return await asyncio.to_thread(self._requests, prompts, tokens)

    async def session(self, pictures: list[np.ndarray], question: str, tokens: int) -> dict[str, Any]:
        """As `on_penstock` does it: the cache is kept, and only what is new is computed."""
        return await asyncio.to_thread(self._session, pictures, question, tokens)

    @torch.inference_mode()
    def _requests(self, prompts: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        start = time.perf_counter()
        texts = [self._text([kind for kind in ("image", "video") if kind in one], one["text"]) for one in prompts]
        media: dict[str, Any] = {}
        if "image" in prompts[0]:
            media["images"] = [one["image"] for one in prompts]
        if "video" in prompts[0]:
            count = len(prompts[0]["video"])
            about = {"fps": VIDEO_FPS, "total_num_frames": count, "frames_indices": list(range(count))}
            media |= {
                "videos": [torch.from_numpy(one["video"]).permute(0, 3, 1, 2) for one in prompts],
                "video_metadata": [about for _ in prompts],
                "do_sample_frames": False,
            }
        inputs = self.processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **media)
        inputs = inputs.to(self.model.device)
        clock = _Clock()
        limits = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "eos_token_id": None}
        output = self.model.generate(**inputs, **limits, streamer=clock)
        ids = output[:, inputs["input_ids"].shape[1] :].tolist()
        times = [at - start for at in clock.times[1:]]  # the first are the prompts
        return {"times": [times for _ in prompts], "ids": ids}

    @torch.inference_mode()
    def _session(self, pictures: list[np.ndarray], question: str, tokens: int) -> dict[str, Any]:
        user = _User(self.model, self.processor)
        text = self._text(["image"] * len(pictures), question)
        mark = "<|vision_start|><|image_pad|><|vision_end|>"
        head, *_, tail = text.split(mark)
        *before, alone, last = pictures
        user.words(head)
        for pixels in before:
            user.see(pixels)
        start = time.perf_counter()
        user.see(alone)
        frame = time.perf_counter() - start
        start = time.perf_counter()
        user.see(last)
        logits = user.words(tail)
        ids = [int(logits.argmax())]
        question_s = time.perf_counter() - start
        while len(ids) < tokens:
            ids.append(int(user.feed(torch.tensor([ids[-1]])).argmax()))
        return {"frame": frame, "question": question_s, "ids": [ids]}

    def _text(self, kinds: list[str], words: str) -> str:
        content = [*({"type": kind} for kind in kinds), {"type": "text", "text": words}]
        message = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


class _User:
    """One conversation with a kept `DynamicCache`; positions as Qwen2-VL counts them."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor
        self._cache = transformers.DynamicCache(config=model.config.get_text_config())
        self._next = 0  # the next position
        self._merge = model.config.vision_config.spatial_merge_size

    def words(self, text: str) -> torch.Tensor:
        """Logits after the words."""
        return self.feed(torch.tensor(self._processor.tokenizer(text)["input_ids"]))

    def feed(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits after these tokens `(n,)`."""
        places = torch.arange(self._next, self._next + len(ids)).expand(3, -1)
        self._next += len(ids)
        return self._forward(self._model.get_input_embeddings()(ids.to(self._model.device)), places)

    def see(self, pixels: np.ndarray) -> None:
        """Take in one picture `(h, w, 3)` between its two marks."""
        config = self._model.config
        found = self._processor.image_processor([pixels], return_tensors="pt").to(self._model.device)
        output = self._model.get_image_features(found["pixel_values"], found["image_grid_thw"], return_dict=True)
        _, height, width = (found["image_grid_thw"][0] // torch.tensor([1, self._merge, self._merge])).tolist()
        marks = torch.tensor([config.vision_start_token_id, config.vision_end_token_id], device=self._model.device)
        opening, closing = self._model.get_input_embeddings()(marks).split(1)
        at = self._next
        down = torch.arange(height).repeat_interleave(width)
        across = torch.arange(width).repeat(height)
        inside = torch.stack([torch.zeros_like(down), down, across]) + at + 1
        after = int(inside.max()) + 1
        places = torch.cat([torch.full((3, 1), at), inside, torch.full((3, 1), after)], dim=1)
        self._next = after + 1
        self._forward(torch.cat([opening, torch.cat(list(output.pooler_output)), closing]), places)

    def _forward(self, embeds: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        states = self._model.model.language_model(
            inputs_embeds=embeds[None],
            position_ids=places[:, None].to(embeds.device),
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return self._model.lm_head(states[0, -1])


load = Transformers.load
