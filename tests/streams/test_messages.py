"""Conversations and data: URLs: every legal way of writing them is read, all else is refused at its place."""

from __future__ import annotations

import base64
import json
import re
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.errors import InputError
from penstock.server import wire
from penstock.server.errors import MessageError
from penstock.streams.requests.data_url import from_base64, from_data_url, is_data_url
from penstock.streams.requests.messages import check_messages
from penstock.streams.requests.request import Request

USER = {"role": "user"}
TAKEN = "a PIL image, an array, bytes, a path, a data: URL or an item"


def part(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ["#", fields][1:]}]


REFUSED: list[tuple[Any, str]] = [
    ([], "messages: expected at least one message, got none"),
    ({}, "messages: expected a list of {'role': ..., 'content': text or a list of parts}, got {}"),
    ([None], "messages[0]: expected {'role': ..., 'content': text or a list of parts}, got null"),
    ([{"content": "a"}], "messages[0].role: expected a name such as 'user', got nothing"),
    ([{"role": 5, "content": "a"}], "messages[0].role: expected a name such as 'user', got 5"),
    ([{"role": "", "content": "a"}], "messages[0].role: expected a name such as 'user', got ''"),
    ([USER], "messages[0].content: expected text or a list of parts, got nothing"),
    ([{**USER, "content": None}], "messages[0].content: expected text or a list of parts, got null"),
    ([{**USER, "content": True}], "messages[0].content: expected text or a list of parts, got true"),
    ([{**USER, "content": {"type": "text"}}], "messages[0].content: expected text or a list of parts, got an object"),
    ([{**USER, "content": [None]}], "messages[0].content[0]: expected {'type': ..., ...}, got null"),
    ([{**USER, "content": ["words"]}], "messages[0].content[0]: expected {'type': ..., ...}, got 'words'"),
    ([{**USER, "content": [{"type": "text", "text": "a"}, [1]]}], "messages[0].content[1]: expected {'type'"),
    (part(text="a"), "messages[1].content[0].type: expected text, image, video, audio, image_url, "),
    (part(type=["image"]), "messages[1].content[0].type: expected text, "),
    (part(type="text"), "messages[1].content[0].text: expected text, got nothing"),
    (part(type="text", text=None), "messages[1].content[0].text: expected text, got null"),
    (part(type="text", text=["a"]), "messages[1].content[0].text: expected text, got a list of 1"),
    (part(type="text", text="\ud83d"), "messages[1].content[0].text: expected Unicode text, got half a character"),
    (part(type="image"), "messages[1].content[0]: expected its value under 'image', got only 'type'"),
    (part(type="image", image=None), f"messages[1].content[0].image: expected {TAKEN}, got null"),
    (part(type="image", url=5), f"messages[1].content[0].url: expected {TAKEN}, got 5"),
    (part(type="image_url", image_url={}), f"messages[1].content[0].image_url.url: expected {TAKEN}, got nothing"),
    (part(type="input_audio", input_audio={"data": 1}), "messages[1].content[0].input_audio.data: expected base64, "),
    (part(type="audio", audio="a.wav", sampling_rate="8k"), "messages[1].content[0].sampling_rate: expected a whole"),
]


@pytest.mark.parametrize(("messages", "told"), REFUSED, ids=[told[:60] for _, told in REFUSED])
def test_what_is_wrong_is_named_by_its_place(messages: Any, told: str) -> None:
    with pytest.raises(InputError) as caught:
        Request(messages=messages).check()
    assert str(caught.value).startswith(told)


IN_JSON = [case for case in REFUSED if "half a character" not in case[1]]  # JSON has no form for it.


@pytest.mark.parametrize(("messages", "told"), IN_JSON, ids=[told[:60] for _, told in IN_JSON])
def test_over_the_wire_the_place_is_also_the_path(messages: Any, told: str) -> None:
    with pytest.raises(MessageError) as caught:
        wire.decode_text(json.dumps({"type": "open", "stream": "a", "ref": "r", "messages": messages}))
    place = told.partition(":")[0]
    assert caught.value.ref == "r"
    assert caught.value.path is not None and caught.value.path.startswith(f"$.{re.split(r'[.]', place)[0]}")


def test_what_is_a_conversation() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,x", "detail": "low"}}
    for content in ("", "words", [], [picture], [picture, {"type": "text", "text": ""}], (picture,)):
        check_messages([{"role": "user", "content": content, "name": "someone"}])
    check_messages(({"role": "anyone", "content": "a"},))


# ---- data: URLs ----
types = st.sampled_from(["", "image/png", "IMAGE/PNG", "text/plain;charset=utf-8", "a/b;name=x.png;c=d", ";charset=x"])


@st.composite
def spaced(draw: st.DrawFn, text: str) -> str:
    """The text with white space somewhere in it."""
    for at in sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)), reverse=True):
        text = text[:at] + draw(st.sampled_from(["\n", "\r\n", " ", "\t"])) + text[at:]
    return text


@given(st.binary(max_size=40), types, st.sampled_from(["data:", "DATA:", " Data:"]), st.booleans(), st.data())
def test_any_bytes_come_out_of_any_way_to_write_them(
    raw: bytes, type: str, scheme: str, urlsafe: bool, data: st.DataObject
) -> None:
    text = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(raw).decode()
    text = text.rstrip("=") if data.draw(st.booleans()) else text
    mark = data.draw(st.sampled_from([";base64", ";BASE64", "; base64 "]))
    escaped = text.replace("+", "%2B").replace("=", "%3D")
    for body in (data.draw(spaced(text)), escaped):
        url = f"{scheme}{type}{mark},{body}"
        assert is_data_url(url) and from_data_url(url) == raw
        assert from_data_url(url + "#fragment") == raw
    assert from_base64(data.draw(spaced(text)), "x") == raw
    assert from_data_url(f"{scheme}{type},{quote_from_bytes(raw)}") == raw


@given(st.text("ABab01+/-_= \n%#?é,;:", max_size=12))
def test_any_other_text_is_bytes_or_refused(text: str) -> None:
    for call in (lambda: from_data_url(f"data:;base64{text}"), lambda: from_base64(text, "x")):
        try:
            assert isinstance(call(), bytes)
        except InputError as error:
            assert re.match(r"(x|data: URL): expected ", str(error))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data:image/png;base64", r"data: URL: expected 'data:\[TYPE\]\[;base64\],DATA', got 'data:image/png;base64'"),
        ("data:;base64,AAA?", r"data: URL: expected base64, got b'\?' at 3"),
        ("data:;base64,AAAAA", "data: URL: expected whole base64, got 5 digits and 0 of padding"),
        ("data:;base64,AA=", "data: URL: expected whole base64, got 2 digits and 1 of padding"),
        ("data:;base64,A=A=", "data: URL: expected base64, got b'=' at 1"),
        ("data:,\ud800", "data: URL: expected Unicode text, got half a character at 0"),
    ],
)
def test_what_is_no_data_url_says_why(text: str, told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        from_data_url(text)


def test_a_path_is_no_data_url() -> None:
    assert not any(map(is_data_url, ("data/picture.png", "./data:x", "https://data:x", "my data: x", "")))
