"""Rows that were made elsewhere, over the wire: raw or as a file, they are what they are in the same process."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from harness import run, serving
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.errors import InputError
from penstock.server import wire
from penstock.server.client import connect
from penstock.server.errors import MessageError
from penstock.server.wire import decode_binary
from penstock.server.wire_headers import EmbeddingHeader
from penstock.streams.event import Error
from penstock.streams.item import Embedding
from penstock.streams.requests.request import Request, SamplingParams
from safetensors.numpy import save
from test_http_doors import answered, request

from tests.fixtures.loaded import served


def test_rows_over_the_wire_are_the_rows() -> None:
    loaded = served("omni")
    rows = np.random.default_rng(3).standard_normal((6, loaded.family.spec.rows.width)).astype(np.float32)
    forms = [Embedding(rows, "image", (1, 2, 3)), Embedding(save({"rows": rows}), "image", (1, 2, 3))]
    short = SamplingParams(max_tokens=5, temperature=0)

    async def main() -> None:
        engine = Engine(loaded, EngineConfig(kv_tokens=4096))
        try:
            said = []
            async with await engine.stream(Request()) as stream:
                await stream.append(forms[0])
                said.append(await (await stream.ask("What?", short)).text())
            async with serving(engine) as url, connect(url) as connection:
                for form in forms:
                    async with await connection.stream(Request()) as stream:
                        await stream.append(form)
                        said.append(await (await stream.ask("What?", short)).text())
                async with await connection.stream(Request()) as stream:
                    with pytest.raises(InputError, match=r"expected \(n, hidden\) float32 or float16, got \(6,"):
                        await stream.append(Embedding(rows[:, 0], "image"))
                    await stream.append(Embedding(rows, "image", (1, 2, 4)))
                    async for event in stream:
                        if isinstance(event, Error):
                            assert "expected a grid of 6 rows, got (1, 2, 4)" in event.message
                            break
            assert len(set(said)) == 1
        finally:
            await engine.close()

    run(main)


def test_raw_rows_that_are_not_whole_are_refused() -> None:
    header = EmbeddingHeader(stream="s", kind="audio", encoding="f16le", width=4)
    item = decode_binary(wire.encode_binary(header, b"\0" * 16)).item
    assert isinstance(item, Embedding) and np.shape(item.data) == (2, 4)
    for width, size in ((4, 15), (0, 16)):
        broken = wire.encode_binary(EmbeddingHeader(stream="s", encoding="f16le", width=width), b"\0" * size)
        with pytest.raises(MessageError, match="expected whole rows"):
            decode_binary(broken)


def test_rows_in_messages_are_the_rows_on_every_way_in() -> None:
    """In process, over the wire as items and arrays, and as parts of a chat."""
    loaded = served("omni")
    rows = np.random.default_rng(3).standard_normal((6, loaded.family.spec.rows.width)).astype(np.float32)
    file = save({"rows": rows})
    short = SamplingParams(max_tokens=5, temperature=0)
    half = rows.astype(np.float16)
    within = {"data": base64.b64encode(half.tobytes()).decode(), "dtype": "float16", "shape": list(rows.shape)}
    parts: list[dict[str, Any]] = [
        {"type": "image_embeds", "image_embeds": base64.b64encode(file).decode(), "grid": [1, 2, 3]},
        {"type": "image_embeds", "image_embeds": within | {"grid": [1, 2, 3]}},
        {"type": "embedding", "embedding": base64.b64encode(file).decode(), "kind": "image", "grid": [1, 2, 3]},
    ]
    items = [Embedding(file, "image", (1, 2, 3)), Embedding(half, "image", (1, 2, 3))]
    words = {"type": "text", "text": "What?"}

    def messages(part: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [part, words]}]

    async def main() -> None:
        engine = Engine(loaded, EngineConfig(kv_tokens=4096))
        try:
            given = [{"type": "embedding", "embedding": item} for item in items]
            said = [await engine.generate(Request(messages=messages(part)), short) for part in [*given, *parts]]
            assert said[0] == said[2] == said[4] and said[1] == said[3]
            async with serving(engine) as url:
                async with connect(url) as connection:
                    wired = [await connection.generate(Request(messages=messages(part)), short) for part in given]
                    assert wired == said[:2]
                for part, expected in zip(parts, said[2:], strict=True):
                    body = {"messages": messages(part), "max_tokens": 5, "temperature": 0}
                    status, _, told = await answered(url, request(json.dumps(body).encode()))
                    assert (status, told["choices"][0]["message"]["content"]) == (200, expected)
                pickled = {"type": "image_embeds", "image_embeds": base64.b64encode(b"\x80\x04pickle").decode()}
                for part, expected in (
                    (pickled, "expected a safetensors file, got bytes that are none"),
                    (
                        {"type": "image_embeds", "image_embeds": "rows.safetensors", "grid": [1, 2, 3]},
                        "expected base64",
                    ),
                    ({"type": "image_embeds", "path": "/etc/hostname"}, "expected media over the wire as a data: URL"),
                    (parts[0] | {"grid": [1, 2, 2]}, "expected a grid of 6 rows, got (1, 2, 2)"),
                    (parts[0] | {"image_grid_thw": [1, 4, 6]}, "image_grid_thw: expected no such field"),
                ):
                    status, _, told = await answered(url, request(json.dumps({"messages": messages(part)}).encode()))
                    assert status == 400 and expected in told["error"]["message"], told
                    assert "messages[0].content[0]" in told["error"]["message"]
        finally:
            await engine.close()

    run(main)


def test_the_embeddings_of_a_prompt_are_the_prompt() -> None:
    loaded = served("text")
    ids = loaded.family.spelling.ids("What do you see in the old harbour?")
    table = loaded.text.get_input_embeddings().weight.detach()
    files = [base64.b64encode(save({"rows": table[given].numpy()})).decode() for given in (ids, ids[:3])]

    async def main() -> None:
        engine = Engine(loaded, EngineConfig(kv_tokens=4096))
        try:
            async with serving(engine) as url:
                texts = []
                for given in ({"prompt": [ids, ids[:3]]}, {"prompt_embeds": files}):
                    body = json.dumps({**given, "max_tokens": 6, "temperature": 0}).encode()
                    status, _, told = await answered(url, request(body, path="/v1/completions"))
                    assert status == 200, told
                    texts.append([choice["text"] for choice in told["choices"]])
                assert texts[0] == texts[1] and texts[0][0] != texts[0][1]
                wide = base64.b64encode(save({"rows": np.zeros((3, 7), np.float32)})).decode()
                for given, expected in (
                    ({}, "prompt: expected one of prompt and prompt_embeds, got neither"),
                    ({"prompt": "a", "prompt_embeds": files}, "prompt and prompt_embeds, got both"),
                    ({"prompt_embeds": []}, "prompt_embeds: expected at least one"),
                    ({"prompt_embeds": wide}, "expected rows (n, 64) with n at least 1, got (3, 7)"),
                    ({"prompt_embeds": files[0], "echo": True}, "echo: expected a prompt of text"),
                ):
                    status, _, told = await answered(url, request(json.dumps(given).encode(), path="/v1/completions"))
                    assert status == 400 and expected in told["error"]["message"], told
        finally:
            await engine.close()

    run(main)
