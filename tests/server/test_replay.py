"""A live run that a server has recorded gives the same tokens once more; what is no record is refused."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from harness import run, serving
from penstock import (
    AudioChunk,
    Engine,
    EngineConfig,
    ReplyDone,
    Request,
    SamplingParams,
    Text,
    Token,
    TurnDetection,
    VideoFrame,
)
from penstock.demos.film import draw
from penstock.engine import record as records
from penstock.engine.plan import Result
from penstock.engine.record import Record, Recorder
from penstock.engine.runner.spans import SpanStore
from penstock.engine.scheduling.journal import Made
from penstock.errors import InputError
from penstock.server.cli import main
from penstock.server.client import Connection, connect

from tests.fixtures.adapters import adapter
from tests.fixtures.recipe import model_path

FRAME_US = 500_000
DRAWN = SamplingParams(max_tokens=12, temperature=0.9, hold=False)


async def listened(connection: Connection) -> str:
    """What a stream is told that hears a sound, and replies by itself when it has stopped."""
    turns = TurnDetection(detector="energy", prefix_ms=100)
    async with await connection.stream(Request(format="turns", params=SamplingParams(max_tokens=8))) as stream:
        await stream.listen(turns)
        times = np.arange(16_000)
        tone = (np.sin(times / 6) * 0.3 * (times < 5000)).astype(np.float32)
        for start in range(0, 16_000, 1600):
            await stream.append(AudioChunk(tone[None, start : start + 1600], 16_000, start * 125 // 2))
        text = ""
        async for event in stream:
            text += event.text if isinstance(event, Token | ReplyDone) else ""
            if isinstance(event, ReplyDone):
                return text
    raise AssertionError("expected a reply, got none")


async def watched(url: str, seconds: int) -> list[str]:
    """What two streams are told: one watches a film while its reply runs, the other asks meanwhile."""
    async with connect(url) as connection, await connection.stream(Request(format="live")) as live:
        async with await connection.stream(Request(format="turns")) as other:
            for number in range(4):
                await live.append(VideoFrame(draw(number / 2), pts_us=number * FRAME_US))
            narration = await live.watch("", SamplingParams(max_tokens=60))
            await other.append(Text("Look."))
            asked = await other.ask("What do you see?", DRAWN)
            for number in range(4, 2 * seconds):
                await live.append(VideoFrame(draw(number / 2), pts_us=number * FRAME_US))
            said = await asked.text()
            heard = await listened(connection)
            await live.end()
            told = "".join([token.text async for token in narration])
            question = await live.ask("How many things are there?", SamplingParams(max_tokens=8))
            return [said, told, heard, await question.text()]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A record, and what the clients were told."""
    folder = tmp_path_factory.mktemp("records")
    told: list[str] = []

    async def work() -> None:
        config = EngineConfig(record=str(folder))
        async with await Engine.load(config=config) as engine, serving(engine) as url:
            told.extend(await watched(url, 5))

    run(work)
    (path,) = folder.iterdir()
    return path, told


def test_a_recorded_run_gives_the_same_tokens(recorded: tuple[Path, list[str]], capsys: pytest.CaptureFixture) -> None:
    path, told = recorded
    assert main(["replay", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("tokens: the same")
    replies = [line.partition("): ")[2].strip() for line in lines if line.startswith("stream")]
    assert {words.strip() for words in told} <= set(replies)


def test_another_token_is_told(recorded: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path, _ = recorded
    record = Record(path)
    store = SpanStore()
    copy = Recorder(str(tmp_path), record.header, store)
    spoilt = 0
    for entry in record:
        if isinstance(entry, Result) and entry.tokens and not spoilt:
            spoilt = entry.number
            entry = msgspec.structs.replace(entry, tokens=[entry.tokens[0] + 1, *entry.tokens[1:]])
        if isinstance(entry, Made):
            store.add(entry.id, entry.embeds)  # the copy notes them with what names them
        else:
            copy.note(entry)
    copy.close()
    assert main(["replay", str(copy.path)]) == 1
    out = capsys.readouterr().out
    assert f"step {spoilt}: tokens" in out and "other tokens in 1 of them" in out


def test_a_torn_record_is_replayed_up_to_there(
    recorded: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    torn = tmp_path / "torn.record"
    torn.write_bytes(recorded[0].read_bytes()[:-3])
    assert main(["replay", str(torn)]) == 0
    assert "ends within an entry" in capsys.readouterr().err


def test_a_run_with_adapters_gives_the_same_tokens(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One is unloaded, and its name taken by another, while a stream wears it. Where a folder has another adapter than
    then, the run is not repeated."""
    folders = {which: Path(shutil.copytree(adapter("text", which), tmp_path / str(which))) for which in (1, 2)}
    params = SamplingParams(max_tokens=6, temperature=0.0)

    async def work() -> list[str]:
        config = EngineConfig(record=str(tmp_path / "records"), kv_tokens=2048)
        async with await Engine.load(model_path("text"), config=config) as engine:
            plain = await engine.generate(Request(prompt="What is it?"), params)
            await engine.load_adapter("a", folders[1])
            async with await engine.stream(Request(adapter="a")) as stream:
                await engine.unload_adapter("a")
                await engine.load_adapter("a", folders[2])
                first = await (await stream.ask("What is it?", params)).text()
            return [plain, first, await engine.generate(Request(prompt="What is it?", adapter="a"), params)]

    told = asyncio.run(work())
    assert len(set(told)) == 3
    (path,) = (tmp_path / "records").iterdir()
    assert main(["replay", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith("tokens: the same") and all(words in out for words in told)
    shutil.copytree(folders[2], folders[1], dirs_exist_ok=True)
    assert main(["replay", str(path)]) == 2
    assert f"replay: expected the adapter that was in {folders[1]} then, got another" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"", b"GIF89a", records._FORMAT, records._FORMAT + b"\x00\x00\x00\x01\xc0"])
def test_what_is_no_record_is_refused(content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    assert main(["replay", str(path)]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InputError, match="record: expected a folder that can be written"):
        asyncio.run(Engine.load(config=EngineConfig(record=str(file))))


def test_on_a_full_disk_the_engine_goes_on(recorded: tuple[Path, list[str]], caplog: pytest.LogCaptureFixture) -> None:
    header = Record(recorded[0]).header

    class Full(Recorder):
        def __init__(self) -> None:
            self.path = Path("/dev/full")
            self._file = self.path.open("wb", buffering=0)

    full = Full()
    full._put(header)
    full.note(Result(1, [2]))  # nothing is written any more
    assert full._file is None
    assert "the record ends here, the engine goes on" in caplog.text
