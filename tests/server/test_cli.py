"""The command line: one line and exit code 2 for what is wrong; SIGTERM ends a server in good order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import run
from penstock.errors import InputError
from penstock.server.cli import _parser as parser
from penstock.server.cli import main, server_config
from penstock.server.client import connect
from penstock.streams.event import Appended, Closed, Token
from penstock.streams.item import Image, Text
from penstock.streams.requests.request import Request, SamplingParams

from tests.fixtures.recipe import model_path
from tests.reference.media import picture

HERE = Path(__file__).parent
PICTURE = picture(1, 112, 112)
FAKE_SERVER = """
import asyncio, logging, sys
from fake_engine import FakeEngine
from penstock.server.app import serve
from penstock.server.config import ServerConfig
logging.basicConfig(level="INFO", stream=sys.stderr)
async def main():
    engine = FakeEngine(tokens=40)
    engine.gate = asyncio.Semaphore(1)
    engine.refuse = lambda item: [engine.gate.release() for _ in range(39)]
    await serve(engine, ServerConfig(port=0), on_listening=lambda url: print(url, flush=True))
    assert not engine.open
    print("clean", flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--host", "0.0.0.0"],
        ["serve", "--port", "70000"],
        ["serve", "--max-streams", "0"],
        ["serve", "--tls-cert", "cert.pem"],
        ["serve", "--api-key-file", "/nowhere/key"],
        ["serve", "--port", "0", "--processor", "sharpness=2"],
        ["serve", "--port", "0", "--limit", "smell=2"],
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("penstock: error: ") and told.err.count("\n") == 1


def test_a_taken_port_is_told_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    from penstock.server.app import bind
    from penstock.server.config import ServerConfig

    with bind(ServerConfig(port=0)) as listener:
        assert main(["serve", "--port", str(listener.getsockname()[1])]) == 2
    assert "cannot listen" in capsys.readouterr().err


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\nmore\n")
    monkeypatch.setenv("PENSTOCK_API_KEY", "from-environment")
    public = ["serve", "--host", "0.0.0.0"]
    assert server_config(parser().parse_args(public)).api_key == "from-environment"
    assert server_config(parser().parse_args([*public, "--api-key-file", str(file)])).api_key == "from-file"
    monkeypatch.delenv("PENSTOCK_API_KEY")
    assert server_config(parser().parse_args([*public, "--insecure", "--idle-seconds", "7"])).idle_seconds == 7.0


NUMBERS = {
    ("ask", "What?", "--max-tokens"): "a whole number",
    ("ask", "What?", "--temperature"): "a number",
    ("ask", "What?", "--fps"): "a number",
    ("ask", "What?", "--seconds"): "a number",
    ("serve", "--port"): "a whole number",
    ("serve", "--kv-gib"): "a number",
    ("serve", "--memory-fraction"): "a number",
    ("serve", "--max-streams"): "a whole number",
    ("serve", "--idle-seconds"): "a number",
    ("trace", "--tokens"): "a whole number",
    ("bench", "append", "--rounds"): "a whole number",
    ("bench", "append", "--histories"): "a whole number",
    ("bench", "latency", "--frames"): "a whole number",
    ("bench", "capacity", "--seconds"): "a number",
}


@pytest.mark.parametrize("words", NUMBERS, ids=" ".join)
def test_what_is_no_number_is_told_as_that(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "abc"])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and f"argument {words[-1]}: expected {NUMBERS[words]}, got 'abc'" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_server(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FAKE_SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert process.stdout is not None and process.stderr is not None

    async def talk() -> None:
        url = (await asyncio.to_thread(process.stdout.readline)).strip()  # type: ignore[union-attr]
        async with connect(url) as connection:
            stream = await connection.stream()
            reply = await stream.ask()
            tokens = aiter(reply)
            await anext(tokens)
            process.send_signal(number)
            while "draining" not in await asyncio.to_thread(process.stderr.readline):  # type: ignore[union-attr]
                pass
            await stream.append(Text("lets the other tokens through"))
            assert len([token async for token in tokens]) == 39
            told = [event async for event in stream]
            assert isinstance(told[-1], Closed)
            assert sum(isinstance(event, Token) for event in told) == 40

    try:
        run(talk)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out == "clean\n"


def test_a_second_signal_ends_the_server_at_once() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FAKE_SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert process.stdout is not None and process.stderr is not None

    async def talk() -> None:
        url = (await asyncio.to_thread(process.stdout.readline)).strip()  # type: ignore[union-attr]
        async with connect(url) as connection:
            stream = await connection.stream()
            await anext(aiter(await stream.ask()))  # A reply that would go on.
            process.send_signal(signal.SIGINT)
            while "draining" not in await asyncio.to_thread(process.stderr.readline):  # type: ignore[union-attr]
                pass
            await asyncio.sleep(0.3)
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, 4) == 0

    try:
        run(talk)
        assert process.communicate()[0] == "clean\n"
    finally:
        process.kill()


def test_the_command_serves_and_drains(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        command = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", "0", str(model_path("omni"))]
        command += ["--limit", "image=1", "--processor", "max_pixels=3136"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None

        async def talk(url: str) -> None:
            async with connect(url) as connection:
                parts = [{"type": "image", "image": PICTURE}] * 2
                with pytest.raises(InputError, match="messages: expected at most 1 image, got 2"):
                    await connection.generate(Request(messages=[{"role": "user", "content": parts}]))
                stream = await connection.stream()
                await stream.append(Image(PICTURE))
                reply = await stream.ask("Hello.", SamplingParams(max_tokens=40))
                tokens = aiter(reply)
                await anext(tokens)
                process.send_signal(signal.SIGTERM)
                assert len([token async for token in tokens]) == 39
                assert reply.reason == "length"
                told = [event async for event in stream]
                (appended,) = [event for event in told if isinstance(event, Appended)]
                assert appended.rows == 4, "56 by 56 pixels"
                assert isinstance(told[-1], Closed)

        try:
            line = process.stdout.readline()
            log.seek(0)
            assert line.startswith("penstock: serving on http://127.0.0.1:"), log.read()
            url = line.split()[-1]
            run(lambda: talk(url))
            assert process.wait(timeout=20) == 0
            facts = process.stdout.read()
            for fact in (
                "text, image, video",
                "turns, live, interrupt",
                "/v1/stream",
                "key",
                "greedy, unless a request says otherwise",
                "rows",
            ):
                assert fact in facts
        finally:
            process.kill()
            process.stdout.close()
        log.seek(0)
        told = log.read()
        assert "stream start" in told and "stream end" in told and "Traceback" not in told
        assert "Hello" not in told
