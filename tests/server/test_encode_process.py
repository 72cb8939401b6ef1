"""`penstock encode-serve` and two of `penstock serve --encoder`, as processes: the encoder is killed under a stream and
started again, and the replies are those of a server with towers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import penstock
import pytest
from penstock import Image, Request, SamplingParams

from tests.conftest import ANNOUNCED
from tests.fixtures.recipe import model_path
from tests.reference.media import picture

SHORT = SamplingParams(max_tokens=8, temperature=0)
ENCODING = "penstock: encoding on "


@contextmanager
def running(*arguments: str, key: str | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command of Penstock, and the address that it tells."""
    own = {} if key is None else {"PENSTOCK_API_KEY": key}
    command = [sys.executable, "-m", "penstock.server.cli", *arguments, "--device", "cpu"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | own
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            start = next(start for start in (ANNOUNCED, ENCODING) if line.startswith(start))
            yield process, line.removeprefix(start).strip()
        finally:
            process.kill()


async def told(url: str, *seeds: int) -> list[str]:
    async with penstock.connect(url) as connection:
        async with await connection.stream(Request(format="turns")) as stream:
            said = []
            for seed in seeds:
                await stream.append(Image(picture(seed, 70, 90)))
                said.append(await (await stream.ask("What is it?", SHORT)).text())
            return said


@pytest.mark.slow
def test_an_encoder_that_is_killed_and_started_again_is_not_missed(tmp_path: Path) -> None:
    model = str(model_path("omni"))
    (tmp_path / "key").write_text("sesame")
    with running("serve", model, "--port", "0") as (_, url):
        wanted = [asyncio.run(told(url, *seeds)) for seeds in ((1, 2), (3, 4))]
    with running("encode-serve", model, "--port", "0", key="sesame") as (first, encoder):
        port = encoder.rsplit(":", 1)[1]
        apart = ("serve", model, "--port", "0", "--encoder", encoder, "--encoder-key-file", str(tmp_path / "key"))
        with running(*apart) as (_, one), running(*apart) as (_, two), ExitStack() as later:
            assert [asyncio.run(told(url, 1, 2)) for url in (one, two)] == [wanted[0]] * 2
            first.kill()
            first.wait()

            async def meanwhile() -> list[list[str]]:
                asking = asyncio.gather(told(one, 3, 4), told(two, 3, 4))  # what no cache has
                await asyncio.sleep(1)
                assert not asking.done()
                again = running("encode-serve", model, "--port", port, key="sesame")
                await asyncio.to_thread(later.enter_context, again)
                return [*await asking]

            assert asyncio.run(meanwhile()) == [wanted[1]] * 2
