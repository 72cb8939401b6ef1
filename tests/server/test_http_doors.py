"""HTTP requests for replies over a server whose engine does what a test says: bounds, access, ends, faults."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fake_engine import FakeEngine
from harness import get, run, serving, until
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from penstock.server import http
from penstock.server.keys import ApiKey
from pydantic import TypeAdapter
from test_app import draining

CHAT = "/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def ask(*words: str, **fields: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": [{"role": "user", "content": " ".join(words) or "x"}], **fields}


def request(body: dict[str, Any] | bytes, *headers: str, path: str = CHAT, method: str = "POST") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", "Connection: close"]
    return "".join(f"{line}\r\n" for line in (*lines, *headers, "")).encode() + data


class Client:
    """A socket that sends what a test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.read = b""

    async def until(self, mark: bytes) -> None:
        """Read until this has come."""
        self.read += await self.reader.readuntil(mark)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body, to the end of the socket."""
        head, _, body = (self.read + await self.reader.read()).partition(b"\r\n\r\n")
        self.writer.close()
        first, *lines = head.decode().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines)
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(body.split(b"\r\n")[1::2])
        return int(first.split()[1]), headers, body


async def opened(url: str, sent: bytes = b"") -> Client:
    host, _, port = url.removeprefix("http://").rpartition(":")
    client = Client(*await asyncio.open_connection(host, int(port)))
    client.writer.write(sent)
    return client


async def answered(url: str, sent: bytes) -> tuple[int, dict[str, str], Any]:
    client = await opened(url, sent)
    status, headers, body = await client.answer()
    return status, headers, json.loads(body) if headers.get("content-type") == "application/json" else body


def events(body: bytes) -> list[Any]:
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: {")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_that_goes_leaves_nothing(stream: bool, loop: str) -> None:
    engine = FakeEngine()
    engine.words, engine.gate = ["a ", "b ", "c"], asyncio.Semaphore(1)

    async def main() -> None:
        async with serving(engine) as url:
            client = await opened(url, request(ask(stream=stream, n=1)))
            if stream:
                await client.until(b'"content":"a "')
            else:
                await until(lambda: bool(engine.open))
            assert (await get(url, "/health"))[1]["connections"] == 1
            client.writer.transport.abort()
            await until(lambda: not engine.open)
            while (await get(url, "/health"))[1]["connections"]:
                pass

    run(main, loop)


def test_a_client_that_has_asked_twice_and_goes_leaves_nothing() -> None:
    """What comes behind a request is not looked at until that one is answered; the end of the client is."""
    engine = FakeEngine()
    engine.words, engine.gate = ["a"], asyncio.Semaphore(0)
    twice = request(ask()).replace(b"Connection: close\r\n", b"") * 2

    async def main() -> None:
        async with serving(engine) as url:
            for more in (b"", b"x" * (http.WAITING_BYTES + 1)):
                client = await opened(url, twice)
                await until(lambda: bool(engine.open))
                if more:
                    client.writer.write(more)
                    assert b"400 Bad Request" in await client.reader.read()
                client.writer.transport.abort()
                await until(lambda: not engine.open)
        assert len(engine.streams) == 2

    run(main)


def test_a_reply_may_take_longer_than_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.2)
    engine = FakeEngine()
    engine.words, engine.gate = ["a"], asyncio.Semaphore(0)

    async def main() -> None:
        async with serving(engine) as url:
            client = await opened(url, request(ask()))
            await asyncio.sleep(0.4)  # longer than a request may take to come
            assert engine.gate is not None
            engine.gate.release()
            status, _, body = await client.answer()
            assert status == 200 and json.loads(body)["choices"][0]["message"]["content"] == "a"
            assert json.loads(body)["usage"]["prompt_tokens"] == 7

    run(main)


def test_a_large_request_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second more for so many bytes, and no more than that."""
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.2)
    monkeypatch.setattr(http, "BODY_BYTES_A_SECOND", 1000)
    engine = FakeEngine()
    engine.words = ["a"]
    sent = request(ask("x" * 2000))

    async def main() -> None:
        async with serving(engine) as url:
            for late, status in ((sent[:1500], 200), (sent[:900], 408)):
                client = await opened(url, late)
                await asyncio.sleep(0.4)
                if status == 200:
                    client.writer.write(sent[len(late) :])
                assert (await client.answer())[0] == status

    run(main)


def test_a_client_that_does_not_read_is_cut() -> None:
    engine = FakeEngine()
    engine.words = ["x" * 200_000] * 200

    async def main() -> None:
        async with serving(engine, unread_seconds=0.3) as url:
            client = await opened(url, request(ask(stream=True)))
            await until(lambda: bool(engine.streams))
            await until(lambda: not engine.open)
            while (await get(url, "/health"))[1]["connections"]:
                pass
            client.writer.close()

    run(main)


def test_a_reply_that_breaks_off_says_so() -> None:
    engine = FakeEngine()
    engine.words, engine.gate = ["a ", "b "], asyncio.Semaphore(1)

    async def main() -> None:
        async with serving(engine, stay=True) as url:
            streamed = await opened(url, request(ask(stream=True)))
            await streamed.until(b'"a "')
            whole = await opened(url, request(ask()))
            await until(lambda: len(engine.open) == 2)
            engine.fail(RuntimeError("secret"))
            _, _, body = await streamed.answer()
            (told,) = events(body)[-1:]
            assert told["error"]["type"] == "server_error" and b"[DONE]" not in body and b"secret" not in body
            status, _, body = await whole.answer()
            assert status == 500 and json.loads(body)["error"]["code"] == "internal"
            assert (await answered(url, request(ask())))[0] == 503

    run(main)


def test_a_server_that_goes_down_lets_replies_end() -> None:
    engine = FakeEngine()
    engine.words, engine.gate = ["a ", "b"], asyncio.Semaphore(1)

    async def main() -> None:
        async with draining(engine, drain_seconds=0.3) as (url, drain):
            client = await opened(url, request(ask(stream=True)))
            await client.until(b'"a "')
            ending = asyncio.create_task(drain(), name="drain")
            await asyncio.sleep(0)
            assert (await answered(url, request(ask())))[0] == 503
            _, _, body = await client.answer()
            assert events(body)[-1]["error"]["code"] == "draining"
            await ending

    run(main)


def test_what_is_too_much_is_refused_in_the_shape_of_the_door() -> None:
    engine = FakeEngine()
    engine.words, engine.gate = ["a"], asyncio.Semaphore(0)
    large = request(ask("x" * 3000))
    chunked = large.replace(b"Content-Length", b"Transfer-Encoding: chunked\r\nX-Was")
    head, _, data = chunked.partition(b"\r\n\r\n")
    chunked = head + b"\r\n\r\n" + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)

    async def main() -> None:
        async with serving(engine, max_connections=1, max_message_bytes=2000, api_key="key") as url:
            key = "Authorization: Bearer key"
            status, _, body = await answered(url, request(ask()))
            assert status == 401 and body["error"]["code"] == "invalid_api_key"
            for sent in (large, chunked):
                status, _, body = await answered(url, sent.replace(b"\r\n\r\n", f"\r\n{key}\r\n\r\n".encode(), 1))
                assert status == 413 and "at most 2000 bytes" in body["error"]["message"]
            held = await opened(url, request(ask(), key))
            await until(lambda: bool(engine.open))
            status, headers, body = await answered(url, request(ask(), key))
            assert status == 429 and headers["retry-after"] and body["error"]["type"] == "rate_limit_error"
            assert (await answered(url, request(b"{", key)))[0] == 429
        assert await held.reader.read() == b"" and not engine.open  # it ended with its server
        held.writer.close()

    run(main)


def test_the_limits_of_a_key_hold() -> None:
    engine = FakeEngine()
    engine.words = ["a", "b"]
    keys = (ApiKey(name="few", key="few", tokens_per_day=1), ApiKey(name="slow", key="slow", bytes_per_second=50))

    async def main() -> None:
        async with serving(engine, keys=keys) as url:
            sent = request(ask(), "Authorization: Bearer few")
            assert [(await answered(url, sent))[0] for _ in range(2)] == [200, 429]
            slow = "Authorization: Bearer slow"
            assert (await answered(url, request(ask("x" * 200), slow)))[0] == 200  # words are no media
            image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "AAAA" * 50}}
            shown = json.dumps({"messages": [{"role": "user", "content": [image]}]}).encode()
            status, _, told = await answered(url, request(shown, slow))
            assert status == 429 and told["error"]["code"] == "rate_limit"

    run(main)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"messages": 1}', b"null"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url:
            for path in (CHAT, "/v1/completions", "/v1/responses"):
                status, _, told = await answered(url, request(body, path=path))
                assert status == 400 and told["error"]["type"] == "invalid_request_error"
            status, _, told = await answered(url, request(b"", path="/v1/embeddings"))
            assert status == 404 and told["error"]["type"] == "not_found_error"
            assert (await answered(url, request(b"", method="GET")))[0] == 405

    run(main)


def test_pages_of_allowed_origins_may_ask() -> None:
    engine = FakeEngine()
    engine.words = ["a"]
    page, foreign = "Origin: https://example.org", "Origin: https://example.com"
    wants = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization, x-stainless-os")

    async def main() -> None:
        async with serving(engine, allow_origins=("https://example.org",), api_key="k") as url:
            status, headers, _ = await answered(url, request(b"", page, *wants, method="OPTIONS"))
            assert status == 204 and headers["access-control-allow-origin"] == "https://example.org"
            assert headers["access-control-allow-headers"] == "authorization, x-stainless-os"
            assert (await answered(url, request(b"", foreign, *wants, method="OPTIONS")))[0] == 403
            for key, status in (("k", 200), ("wrong", 401)):
                got, headers, _ = await answered(url, request(ask(), page, f"Authorization: Bearer {key}"))
                assert got == status and headers["access-control-allow-origin"] == "https://example.org"
            got, headers, _ = await answered(url, request(ask(), foreign, "Authorization: Bearer k"))
            assert got == 403 and "access-control-allow-origin" not in headers

    run(main)


CALL = ["I look. <tool", '_call>\n{"name": "look", "arg', 'uments": {"at": "door"}}', "\n</tool_call>"]


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_come_as_calls(path: str, stream: bool) -> None:
    engine = FakeEngine()
    engine.words = CALL
    body = ask(tools=[TOOL], stream=stream)
    if path != CHAT:
        body = {"input": "x", "tools": [{"type": "function", **TOOL["function"]}], "stream": stream}

    async def main() -> None:
        async with serving(engine) as url:
            status, _, told = await answered(url, request(body, path=path))
            assert status == 200
            kind = (ChatCompletionChunk if stream else ChatCompletion) if path == CHAT else Response
            for one in events(told) if stream else [told]:
                if kind is Response and stream:
                    TypeAdapter(ResponseStreamEvent).validate_python(one)
                else:
                    kind.model_validate(one)
            if path == CHAT and stream:
                deltas = [event["choices"][0]["delta"] for event in events(told)]
                calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
                text = "".join(delta.get("content", "") for delta in deltas)
                name, arguments = calls[0]["function"]["name"], "".join(c["function"]["arguments"] for c in calls)
                reason = events(told)[-1]["choices"][0]["finish_reason"]
                assert calls[0]["id"] and reason == "tool_calls"
            elif path == CHAT:
                message = told["choices"][0]["message"]
                text, (call,) = message["content"], message["tool_calls"]
                name, arguments = call["function"]["name"], call["function"]["arguments"]
                assert told["choices"][0]["finish_reason"] == "tool_calls"
            else:
                message, call = (events(told)[-1]["response"] if stream else told)["output"]
                text, name, arguments = message["content"][0]["text"], call["name"], call["arguments"]
            assert (text, name, json.loads(arguments)) == ("I look. ", "look", {"at": "door"})
        assert engine.streams[0].request.tools == [TOOL]

    run(main)


def test_messages_reach_the_engine_as_chat_templates_expect_them() -> None:
    engine = FakeEngine()
    engine.words = ["a"]
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "y"}]},
    ]

    async def main() -> None:
        async with serving(engine) as url:
            assert (await answered(url, request({"messages": messages, "tools": [TOOL], "user": "me"})))[0] == 200
            system, user, assistant, tool = engine.streams[0].request.messages or []
            assert system == {"role": "system", "content": "Be short."}
            assert user == {"role": "user", "content": [{"type": "text", "text": "x"}]}
            assert assistant["content"] == "" and assistant["tool_calls"][0]["function"]["arguments"] == {"at": 1}
            assert tool == {"role": "tool", "tool_call_id": "c1", "content": "y"}

    run(main)


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_one_call_and_no_more_where_a_client_wants_them_one_after_the_other(path: str) -> None:
    """The reply ends with its first call: what a model would say behind it is not computed."""
    engine = FakeEngine()
    engine.words = [*CALL, *CALL]
    body = ask(tools=[TOOL], parallel_tool_calls=False)
    if path != CHAT:
        tools = [{"type": "function", **TOOL["function"]}]
        body = {"input": "x", "tools": tools, "parallel_tool_calls": False}

    async def main() -> None:
        async with serving(engine) as url:
            status, _, told = await answered(url, request(body, path=path))
            assert status == 200 and engine.streams[0].request.params.stop == ("</tool_call>",)
            if path == CHAT:
                assert len(told["choices"][0]["message"]["tool_calls"]) == 1
            else:
                assert [item["type"] for item in told["output"]].count("function_call") == 1
                assert told["parallel_tool_calls"] is False

    run(main)
