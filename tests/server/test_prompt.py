"""A whole prompt over the wire: media comes inside the request, and no client names a file of the server's machine."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from harness import raw_client, run, running_engine, serving
from penstock.errors import InputError
from penstock.server import wire
from penstock.server.client import connect
from penstock.server.errors import MessageError
from penstock.streams.requests.request import Request, SamplingParams
from PIL import Image

PARAMS = SamplingParams(max_tokens=6)


def url_of_a_picture() -> str:
    file = io.BytesIO()
    Image.fromarray(np.arange(60 * 80 * 3, dtype=np.uint8).reshape(60, 80, 3)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def messages(part: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part, {"type": "text", "text": "Well?"}]}]


PICTURE = url_of_a_picture()
PART = {"type": "image_url", "image_url": {"url": PICTURE}}


def test_a_reply_over_the_wire_is_the_one_in_process() -> None:
    async def main() -> None:
        async with running_engine("real") as engine:
            token = engine._wiring.encode._encoder._towers.processor.image_token
            prompt = f"<|vision_bos|>{token}<|vision_eos|>Well?"
            requests = [
                Request(messages=messages(PART)),
                Request(prompt=prompt, media=[PICTURE]),
                Request(prompt=prompt, media=[PART], processor={"min_pixels": 784, "max_pixels": 4000}),
            ]
            expected = [await engine.generate(request, PARAMS) for request in requests]
            assert len(set(expected)) == 3
            async with serving(engine) as url, connect(url) as connection:
                for request, text in zip(requests, expected, strict=True):
                    asked = Request(
                        messages=request.messages,
                        prompt=request.prompt,
                        media=request.media,
                        processor=request.processor,
                        positions="transformers",
                        params=PARAMS,
                    )
                    async with await connection.stream(asked) as stream:
                        assert await (await stream.prompted()).text() == text
                with pytest.raises(InputError, match="processor option 'sharpness'"):
                    await connection.stream(Request(processor={"sharpness": 3}))

    run(main)


def test_log_probabilities_go_over_the_wire_where_they_are_asked_for() -> None:
    async def main() -> None:
        async with running_engine("real") as engine, serving(engine) as url:
            async with connect(url) as connection, await connection.stream(Request(format="turns")) as stream:
                reply = await stream.ask("What do you see?", SamplingParams(max_tokens=3, logprobs=2))
                tokens = [token async for token in reply]
                assert len(tokens) == 3
                for token in tokens:
                    assert token.logprob is not None and token.logprob <= 0
                    first, second = token.top_logprobs
                    assert first[0] == token.id and first[2] == token.logprob >= second[2]
            async with raw_client(url) as client:
                await client.send(type="open", stream="a", format="turns")
                await client.send(type="ask", stream="a", question="What do you see?", params={"max_tokens": 1})
                token = (await client.receive_until("token"))[-1]
                assert "logprob" not in token and "top_logprobs" not in token
                await client.send(type="ask", stream="a", question="Well?", params={"max_tokens": 1, "logprobs": 1})
                token = (await client.receive_until("token"))[-1]
                assert token["top_logprobs"] == [[token["id"], token["text"], token["logprob"]]]
                await client.send(type="ask", stream="a", question="Well?", params={"logprobs": 21}, ref="r")
                error = (await client.receive_until("error"))[-1]
                assert error["message"] == "logprobs: expected 0 to 20, got 21" and error["path"] == "$.params.logprobs"

    run(main)


OUTSIDE = [
    ("/etc/hostname", "", "[0]"),
    ("https://example.org/cat.png", "", "[0]"),
    ({"type": "image", "image": "/etc/hostname"}, ".image", "[0].image"),
    ({"type": "image", "path": "/etc/hostname"}, ".path", "[0].path"),
    ({"type": "image", "url": "file:///etc/hostname"}, ".url", "[0].url"),
    ({"type": "image_url", "image_url": {"url": "https://example.org/c"}}, ".image_url.url", "[0].image_url.url"),
    ({"type": "video", "video": ["/etc/hostname"]}, ".video", "[0].video"),
    ({"type": "audio"}, "", "[0]"),
    ({"image": "/etc/hostname"}, ".type", "[0].type"),
    (7, "", "[0]"),
]


@pytest.mark.parametrize(("value", "in_messages", "in_media"), OUTSIDE, ids=str)
def test_media_that_is_not_in_the_message_is_refused(value: Any, in_messages: str, in_media: str) -> None:
    for field in ("messages", "media"):
        given = {"messages": messages(value)} if field == "messages" else {"prompt": "Well?", "media": [value]}
        with pytest.raises(MessageError) as caught:
            wire.decode_text(json.dumps({"type": "open", "stream": "a", **given}))
        place = f"messages[0].content[0]{in_messages}" if field == "messages" else f"media{in_media}"
        assert caught.value.path == f"$.{place}" and str(caught.value).startswith(f"{place}: expected ")
