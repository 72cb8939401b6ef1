"""What of vLLM's interface `server/bench/peers/on_vllm.py` uses, without an engine: each prompt is answered with the
tokens 7, 8, 9, ... A stand-in for a package that tests do not install."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

DIES = ""
__version__ = "0 stand-in"
RequestOutputKind = SimpleNamespace(DELTA=1)


class SamplingParams(SimpleNamespace):
    pass


class AsyncEngineArgs(SimpleNamespace):
    pass


class StreamingInput:
    def __init__(self, prompt, sampling_params):
        self.prompt, self.sampling_params = prompt, sampling_params


class AsyncLLM:
    @classmethod
    def from_engine_args(cls, settings):
        assert settings.max_num_seqs >= 32 and settings.limit_mm_per_prompt["image"] >= 60
        return cls()

    def get_tokenizer(self):
        return self

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        assert not tokenize and add_generation_prompt
        return f"<user>{messages[0]['content']}<assistant>"

    async def generate(self, prompt, params, name):
        exec(DIES)
        if isinstance(prompt, dict):
            prompt = _one(StreamingInput(prompt, params))
        async for chunk in prompt:
            async for output in self._reply(chunk.prompt, chunk.sampling_params):
                yield output

    async def _reply(self, prompt, params):
        assert prompt["prompt"] and params.temperature == 0 and params.ignore_eos
        for token in range(params.max_tokens):
            await asyncio.sleep(0.001)
            yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=[7 + token])])

    def shutdown(self):
        pass


async def _one(chunk):
    yield chunk
