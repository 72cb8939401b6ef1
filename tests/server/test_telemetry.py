"""A trace of each reply: what was done for it in each actor, in its order and without its words."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from harness import run, serving, shot
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.errors import PenstockError
from penstock.server.errors import ConfigError
from penstock.server.telemetry import Telemetry, exported
from penstock.streams.item import Image, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.fixtures.recipe import model_path
from tests.reference.media import frames, picture

PARAMS = SamplingParams(max_tokens=3, temperature=0.5, seed=7, stop=("secret",))


def traced(work: Callable[[Engine], Awaitable[Any]]) -> list[ReadableSpan]:
    """The spans of what is done with an engine; afterwards nothing is kept of it."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(provider.get_tracer("test"))

    async def main() -> None:
        loaded = load(model_path("omni"), EngineConfig())
        async with Engine(loaded, EngineConfig(), observer=telemetry.put) as engine:
            await engine.warm_up()
            telemetry.begin("small")
            await work(engine)
        assert not telemetry._streams and not telemetry._unfed

    run(main)
    return list(exporter.get_finished_spans())


def of(spans: list[ReadableSpan]) -> list[tuple[dict[str, Any], list[ReadableSpan]]]:
    """Each reply with what is beneath it, by start."""
    replies = [span for span in spans if span.parent is None]
    assert all(span.name == "chat small" and span.kind is SpanKind.SERVER for span in replies)
    found = []
    for reply in replies:
        assert reply.context is not None
        id = reply.context.span_id
        beneath = [span for span in spans if span.parent is not None and span.parent.span_id == id]
        found.append((dict(reply.attributes or {}), sorted(beneath, key=lambda span: span.start_time or 0)))
    assert len(spans) == len(replies) + sum(len(beneath) for _, beneath in found)
    return found


def test_a_reply_has_one_span_and_beneath_it_what_each_actor_did() -> None:
    async def work(engine: Engine) -> None:
        async with await engine.stream(Request(system="secret")) as stream:
            await stream.append(Image(picture(1)))
            await (await stream.ask("secret?", PARAMS)).text()
            await (await stream.ask("secret!", SamplingParams(max_tokens=2))).text()
        parts = [{"type": "image", "image": picture(2)}, {"type": "text", "text": "secret"}]
        await engine.generate(Request(messages=[{"role": "user", "content": parts}], params=PARAMS))

    spans = traced(work)
    (first, under), (second, later), (third, whole) = of(spans)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "small",
        "gen_ai.request.max_tokens": 3,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ("length",),
    }
    assert expected.items() <= first.items() and expected.items() <= third.items()
    assert first["gen_ai.usage.input_tokens"] < second["gen_ai.usage.input_tokens"]
    assert [span.name for span in under] == ["decode", "encode", "schedule", "prefill", "generate"] or [
        span.name for span in under
    ] == ["decode", "schedule", "encode", "prefill", "generate"]
    assert [span.name for span in later] == ["schedule", "prefill", "generate"]
    assert {span.name for span in whole} == {"decode", "encode", "schedule", "prefill", "generate"}
    for (one, beneath), reply in zip(of(spans), [span for span in spans if span.parent is None], strict=True):
        ways = {span.name: span for span in beneath}
        assert reply.start_time == ways["schedule"].start_time and reply.end_time == ways["generate"].end_time
        assert ways["schedule"].end_time == ways["prefill"].start_time
        assert ways["prefill"].end_time == ways["generate"].start_time == reply.events[0].timestamp
        assert (
            reply.start_time and reply.events[0].name == "first token" and reply.status.status_code is StatusCode.UNSET
        )
        seconds = (reply.events[0].timestamp - reply.start_time) / 1e9
        assert one["gen_ai.response.time_to_first_chunk"] == pytest.approx(seconds)
    assert "secret" not in "".join(span.to_json() for span in spans)


def test_media_in_mid_reply_is_beneath_it_and_a_stream_that_is_closed_ends_its_reply() -> None:
    async def work(engine: Engine) -> None:
        stream = await engine.stream(Request(format="live"))
        reply = await stream.ask("What?", SamplingParams(max_tokens=4000, ignore_eos=True))
        await anext(aiter(reply))
        for number, pixels in enumerate(frames(1, 4)):
            await stream.append(VideoFrame(pixels, number * 500_000))
        async for token in reply:
            if token.seen is not None and token.seen.stop_us == 1_500_000:
                break
        await stream.close()

    ((reply, beneath),) = of(traced(work))
    assert reply["gen_ai.response.finish_reasons"] == ("interrupted",)
    assert reply["gen_ai.usage.output_tokens"] > 1
    media = [span for span in beneath if span.name in ("decode", "encode")]
    assert sorted(span.name for span in media) == ["decode"] * 2 + ["encode"] * 2
    assert all((span.attributes or {})["penstock.modality"] == "video" for span in media)


def test_a_request_over_http_names_the_parent_of_its_replies() -> None:
    """Those to a prompt that is forked too; a header that is none is left out, and so is the next client's."""
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = json.dumps({"prompt": "x", "n": 2, "max_tokens": 2}).encode()

    async def work(engine: Engine) -> None:
        async with serving(engine) as url:
            for header in (f"traceparent: {caller}\r\n", "", "traceparent: what\r\n"):
                head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{header}"
                answer = await shot(url, f"{head}Connection: close\r\n\r\n".encode() + body)
                assert b" 200 " in answer.partition(b"\r\n")[0]

    replies = [span for span in traced(work) if span.name == "chat small"]
    parents = [span.parent and f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}-01" for span in replies]
    assert parents == [caller, caller, None, None, None, None]


def test_a_question_that_is_refused_is_an_error() -> None:
    async def work(engine: Engine) -> None:
        async with await engine.stream() as stream:
            with pytest.raises(PenstockError):
                await stream.ask("")

    spans = traced(work)
    assert [span.status.status_code for span in spans] == [StatusCode.ERROR]
    assert dict(spans[0].attributes or {})["error.type"] == "input"


def test_without_opentelemetry_it_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r'pip install "penstock\[otel\]"'), exported():
        pass
