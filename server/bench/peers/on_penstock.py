"""Cases on the public `Engine` of Penstock, in the process that asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

import msgspec
import numpy as np

from .... import Appended, Engine, EngineConfig, Error, Image, PenstockError, Request
from ....engine.config import FITTING
from ..served import greedy
from . import child

VIDEO_FPS = 2.0


def config(dtype: str, device: str) -> EngineConfig:
    """What fits this machine, with this type of number and device."""
    return msgspec.structs.replace(FITTING, dtype=dtype, device=device)


class Penstock:
    """One engine. `about` says what it computes with."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.about = f"{engine.info.dtype} on {engine.info.device}"

    @classmethod
    async def load(cls, model: str | None, dtype: str, device: str, **more: Any) -> Self:
        """Load and warm up. `more` of its configuration. ModelError where the model cannot be served."""
        return cls(await Engine.load(model or None, config=msgspec.structs.replace(config(dtype, device), **more)))

    async def close(self) -> None:
        """Stop the engine."""
        await self.engine.close()

    async def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """The answer to a case (child.py)."""
        return await child.run(self, case)

    async def requests(self, prompts: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
        """All prompts at once, each in a stream of its own."""
        start = time.perf_counter()

        async def one(prompt: dict[str, Any]) -> tuple[list[float], list[int]]:
            parts = [{"type": kind, kind: prompt[kind]} for kind in ("image", "video") if kind in prompt]
            words = [*parts, {"type": "text", "text": prompt["text"]}] if parts else prompt["text"]
            message = {"role": "user", "content": words}
            request = Request(messages=[message], params=greedy(tokens), video_fps=VIDEO_FPS)
            times, ids = [], []
            async with await self.engine.stream(request) as stream:
                async for token in await stream.prompted():
                    times.append(time.perf_counter() - start)
                    ids.append(token.id)
            return times, ids

        replies = await asyncio.gather(*(one(prompt) for prompt in prompts))
        return {"times": [times for times, _ in replies], "ids": [ids for _, ids in replies]}

    async def session(self, pictures: list[np.ndarray], question: str, tokens: int) -> dict[str, Any]:
        """One stream: all pictures but two go in, the next is timed alone, the last one together with the question."""
        *before, alone, last = pictures
        async with await self.engine.stream(Request(format="turns")) as stream:
            events = aiter(stream)

            async def take_in(pixels: np.ndarray) -> None:
                seq = await stream.append(Image(pixels))
                async for event in events:
                    match event:
                        case Appended(seq=told) if told == seq:
                            return
                        case Error():
                            raise PenstockError(event.message)

            for pixels in before:
                await take_in(pixels)
            start = time.perf_counter()
            await take_in(alone)
            frame = time.perf_counter() - start
            start = time.perf_counter()
            await stream.append(Image(last))
            reply = await stream.ask(question, greedy(tokens))
            question_s, ids = None, []
            async for token in reply:
                question_s = question_s or time.perf_counter() - start
                ids.append(token.id)
        return {"frame": frame, "question": question_s, "ids": [ids]}


load = Penstock.load
