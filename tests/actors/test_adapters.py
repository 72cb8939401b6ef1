"""Adapters come and go while streams run: nobody hears what was made for another, and nothing is left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from penstock.actors.engine import Engine
from penstock.engine.family import Loaded
from penstock.errors import InputError, StreamClosedError
from penstock.streams.event import ReplyDone
from penstock.streams.item import Image
from penstock.streams.requests.request import Request
from safetensors.torch import load_file, save_file

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Reader, ids, most, shots, until
from tests.fixtures.adapters import adapter, merged
from tests.fixtures.loaded import plain
from tests.reference.media import picture

IMAGE = Image(picture(3))


def hooks(loaded: Loaded) -> int:
    """How many layers ask for adapters."""
    model: Any = loaded.towers
    return sum(len(module._forward_hooks) for module in model.model.modules())


async def said(engine: Engine, name: str | None, **request: Any) -> list[int]:
    """A picture, a question, and the ids of the reply."""
    async with await engine.stream(Request(format="turns", adapter=name, **request)) as stream:
        await stream.append(IMAGE)
        return await ids(await stream.ask(WORDS, most(8)))


def test_streams_that_run_together(house: House) -> None:
    """Each says what it says alone: both adapters, the base, and a fork in the middle."""

    names = (None, "one", "two")

    async def load_both(engine: Engine) -> None:
        for which, name in enumerate(names[1:], 1):
            info = await engine.load_adapter(name, adapter("omni", which, towers=True))
            assert info.encodes and info.base == "small/model" and info.rank == 4
        assert [one.name for one in engine.info.adapters] == ["one", "two"]

    async def work() -> None:
        async with house.engine(encoder_cache_bytes=0, prefix_cache=False) as engine:
            await load_both(engine)
            alone = [await said(engine, name) for name in names]
            assert len({tuple(each) for each in alone}) == 3
        async with house.engine() as engine:
            await load_both(engine)
            assert [await said(engine, name) for name in names] == alone
            assert await asyncio.gather(*(said(engine, name) for name in names * 2)) == alone * 2
            async with await engine.stream(Request(format="turns", adapter="one")) as stream:
                await stream.append(IMAGE)
                async with await stream.fork() as twin:
                    for one in (stream, twin):  # what is shown from here on is encoded for each, too
                        await one.append(shots(5, 2)[0])
                        await one.append(shots(5, 2)[1])
                    replies = [await ids(await one.ask(WORDS, most(8))) for one in (stream, twin)]
                    assert replies[0] == replies[1] != alone[1]

    house.run(work())


def test_a_prompt_is_that_of_the_merged_model(house: House) -> None:
    messages = [
        {"role": "user", "content": [{"type": "image", "image": picture(4)}, {"type": "text", "text": "Well?"}]}
    ]

    async def work() -> None:
        async with house.engine() as engine:
            await engine.load_adapter("one", adapter("omni", 1, towers=True))
            for which, (model, processor) in ((None, plain("omni")), ("one", merged("omni", 1, towers=True))):
                got = await engine.generate(Request(messages=messages, adapter=which), most(8))
                text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
                inputs = processor(text=[text], images=[picture(4)], return_tensors="pt")
                model.rope_deltas = None
                whole = model.generate(**inputs, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :]
                assert got == processor.batch_decode(whole, skip_special_tokens=True)[0]

    house.run(work())


def test_unloaded_while_a_stream_wears_it(house: House, loaded: Loaded) -> None:
    """The stream goes on with it, so does its fork; the name is free at once, the memory when the last has ended."""
    before = hooks(loaded)

    async def work() -> None:
        async with house.engine() as engine:
            await engine.load_adapter("a", adapter("omni", 1, towers=True))
            expected, held = await said(engine, "a"), engine.statistics()["adapter_bytes"]
            stream = await engine.stream(Request(format="turns", adapter="a"))
            await engine.unload_adapter("a")
            assert engine.info.adapters == () and engine.statistics()["adapter_bytes"] == held
            with pytest.raises(InputError, match="expected one that is loaded .none is loaded., got 'a'"):
                await engine.stream(Request(adapter="a"))
            with pytest.raises(InputError, match="got 'a'"):
                await engine.unload_adapter("a")
            await engine.load_adapter("a", adapter("omni", 2, towers=True))
            other = await said(engine, "a")
            await stream.append(IMAGE)
            twin = await stream.fork()
            assert [await ids(await one.ask(WORDS, most(8))) for one in (stream, twin)] == [expected, expected]
            assert other != expected == await _again(engine, adapter("omni", 1, towers=True))
            await stream.close()
            await until(lambda: engine.statistics()["adapter_bytes"] == 2 * held)
            await twin.close()
            await until(lambda: engine.statistics()["adapter_bytes"] == held)
            await engine.unload_adapter("a")
            await until(lambda: engine.statistics()["adapter_bytes"] == 0)
            assert hooks(loaded) == before

    house.run(work())
    assert hooks(loaded) == before


async def _again(engine: Engine, folder: Path) -> list[int]:
    """What an adapter says under another name, while that under the first is worn."""
    await engine.load_adapter("b", folder)
    try:
        return await said(engine, "b")
    finally:
        await engine.unload_adapter("b")


def test_another_content_under_the_same_name_finds_no_old_pages(house: House) -> None:
    async def work() -> None:
        async with house.engine(page_tokens=4) as engine:
            system = "You watch a door, and say who comes and who goes."
            replies, cached = [], []
            for which in (1, 2, 1):
                await engine.load_adapter("a", adapter("omni", which, towers=True))
                async with await engine.stream(Request(format="turns", adapter="a", system=system)) as stream:
                    reader = Reader(stream)
                    await stream.append(IMAGE)
                    replies.append(await ids(await stream.ask(WORDS, most(8))))
                    cached.append((await reader.see(ReplyDone))[0].cached)
                await engine.unload_adapter("a")
            assert replies[0] == replies[2] != replies[1]
            assert cached[:2] == [0, 0] and cached[2] > 20

    house.run(work())


def test_a_snapshot_names_its_adapter(house: House, tmp_path: Path) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            await engine.load_adapter("a", adapter("omni", 1))
            async with await engine.stream(Request(format="turns", adapter="a")) as stream:
                await stream.append(IMAGE)
                await ids(await stream.ask(WORDS, most(4)))
                await stream.snapshot(tmp_path / "worn")
                expected = await ids(await stream.ask("And now?", most(6)))
        async with house.engine() as engine:
            with pytest.raises(InputError, match="expected one that is loaded .none is loaded., got 'a'"):
                await engine.restore(tmp_path / "worn")
            await engine.load_adapter("a", adapter("omni", 2))
            with pytest.raises(
                InputError, match="restore: expected the adapter 'a' with content [0-9a-f]+, got [0-9a-f]+"
            ):
                await engine.restore(tmp_path / "worn")
            await engine.unload_adapter("a")
            await engine.load_adapter("a", adapter("omni", 1))
            async with await engine.restore(tmp_path / "worn") as again:
                assert await ids(await again.ask("And now?", most(6))) == expected

    house.run(work())


def test_what_is_wrong_costs_nobody_anything(house: House, loaded: Loaded, tmp_path: Path) -> None:
    """Shapes of another base, layers that are not there, no numbers, pickles, a name that is taken; a stream speaks
    meanwhile, and says what it would have said."""
    good = adapter("omni", 1)
    tensors, config = load_file(good / "adapter_model.safetensors"), (good / "adapter_config.json").read_text()
    first = next(iter(tensors))

    def folder(name: str, **changed: torch.Tensor | None) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(config)
        kept = {key: value for key, value in {**tensors, **changed}.items() if value is not None}
        save_file(kept, tmp_path / name / "adapter_model.safetensors")
        return tmp_path / name

    up = first.replace("lora_A", "lora_B")
    renamed = {key.replace("layers.0", "layers.77"): tensors[key].clone() for key in (first, up)}
    pair = zip("AB", (torch.zeros(4, 64), torch.zeros(800, 4)), strict=True)
    head = {f"base_model.model.lm_head.lora_{which}.weight": part for which, part in pair}
    endless = tensors[first].clone()
    endless[0, 0] = float("inf")
    large = {key: value * 1e30 for key, value in tensors.items()}
    pickled = folder("pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    torn = folder("torn")
    (torn / "adapter_model.safetensors").write_bytes(b"{}" * 40)
    no_json = folder("no json")
    (no_json / "adapter_config.json").write_text("[1, 2")
    wrong = {
        "expected matrices for a layer of 64 to 64, got 48 to 64: it was trained for 'model'": folder(
            "shape", **{first: torch.zeros(4, 48)}
        ),
        "expected matrices .r, in. and .out, r. of rank 4, got": folder("rank", **{first: torch.zeros(3, 64)}),
        "expected layers of the decoder, .*layers.77.*this is": folder("layer", **renamed),
        "expected layers of the decoder, .*lm_head": folder("head", **head),
        "expected finite numbers, got others": folder("endless", **{first: endless}),
        "expected finite numbers from the model with it": folder("large", **large),
        "expected lora_A and lora_B, got one of them": folder("half", **{up: None}),
        "expected base_model.model.*got model.embed": folder(
            "embed", **{"model.embed.lora_A.weight": torch.zeros(4, 8)}
        ),
        "expected float32, float16 or bfloat16, got torch.int8": folder(
            "whole", **{first: torch.zeros(4, 64, dtype=torch.int8)}
        ),
        "expected adapter_model.safetensors in 'pickled', got adapter_model.bin: pickles": pickled,
        "expected safetensors, got none": torn,
        "adapter_config.json: expected JSON": no_json,
        "expected a folder, got 'nowhere'": tmp_path / "nowhere",
    }

    async def work() -> None:
        async with house.engine() as engine:
            await engine.load_adapter("good", good)
            expected = await said(engine, "good")
            stream = await engine.stream(Request(format="turns", adapter="good"))
            await stream.append(IMAGE)
            reply = await stream.ask(WORDS, most(8))
            for why, bad in wrong.items():
                with pytest.raises(InputError, match=why):
                    await engine.load_adapter("bad", bad)
            for name in ("good", "", " a", "a\nb", "x" * 201, Path(engine.info.model).name):
                with pytest.raises(InputError, match="adapter: expected a"):
                    await engine.load_adapter(name, good)
            assert await ids(reply) == expected
            await stream.close()
            assert [one.name for one in engine.info.adapters] == ["good"]
            await until(lambda: engine.statistics()["adapter_bytes"] == engine.info.adapters[0].bytes)
        with pytest.raises(StreamClosedError):
            await engine.load_adapter("late", good)

    before = hooks(loaded)
    house.run(work())
    assert hooks(loaded) == before
