"""Cases on vLLM's `AsyncLLM`, under the Python of vLLM's environment; imports nothing of Penstock.

A session is vLLM's own kind of one, `StreamingInput`: each picture is a chunk, for which vLLM draws one token and
throws it away. The models are of Qwen2-VL's and Qwen2.5-VL's kind, whose marks are written here.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
from PIL import Image

_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
_VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
_VIDEO_FPS = 2.0
_MOST_IMAGES = 400
_POSITIONS = 32_768


class VLLM:
    """One engine. `about` says what it computes with."""

    def __init__(self, engine: Any, about: str) -> None:
        self.about = about
        self._engine = engine
        self._names = map(str, itertools.count())
        self._template = engine.get_tokenizer()

    @classmethod
    async def load(cls, model: str, dtype: str, device: str) -> VLLM:
        """Load and compile, which takes minutes. vLLM computes where its build does, so `device` is not used."""
        import vllm  # pyright: ignore[reportMissingImports]
        from vllm.engine.arg_utils import AsyncEngineArgs  # pyright: ignore[reportMissingImports]
        from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]

        settings = AsyncEngineArgs(
            model=model,
            dtype=dtype,
            max_model_len=_POSITIONS,
            max_num_seqs=64,
            limit_mm_per_prompt={"image": _MOST_IMAGES, "video": 1},
            disable_log_stats=True,
        )
        return cls(AsyncLLM.from_engine_args(settings), f"{dtype}, vLLM {vllm.__version__}")

    async def close(self) -> None:
        """Stop its processes."""
        self._engine.shutdown()

    async def requests(self, prompts: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        """All prompts at once."""
        start = time.perf_counter()

        async def one(prompt: dict[str, Any]) -> tuple[list[float], list[int]]:
            times: list[float] = []
            ids: list[int] = []
            async for output in self._engine.generate(self._prompt(prompt), _greedy(tokens), next(self._names)):
                new = output.outputs[0].token_ids
                times += [time.perf_counter() - start] * len(new)
                ids += new
            return times, ids

        replies = await asyncio.gather(*(one(prompt) for prompt in prompts))
        return {"times": [times for times, _ in replies], "ids": [ids for _, ids in replies]}

    async def session(self, pictures: list[np.ndarray], question: str, tokens: int) -> dict[str, Any]:
        """One session: all pictures but two go in, the next is timed alone, the last one together with the question."""
        from vllm.engine.protocol import StreamingInput  # pyright: ignore[reportMissingImports]

        chunks: asyncio.Queue[Any] = asyncio.Queue()

        async def inputs() -> AsyncGenerator[Any, None]:
            while (chunk := await chunks.get()) is not None:
                yield chunk

        def chunk(text: str, pixels: np.ndarray, tokens: int) -> Any:
            prompt = {"prompt": text, "multi_modal_data": {"image": [Image.fromarray(pixels)]}}
            return StreamingInput(prompt, _greedy(tokens))

        head, tail = self._text(_PICTURE + question).split(_PICTURE)
        outputs = aiter(self._engine.generate(inputs(), _greedy(1), next(self._names)))
        took = 0.0
        for place, pixels in enumerate(pictures[:-1]):
            start = time.perf_counter()
            await chunks.put(chunk(("" if place else head) + _PICTURE, pixels, 1))
            await anext(outputs)
            took = time.perf_counter() - start
        start = time.perf_counter()
        await chunks.put(chunk(_PICTURE + tail, pictures[-1], tokens))
        await chunks.put(None)
        first, ids = None, []
        async for output in outputs:
            first = first or time.perf_counter() - start
            ids += output.outputs[0].token_ids
        return {"frame": took, "question": first, "ids": [ids]}

    def _prompt(self, prompt: dict[str, Any]) -> dict[str, Any]:
        if "image" in prompt:
            media: dict[str, Any] = {"image": [Image.fromarray(prompt["image"])]}
            return {"prompt": self._text(_PICTURE + prompt["text"]), "multi_modal_data": media}
        if "video" in prompt:
            count = len(prompt["video"])
            about = {
                "fps": _VIDEO_FPS,
                "total_num_frames": count,
                "frames_indices": list(range(count)),
                "duration": count / _VIDEO_FPS,
                "do_sample_frames": False,
            }
            media = {"video": [(prompt["video"], about)]}
            return {"prompt": self._text(_VIDEO + prompt["text"]), "multi_modal_data": media}
        return {"prompt": self._text(prompt["text"])}

    def _text(self, words: str) -> str:
        message = [{"role": "user", "content": words}]
        return self._template.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


def _greedy(tokens: int) -> Any:
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]
    from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]

    return SamplingParams(
        temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
    )


load = VLLM.load
