"""Snapshots over the wire: names without paths, a folder of the server, and only where it has one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import raw_client, run, running_engine, serving
from penstock.errors import InputError
from penstock.server.client import connect
from penstock.server.config import ServerConfig
from penstock.server.errors import ConfigError
from penstock.streams.item import Text
from penstock.streams.requests.request import SamplingParams

SHORT = SamplingParams(max_tokens=6)


def test_a_stream_goes_on_after_the_server_has_ended(tmp_path: Path) -> None:
    async def main() -> None:
        async with running_engine("real") as engine:
            async with serving(engine, snapshots=str(tmp_path)) as url, connect(url) as connection:
                stream = await connection.stream()
                seq = await stream.append(Text("A door."))
                said = await (await stream.ask("What is it?", SHORT)).text()
                async with await stream.fork(back_to=seq) as copy:
                    assert await (await copy.ask("What is it?", SHORT)).text() == said
                await stream.snapshot("door")
                expected = await (await stream.ask("And now?", SHORT)).text()
            async with serving(engine, snapshots=str(tmp_path)) as url, connect(url) as connection:
                again = await connection.restore("door")
                assert await (await again.ask("And now?", SHORT)).text() == expected
                with pytest.raises(InputError, match="window: expected a snapshot") as refused:
                    await connection.restore("window")
                assert str(tmp_path) not in str(refused.value)
            async with serving(engine) as url, connect(url) as connection:  # one that keeps none
                stream = await connection.stream()
                with pytest.raises(InputError, match="--snapshots"):
                    await stream.snapshot("door")
                with pytest.raises(InputError, match="--snapshots"):
                    await connection.restore("door")
                assert await (await stream.ask("Still there?", SHORT)).text()

    run(main)


@pytest.mark.parametrize("name", ["../door", "a/b", ".door", "", "door\n", "a" * 101, "/etc/passwd"])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        folder = tmp_path / "inside"
        folder.mkdir()
        async with running_engine("fake") as engine, serving(engine, snapshots=str(folder)) as url:
            async with raw_client(url) as client:
                await client.open("a")
                for kind in ("snapshot", "restore"):
                    await client.send(type=kind, stream="a", name=name, ref="1")
                    (refused,) = [m for m in await client.receive_until("error") if m["type"] == "error"]
                    assert (refused["code"], refused["path"], refused["ref"]) == ("message", "$.name", "1")
        assert os.listdir(tmp_path) == ["inside"] and not os.listdir(folder)

    run(main)


def test_the_folder_of_a_server_is_there() -> None:
    with pytest.raises(ConfigError, match="expected a folder"):
        ServerConfig(snapshots="/nowhere/at/all").check()
