"""Clients name an adapter as their model, at every door; and load and unload adapters where they may."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import penstock
import pytest
from harness import get, run, serving, until
from openai import AsyncOpenAI
from penstock.actors.engine import Engine
from penstock.errors import InputError
from penstock.server.cli import main
from penstock.server.keys import ApiKey
from penstock.streams.requests.request import Request, SamplingParams
from test_http_doors import request
from websockets.asyncio.client import connect as open_socket

from tests.fixtures.adapters import adapter
from tests.fixtures.recipe import model_path

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
WORDS = "What do you see?"
PARAMS = SamplingParams(max_tokens=6, temperature=0.0)
ASKED = [{"role": "user", "content": WORDS}]


async def post(url: str, path: str, body: dict[str, Any], *headers: str) -> tuple[int, str]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request(body, *headers, path=path))
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), answer.decode()


def expected(engine: Engine, name: str | None) -> Any:
    return engine.generate(Request(messages=ASKED, adapter=name, params=PARAMS))


def test_clients_choose_by_the_name_of_the_model() -> None:
    """The unmodified `openai` client at its three doors, and the doors that are WebSockets; each hears its adapter."""
    folders = {f"org/seen-{which}": adapter("text", which) for which in (1, 2)}  # loads what takes long to load

    async def work() -> None:
        engine = await Engine.load(model_path("text"))
        try:
            for name, folder in folders.items():
                await engine.load_adapter(name, folder)
            own = Path(engine.info.model).name
            names: dict[str, str | None] = {own: None, **{name: name for name in folders}}
            words = {name: await expected(engine, worn) for name, worn in names.items()}
            assert len(set(words.values())) == 3
            async with serving(engine) as url:
                client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30)
                listed = [model async for model in await client.models.list()]
                assert {model.id: getattr(model, "parent", None) for model in listed} == {
                    own: None,
                    "org/seen-1": own,
                    "org/seen-2": own,
                }
                assert (await client.models.retrieve("org/seen-1")).id == "org/seen-1"
                together = await asyncio.gather(*(_chat(client, name) for name in (*names, *names)))
                assert together == [*words.values(), *words.values()]
                streamed = {name: await _live(url, name) for name in names}
                assert len(set(streamed.values())) == 3
                google = {name: await _google(url, name) for name in names}
                assert len(set(google.values())) == 3
                for name, worn in names.items():
                    asked = Request(prompt=WORDS, adapter=worn, params=PARAMS)
                    completion = await client.completions.create(model=name, prompt=WORDS, max_tokens=6, temperature=0)
                    assert completion.choices[0].text == await engine.generate(asked)
                    response = await client.responses.create(
                        model=name, input=WORDS, max_output_tokens=6, temperature=0
                    )
                    assert (response.model, response.output_text) == (name, words[name])
                    async with penstock.connect(url) as connection:
                        asked = Request(messages=ASKED, adapter=worn, params=PARAMS)
                        assert await connection.generate(asked) == words[name]
                        with pytest.raises(InputError, match="expected one that is loaded .*, got 'org/seen-3'"):
                            await connection.stream(Request(adapter="org/seen-3"))
                with pytest.raises(openai.NotFoundError, match=f"{own}' or 'org/seen-1' or 'org/seen-2'") as refused:
                    await _chat(client, "org/seen-3")
                assert refused.value.code == "model_not_found" and refused.value.param == "model"
                with pytest.raises(openai.NotFoundError):
                    await client.models.retrieve("org/seen-3")
                await client.close()
        finally:
            await engine.close()

    run(work)


async def _chat(client: AsyncOpenAI, name: str) -> str | None:
    reply = await client.chat.completions.create(model=name, messages=ASKED, max_tokens=6, temperature=0)  # pyright: ignore
    assert reply.model == name
    return reply.choices[0].message.content


async def _live(url: str, name: str) -> str:
    """A response of `/v1/realtime`."""
    async with open_socket(url.replace("http", "ws") + f"/v1/realtime?model={name}", proxy=None) as socket:
        created = json.loads(await socket.recv())
        assert created["session"]["model"] == name
        content = [{"type": "input_text", "text": WORDS}]
        item = {"type": "message", "role": "user", "content": content}
        await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await socket.send(json.dumps({"type": "response.create", "response": {"max_output_tokens": 6}}))
        while True:
            event = json.loads(await socket.recv())
            assert event["type"] != "error", event
            if event["type"] == "response.output_text.done":
                return event["text"]


async def _google(url: str, name: str) -> str:
    """A turn of `BidiGenerateContent`."""
    path = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    async with open_socket(url.replace("http", "ws") + path, proxy=None) as socket:
        generation = {"maxOutputTokens": 6, "temperature": 0}
        await socket.send(json.dumps({"setup": {"model": f"models/{name}", "generationConfig": generation}}))
        turns = [{"role": "user", "parts": [{"text": WORDS}]}]
        await socket.send(json.dumps({"clientContent": {"turns": turns, "turnComplete": True}}))
        said = ""
        while True:
            content = json.loads(await socket.recv()).get("serverContent", {})
            said += "".join(part["text"] for part in content.get("modelTurn", {}).get("parts", []))
            if content.get("turnComplete"):
                return said


def test_clients_load_and_unload(tmp_path: Path) -> None:
    """Below one folder only, whatever the path looks like, and with a key that may."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    inside = shelf / "mine"
    inside.symlink_to(shelf / "copy")
    (shelf / "copy").mkdir()
    for file in adapter("text", 1).iterdir():
        (shelf / "copy" / file.name).write_bytes(file.read_bytes())
    (shelf / "out").symlink_to(adapter("text", 2))

    async def work() -> None:
        engine = await Engine.load(model_path("text"))
        keys = (ApiKey(name="owner", key="open", adapters=True), ApiKey(name="guest", key="look"))
        owner, guest = (f"Authorization: Bearer {key}" for key in ("open", "look"))
        try:
            async with serving(engine, keys=keys) as url:
                status, answer = await post(url, LOAD, {"lora_name": "a", "lora_path": "mine"}, owner)
                assert status == 403 and "--adapter-folder" in answer
            async with serving(engine, keys=keys, adapter_folder=str(shelf)) as url:

                async def load(path: str, name: str = "a", key: str = owner) -> tuple[int, str]:
                    return await post(url, LOAD, {"lora_name": name, "lora_path": path}, key)

                assert (await post(url, LOAD, {"lora_name": "a", "lora_path": "mine"}))[0] == 401
                status, answer = await load("mine", key=guest)
                assert status == 403 and "adapters = true" in answer
                for path in ("..", ".", "", "/etc", "out", str(adapter("text", 2)), "../shelf2", "mine/../../x", "\0"):
                    status, answer = await load(path)
                    assert status == 400 and "inside the folder of --adapter-folder" in answer, path
                status, answer = await load("nowhere")
                assert status == 400 and "expected a folder, got 'nowhere'" in answer and str(tmp_path) not in answer
                status, answer = await post(url, LOAD, {"lora_name": "a", "lora_path": "mine", "rank": 3}, owner)
                assert status == 400 and json.loads(answer)["error"]["param"] == "rank"
                assert (await post(url, LOAD, {"lora_name": "a" * 70_000, "lora_path": "mine"}, owner))[0] == 400
                assert not engine.info.adapters
                assert await load("mine") == (200, "Success: LoRA adapter 'a' added successfully.")
                status, answer = await load(str(shelf / "copy"))
                assert status == 400 and "expected a name that is free, got 'a'" in answer
                client = AsyncOpenAI(base_url=f"{url}/v1", api_key="look", max_retries=0, timeout=30)
                assert await _chat(client, "a") == await expected(engine, "a") != await expected(engine, None)
                assert (await post(url, UNLOAD, {"lora_name": "a"}, guest))[0] == 403
                assert (await post(url, UNLOAD, {"lora_name": "a"}, owner)) == (
                    200,
                    "Success: LoRA adapter 'a' removed successfully.",
                )
                status, answer = await post(url, UNLOAD, {"lora_name": "a"}, owner)
                assert status == 404 and json.loads(answer)["error"]["code"] == "model_not_found"
                with pytest.raises(openai.NotFoundError):
                    await _chat(client, "a")
                await client.close()
                assert (await get(url, "/health"))[1]["engine"]["adapters"] == 0
                await until(lambda: engine.statistics()["adapter_bytes"] == 0)
        finally:
            await engine.close()

    run(work)


@pytest.mark.slow
def test_serve_loads_adapters() -> None:
    """`--adapter` is said more than once; what it names is listed."""
    folders = [f"{name}={adapter('text', which)}" for which, name in enumerate(("one", "two"), 1)]
    serve = [sys.executable, "-m", "penstock.server.cli", "serve", str(model_path("text")), "--port", "0"]
    serve += [word for folder in folders for word in ("--adapter", folder)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("penstock: serving on ").strip()
            assert any(line.split() == ["adapters", "one,", "two"] for line in iter(process.stdout.readline, ""))
            status, listed = asyncio.run(get(url, "/v1/models"))
            assert status == 200 and [card["id"] for card in listed["data"]][1:] == ["one", "two"]
        finally:
            process.terminate()


def test_serve_ends_for_an_adapter_that_does_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--adapter", "one"])
    assert "expected NAME=FOLDER, got 'one'" in capsys.readouterr().err
    assert main(["serve", str(model_path("text")), "--port", "0", "--adapter", f"one={model_path('text')}"]) == 2
    assert "expected adapter_config.json" in capsys.readouterr().err
    assert main(["serve", "--adapter-folder", str(tmp_path / "none")]) == 2
    assert "adapter_folder: expected a folder, got" in capsys.readouterr().err
