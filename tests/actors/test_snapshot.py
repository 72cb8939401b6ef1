"""A snapshot goes on like the stream itself, in another engine and in another process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.actors.engine import Engine
from penstock.actors.stream import Stream
from penstock.engine.family import Loaded
from penstock.errors import InputError, OverloadError, PenstockError
from penstock.streams.event import Evicted, Token
from penstock.streams.item import AudioChunk, Text
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.requests.window import Window

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Reader, ids, most, quiet, shots, until
from tests.fixtures.recipe import model_path
from tests.reference.media import sound


def test_a_snapshot_goes_on_in_another_engine(house: House, tmp_path: Path) -> None:
    """In the middle of a reply, with a frame and a sound that wait for more."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            await stream.append(AudioChunk(sound(3, 1.3)[None], 16_000))
            for frame in shots(1, 3):
                await stream.append(frame)
            reply = await stream.ask(WORDS, most(80))
            await anext(aiter(reply))
            await stream.snapshot(tmp_path / "here")
            mine = await ids(reply)
            await quiet(engine)
            expected = [mine, *await _goes_on(stream)]
        async with house.engine() as engine, await engine.restore(tmp_path / "here") as again:
            assert again.reply is not None
            told = [token async for token in again.reply]
            assert told and [token.id for token in told] == mine[told[0].index :]
            await quiet(engine)
            assert [mine, *await _goes_on(again)] == expected

    house.run(work())


async def _goes_on(stream: Stream) -> list[Any]:
    for frame in shots(2, 2, first=3):
        await stream.append(frame)
    await stream.append(AudioChunk(sound(5, 1.0)[None], 16_000))
    reply = await stream.ask("And now?", SamplingParams(temperature=0.9, seed=7, max_tokens=12))
    return [await ids(reply), reply.since_us, stream.next_seq(), msgspec.to_builtins(await stream.transcript())]


def test_a_slid_stream_goes_on(house: House, tmp_path: Path) -> None:
    """What is pinned, its text memory and its window; also of one whose pages are in host memory."""
    request = Request(format="turns", drop_still=60.0, system="You watch.", window=Window(rows=64, text_rows=16))

    async def work() -> None:
        async with house.engine() as engine:
            stream = await engine.stream(request)
            reader = Reader(stream)
            for number in range(16):
                for frame in shots(number, 2, first=2 * number):
                    await stream.append(frame)
                await stream.append(Text(f"Picture {number}."))
            await ids(await stream.ask(WORDS, most(3)))
            await quiet(engine)
            await reader.see(Evicted)
            await stream.snapshot(tmp_path / "slid")
            expected = await _goes_on(stream)
            assert expected[1] is not None  # the time before which media has left
            async with await engine.restore(tmp_path / "slid") as again:
                # Nothing of it has been fed: its pages are in host memory, also while it is copied once more.
                await again.snapshot(tmp_path / "away")
                async with await again.fork() as twin:
                    assert await _goes_on(again) == await _goes_on(twin) == expected
            async with await engine.restore(tmp_path / "away") as again:
                assert await _goes_on(again) == expected
            await stream.close()
            await reader.task

    house.run(work())


@given(places=st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True))
def test_snapshots_anywhere_change_nothing(house: House, tmp_path: Path, places: list[int]) -> None:
    """A stream that moves from file to file says what one says that never did."""
    calls = [*shots(1, 3), Text("So."), *shots(4, 3, first=3), "What?", Text("Go on."), *shots(9, 2, first=6), "And?"]

    async def said(engine: Engine, moves: list[int]) -> list[list[int]]:
        stream, answers = await engine.stream(Request(format="turns")), []
        for place, call in enumerate(calls):
            if isinstance(call, str):
                answers.append(await ids(await stream.ask(call, most(6))))
            else:
                await stream.append(call)
            if place in moves:
                await stream.snapshot(tmp_path / "moving")
                await stream.close()
                stream = await engine.restore(tmp_path / "moving")
        await stream.close()
        return answers

    async def work() -> None:
        async with house.engine() as engine:
            assert await said(engine, places) == await said(engine, [])

    house.run(work())


def test_an_empty_stream_and_one_that_waits(house: House, tmp_path: Path) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="turns")) as stream:
            await stream.snapshot(tmp_path / "empty")
            first = await stream.ask(WORDS, most(30))
            second = asyncio.create_task(stream.ask("And then?", most(5)))
            await asyncio.sleep(0)
            await stream.snapshot(tmp_path / "waits")
            mine = [await ids(first), await ids(await second)]
            async with await engine.restore(tmp_path / "empty") as again:
                assert await ids(await again.ask(WORDS, most(30))) == mine[0]
            async with await engine.restore(tmp_path / "waits") as again:
                reader = Reader(again)
                await reader.see(Token, 6)
                await quiet(engine)
                other = {token.reply for token in reader.of(Token)}
                assert [t.id for t in reader.of(Token) if t.reply == max(other)] == mine[1]
                await again.close()
                await reader.task

    house.run(work())


def test_what_does_not_fit_is_refused(house: House, tmp_path: Path) -> None:
    path, large, why = tmp_path / "one", tmp_path / "large", ""

    async def work() -> None:
        nonlocal why
        async with house.engine() as engine:
            async with await engine.stream() as stream:
                why = stream.why
                await stream.append(Text("Words."))
                with pytest.raises(InputError, match="can be written"):
                    await stream.snapshot(tmp_path / "no" / "folder")
                await stream.snapshot(path)
                await stream.ask(WORDS, most(1))
            assert sorted(os.listdir(tmp_path)) == ["one"]
            async with await engine.stream() as stream:
                await stream.append(Text("Many words. " * 40))
                await ids(await stream.ask(WORDS, most(1)))
                await stream.snapshot(large)
            whole = path.read_bytes()
            for damaged in (b"", whole[:-1], whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], b"x" * 64):
                path.write_bytes(damaged)
                with pytest.raises(InputError, match="expected"):
                    await engine.restore(path)
            path.write_bytes(whole)
            with pytest.raises(InputError, match="got"):
                await engine.restore(tmp_path / "nothing")
            await (await engine.restore(path)).close()
        other: Loaded = house.loaded._replace(fingerprint="another")
        async with house.engine(other) as engine:
            with pytest.raises(InputError, match="model: expected another, got"):
                await engine.restore(path)
        async with house.engine(slots=1) as engine:
            async with await engine.restore(path) as again:
                assert again.why == why
                with pytest.raises(OverloadError, match="at most 1 open streams"):
                    await engine.restore(path)
                await ids(await again.ask(WORDS, most(1)))
                await until(lambda: not engine._wiring.generate._language.cache._host)
        async with house.engine(slots=1, kv_tokens=32) as engine:
            for _ in range(2):  # the first has given its place back
                with pytest.raises(InputError, match="restore: expected a stream of at most 32 rows, got"):
                    await engine.restore(large)
        async with house.engine(page_tokens=64) as engine:
            with pytest.raises(InputError, match="rows a page: expected 64, got"):
                await engine.restore(path)

    house.run(work())


@pytest.mark.parametrize("where", ["penstock.engine.scheduling.freezing.freeze", "penstock.actors.decode.freeze"])
def test_a_copy_that_fails_costs_its_stream_nothing(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fails(_: object) -> bytes:
        raise TypeError("no data")

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            await stream.append(Text("Words."))
            with monkeypatch.context() as patch:
                patch.setattr(where, fails)
                with pytest.raises(PenstockError, match="could not be copied: TypeError: no data"):
                    await stream.snapshot(tmp_path / "none")
            assert not os.listdir(tmp_path)
            assert await ids(await stream.ask(WORDS, most(2)))
            await stream.snapshot(tmp_path / "now")

    house.run(work())


_ELSEWHERE = """
import asyncio, json, sys
from penstock import Engine, EngineConfig

async def main():
    async with await Engine.load(sys.argv[1], config=EngineConfig(kv_tokens=4096, dtype="float32")) as engine:
        stream = await engine.restore(sys.argv[2])
        print(json.dumps([token.id async for token in stream.reply]))

asyncio.run(main())
"""


def test_another_process_says_the_same_tokens(house: House, tmp_path: Path) -> None:
    async def work() -> tuple[int, list[int]]:
        async with house.engine() as engine, await engine.stream(Request(format="turns")) as stream:
            for frame in shots(1, 2):
                await stream.append(frame)
            reply = await stream.ask(WORDS, SamplingParams(temperature=1.0, seed=3, max_tokens=60))
            await anext(aiter(reply))
            await stream.snapshot(tmp_path / "moved")
            rest = [token.id async for token in reply]
            return len(rest), rest

    count, mine = house.run(work())
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(model_path("omni")), str(tmp_path / "moved")],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told and told == mine[count - len(told) :]
