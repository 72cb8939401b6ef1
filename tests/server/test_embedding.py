"""Rows that were made elsewhere, over the wire: raw or as a file, they are what they are in the same process."""

from __future__ import annotations

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
