"""The unmodified `openai` package works with the server: right answers about a picture, a sound and a film in one
request, streams that its own types accept, several replies, and its own classes of errors."""

from __future__ import annotations

import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

SEES, HEARS, MOVED = "a red circle and a yellow square.", "a high beep.", "the red circle moved right."


def b64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


@pytest.fixture(scope="module")
def client(brook_url: str) -> OpenAI:
    return OpenAI(base_url=f"{brook_url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def shown(media: Path) -> dict[str, Any]:
    """The parts of a message that show a picture, a sound of two seconds and a film of four."""
    from asking import SECONDS
    from penstock.demos.film import make_film

    assert SECONDS
    film = base64.b64encode(make_film(4.0)).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64(media / 'picture.png')}"}}
    sound = {"type": "input_audio", "input_audio": {"data": _first_seconds(media / "sound.wav"), "format": "wav"}}
    return {
        "picture": picture,
        "sound": sound,
        "film": {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{film}"}},
    }


def _first_seconds(file: Path) -> str:
    import io
    import wave

    out = io.BytesIO()
    with wave.open(str(file)) as source, wave.open(out, "wb") as target:
        target.setparams(source.getparams())
        target.writeframes(source.readframes(2 * source.getframerate()))
    return base64.b64encode(out.getvalue()).decode()


def asked(*content: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]}]


def raw(url: str, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of all server-sent events of an answer, as they came."""
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix(b"data: ") for line in answer.read().splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def test_a_picture_a_sound_and_a_film_in_one_request(client: OpenAI, shown: dict[str, Any]) -> None:
    for question, answer in (("What do you see?", SEES), ("What do you hear?", HEARS), ("What moved?", MOVED)):
        reply = client.chat.completions.create(model="brook", messages=asked(*shown.values(), question))
        ChatCompletion.model_validate(reply.to_dict())
        assert reply.choices[0].message.content == answer
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage is not None and reply.usage.completion_tokens == len(answer.split()) + 1
    assert reply.usage.prompt_tokens_details is not None
    held = reply.usage.prompt_tokens_details.cached_tokens or 0  # all but the question and what is no full page
    assert reply.usage.prompt_tokens - 64 < held < reply.usage.prompt_tokens


def test_media_is_named_again_by_its_uuid(client: OpenAI, shown: dict[str, Any]) -> None:
    sent: Any = {**shown["picture"], "uuid": "that one"}
    for part in (sent, {**sent, "image_url": None}, {"type": "image_url", "uuid": "that one"}):
        reply = client.chat.completions.create(model="brook", messages=asked(part, "What do you see?"))
        assert reply.choices[0].message.content == SEES
    with pytest.raises(openai.BadRequestError, match="which has image_url: send the media again") as refused:
        part = {"type": "video_url", "video_url": None, "uuid": "that one"}
        client.chat.completions.create(model="brook", messages=asked(part, "What moved?"))
    assert refused.value.param == "messages[0].content[0].uuid"


def test_a_conversation_keeps_its_media(client: OpenAI, shown: dict[str, Any]) -> None:
    messages = asked(shown["picture"], "What do you see?")
    messages += [{"role": "assistant", "content": SEES}, *asked(shown["sound"], "What do you hear?")]
    messages += [{"role": "assistant", "content": HEARS}, *asked(shown["film"], "What moved?")]
    assert client.chat.completions.create(model="brook", messages=messages).choices[0].message.content == MOVED


def test_what_is_streamed_is_what_a_whole_answer_has(brook_url: str, client: OpenAI, shown: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"model": "brook", "messages": asked(shown["picture"], "What do you see?")}
    fields |= {"logprobs": True, "top_logprobs": 2, "temperature": 0}
    whole = client.chat.completions.create(**fields)
    options = {"include_usage": True}
    chunks = raw(brook_url, "/v1/chat/completions", {**fields, "stream": True, "stream_options": options})
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == SEES
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]][-2:] == [None, "stop"]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 8
    streamed = [entry for chunk in chunks[:-1] for entry in (chunk["choices"][0]["logprobs"] or {}).get("content", [])]
    assert whole.choices[0].logprobs is not None
    entries = [entry.to_dict() for entry in whole.choices[0].logprobs.content or []]
    assert [entry["token"] for entry in streamed] == [entry["token"] for entry in entries]
    assert "".join(entry["token"] for entry in streamed) == SEES
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] <= 0 for entry in streamed)
    parsed = client.chat.completions.create(**fields, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in parsed) == SEES


@pytest.mark.parametrize("stream", [False, True])
def test_several_replies_to_one_prompt(client: OpenAI, shown: dict[str, Any], stream: bool) -> None:
    fields: dict[str, Any] = {"model": "brook", "messages": asked(shown["picture"], "What?"), "n": 3, "seed": 5}
    single: dict[str, Any] = {**fields, "n": 1}
    one = client.chat.completions.create(**single, temperature=3.0, max_tokens=6)
    if stream:
        texts = ["", "", ""]
        for chunk in client.chat.completions.create(**fields, temperature=3.0, max_tokens=6, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    else:
        reply = client.chat.completions.create(**fields, temperature=3.0, max_tokens=6)
        texts = [choice.message.content or "" for choice in reply.choices]
        assert reply.usage is not None and one.usage is not None
        assert reply.usage.prompt_tokens == one.usage.prompt_tokens
    assert texts[0] == one.choices[0].message.content
    assert len(set(texts)) == 3


def test_a_reply_of_a_form(client: OpenAI, shown: dict[str, Any]) -> None:
    seen = {"shape": {"enum": ["square", "circle", "star"]}, "colour": {"enum": ["red", "blue", "green", "yellow"]}}
    schema = {"type": "object", "properties": seen, "required": ["shape", "colour"], "additionalProperties": False}
    form: Any = {"type": "json_schema", "json_schema": {"name": "seen", "schema": schema}}
    messages: Any = asked(shown["picture"], "What do you see?")
    reply = client.chat.completions.create(model="brook", messages=messages, response_format=form)
    found = json.loads(reply.choices[0].message.content or "")
    assert (found["colour"], found["shape"]) in {("red", "circle"), ("yellow", "square")}
    flat: Any = {"format": {"type": "json_schema", "name": "seen", "schema": schema}}
    parts: Any = [{"type": "input_text", "text": "What do you see?"}]
    whole = client.responses.create(model="brook", input=[{"role": "user", "content": parts}], text=flat)
    assert set(json.loads(whole.output_text)) == {"shape", "colour"}
    flat["format"]["schema"] = {"$ref": "#/nowhere"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="brook", input="x", text=flat)
    assert refused.value.param == "text.format"
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="brook", input=[{"role": "user", "content": "x", "name": "bob"}])  # pyright: ignore
    assert refused.value.param == "input[0].name"


WRONG: dict[str, tuple[dict[str, Any], type[openai.APIStatusError], str | None, str]] = {
    "temperature": ({"temperature": -1}, openai.BadRequestError, "temperature", "expected in [0, 100], got -1.0"),
    "length": ({"max_completion_tokens": 0}, openai.BadRequestError, "max_completion_tokens", "at least 1"),
    "model": ({"model": "gpt-4o"}, openai.NotFoundError, "model", "expected 'brook'"),
    "unknown": ({"extra_body": {"dry": 1}}, openai.BadRequestError, "dry", "expected no such field"),
    "replies": ({"n": 99}, openai.BadRequestError, "n", "expected 1 to 8, got 99"),
    "tools": (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        openai.BadRequestError,
        "tools",
        "expected a model whose chat template writes them",
    ),
    "form": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}}}},
        openai.BadRequestError,
        "response_format",
        "json_schema",
    ),
    "media": (
        {"messages": asked("x", {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})},
        openai.BadRequestError,
        "messages[0].content[1].image_url.url",
        "picture: expected JPEG, PNG, WEBP, GIF",
    ),
    "url": (
        {"messages": asked({"type": "image_url", "image_url": {"url": "http://example.org/a.png"}})},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "this server fetches nothing",
    ),
    "file": (
        {"messages": asked({"type": "image_url", "image_url": {"url": "/etc/passwd"}})},
        openai.BadRequestError,
        "messages[0].content[0].image_url.url",
        "expected media over the wire as a data: URL",
    ),
    "uuid": (
        {"messages": asked({"type": "image_url", "image_url": None, "uuid": "a"})},
        openai.BadRequestError,
        "messages[0].content[0].uuid",
        "expected one under which this server still holds a part of the type 'image_url'",
    ),
    "beside": (
        {"messages": asked({"type": "video_url", "video_url": {"url": "data:video/webm;base64,AAAA"}, "fps": 2})},
        openai.BadRequestError,
        "messages[0].content[0].fps",
        "expected no such field",
    ),
    "within": (
        {"messages": asked({"type": "video_url", "video_url": {"url": "data:video/webm;base64,AAAA", "fps": 2}})},
        openai.BadRequestError,
        "messages[0].content[0].video_url.fps",
        "expected no such field",
    ),
    "role": ({"messages": [{"content": "x"}]}, openai.BadRequestError, "messages[0].role", "got nothing"),
    "long": ({"messages": asked("x" * 2_000_000)}, openai.BadRequestError, "messages", "the cache holds 32768 rows"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_refused_with_its_place(client: OpenAI, case: str, stream: bool) -> None:
    fields, kind, param, words = WRONG[case]
    with pytest.raises(kind) as refused:
        client.chat.completions.create(**{"model": "brook", "messages": asked("x")} | fields, stream=stream)
    assert words in refused.value.message and refused.value.param == param
    assert isinstance(refused.value.body, dict)
    assert set(refused.value.body) == {"message", "type", "param", "code"}


def test_the_older_interface_continues_a_text(brook_url: str, client: OpenAI) -> None:
    prompt = "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"
    whole = client.completions.create(model="brook", prompt=[prompt, prompt], logprobs=2)
    first, second = whole.choices
    assert first.text == second.text and first.logprobs is not None and first.logprobs.tokens is not None
    assert "".join(first.logprobs.tokens) == first.text
    told = client.completions.create(model="brook", prompt=prompt, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in told) == prompt + first.text


def test_responses_and_their_events(brook_url: str, client: OpenAI, shown: dict[str, Any]) -> None:
    picture = {"type": "input_image", "image_url": shown["picture"]["image_url"]["url"]}
    given: list[Any] = [{"role": "user", "content": [picture, {"type": "input_text", "text": "What do you see?"}]}]
    whole = client.responses.create(model="brook", input=given)
    assert whole.output_text == SEES and whole.status == "completed"
    events = raw(brook_url, "/v1/responses", {"model": "brook", "input": given, "stream": True})
    known = TypeAdapter(ResponseStreamEvent)
    for number, event in enumerate(events):
        known.validate_python(event)
        assert event["sequence_number"] == number
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    with client.responses.stream(model="brook", input=given) as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == SEES
    short = client.responses.create(model="brook", input=given, max_output_tokens=2)
    assert short.status == "incomplete" and short.output_text == "a red"
    with pytest.raises(openai.BadRequestError, match="keeps no responses") as refused:
        client.responses.create(model="brook", input=given, previous_response_id=whole.id)
    assert refused.value.param == "previous_response_id"
    given[0]["content"][0] = {"type": "input_image", "image_url": "data:,x"}
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="brook", input=given, instructions="Look.")
    assert refused.value.param == "input[0].content[0].image_url"


def test_the_model_is_listed(client: OpenAI) -> None:
    (card,) = client.models.list().data
    assert card.id == "brook" and client.models.retrieve("brook").created == card.created
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
