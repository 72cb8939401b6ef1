"""The wire: what does not follow it is answered with the path that was wrong; payloads are not copied."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.server import wire
from penstock.server.errors import MessageError
from penstock.streams import event as events
from penstock.streams import item as items
from penstock.streams.requests.request import Request, SamplingParams


def binary(header: dict[str, Any] | bytes, payload: bytes = b"x", length: int | None = None) -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<H", len(head) if length is None else length) + head + payload


@pytest.mark.parametrize(
    ("message", "path", "stream"),
    [
        ("{", "$", None),
        ("[]", "$", None),
        ("{}", "$.type", None),
        ('{"type":"zap","stream":"a"}', "$.type", "a"),
        ('{"type":"image","stream":"a"}', "$.type", "a"),
        ('{"type":"text","stream":"a"}', "$.text", "a"),
        ('{"type":"text","stream":7,"text":""}', "$.stream", None),
        ('{"type":"text","stream":"","text":""}', "$.stream", ""),
        ('{"type":"text","stream":"a","text":"","more":1}', "$.more", "a"),
        ('{"type":"ask","stream":"a","wait_ms":-1}', "$.wait_ms", "a"),
        ('{"type":"ask","stream":"a","params":{"top_p":0}}', "$.params.top_p", "a"),
        ('{"type":"ask","stream":"a","params":{"max_token":1}}', "$.params.max_token", "a"),
        ('{"type":"interrupt","stream":"a","at":"2"}', "$.at", "a"),
        ('{"type":"fork","stream":"a"}', "$.as", "a"),
        ('{"type":"open","stream":"a","format":"fast"}', "$.format", "a"),
        ('{"type":"open","stream":"a","video_fps":0}', "$.video_fps", "a"),
        ('{"type":"open","stream":"a","turn_detection":{"silence_ms":5}}', "$.turn_detection.silence_ms", "a"),
        ('{"type":"listen","stream":"a","turn_detection":{"silence":5}}', "$.turn_detection.silence", "a"),
        ('{"type":"listen","stream":"a"}', "$.turn_detection", "a"),
        ('{"type":"open","stream":"a","params":{"max_tokens":0}}', "$.params.max_tokens", "a"),
        ('{"type":"ask","stream":"a","params":{"structured":{}}}', "$.params.structured", "a"),
        ('{"type":"ask","stream":"a","params":{"structured":{"regexp":"a"}}}', "$.params.structured.regexp", "a"),
        ('{"type":"ask","stream":"a","params":{"structured":{"choice":[""]}}}', "$.params.structured.choice", "a"),
        ('{"type":"open","stream":"a","messages":"hello"}', "$.messages", "a"),
        ('{"type":"open","stream":"a","messages":[{"role":"user","content":"c"}],"prompt":"b"}', "$.prompt", "a"),
        ('{"type":"open","stream":"a","prompt":""}', "$.prompt", "a"),
        ('{"type":"open","stream":"a","processor":{"fps":"fast"}}', "$.processor[...]", "a"),
    ],
)
def test_a_wrong_text_message_names_its_path(message: str, path: str, stream: str | None) -> None:
    with pytest.raises(MessageError) as caught:
        wire.decode_text(message)
    assert (caught.value.path, caught.value.stream) == (path, stream)


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (b"", None),
        (b"\x05", None),
        (binary(b"{}", b"", length=900), None),
        (binary(b"{}", b"payload", length=0), "$"),
        (binary(b"{}", b"payload", length=1), "$"),
        (binary({"type": "text", "stream": "a", "text": ""}), "$.type"),
        (binary({"type": "frame", "stream": "a", "pts_us": "soon"}), "$.pts_us"),
        (binary({"type": "frame", "stream": "a", "pts_us": 2**60}), "$.pts_us"),
        (binary({"type": "pcm", "stream": "a"}), "$.rate"),
        (binary({"type": "pcm", "stream": "a", "pts_us": 0, "rate": -1}), "$.rate"),
        (binary({"type": "image", "stream": "a"}, b""), None),
        (binary({"type": "video", "stream": "a"}, b""), None),
    ],
)
def test_a_wrong_binary_message_names_its_path(message: bytes, path: str | None) -> None:
    with pytest.raises(MessageError) as caught:
        wire.decode_binary(message)
    assert caught.value.path == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.text(max_size=128), json_values, json_values, st.text(min_size=1, max_size=8))
def test_an_error_carries_the_ref_whatever_else_is_wrong(ref: str, stream: Any, kind: Any, key: str) -> None:
    for wrong in ({"stream": stream, "type": kind}, {"stream": "a", "type": "end", f"{key}!": 1}, {"type": "ask"}):
        sent = {**wrong, "ref": ref}
        for decode, message in (
            (wire.decode_text, json.dumps(sent)),
            (wire.decode_text, json.dumps(sent, ensure_ascii=False)),
            (wire.decode_binary, binary(sent)),
        ):
            try:
                decode(message)  # type: ignore[operator]
            except MessageError as error:
                assert error.ref == ref and error.path
                assert error.stream == (sent.get("stream") if isinstance(sent.get("stream"), str) else None)
            else:
                raise AssertionError(f"expected a refusal of {message!r}")


@given(st.binary(max_size=200))
def test_any_bytes_are_an_input_or_a_message_error(data: bytes) -> None:
    for decode in (wire.decode_binary, wire.decode_text):
        try:
            decode(data)
        except MessageError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"type": "image", "pts_us": 5}, items.Image(b"xyz", 5)),
        ({"type": "frame", "pts_us": 5}, items.VideoFrame(b"xyz", 5)),
        ({"type": "frame"}, items.VideoFrame(b"xyz")),
        (
            {"type": "frame", "pts_us": -5, "encoding": "nv12", "width": 4, "height": 2},
            items.VideoFrame(b"xyz", -5, "nv12", 4, 2),
        ),
        ({"type": "video", "final": True, "pts_us": 7}, items.VideoBytes(b"xyz", True, 7)),
        ({"type": "pcm", "pts_us": 1, "rate": 16000, "channels": 2}, items.AudioChunk(b"xyz", 16000, 1, "s16le", 2)),
        ({"type": "audio"}, items.AudioBytes(b"xyz")),
    ],
)
def test_a_binary_message_becomes_its_item_without_a_copy(header: dict[str, Any], expected: Any) -> None:
    message = binary({"stream": "a", "ref": "r"} | header, b"xyz")
    found = wire.decode_binary(message)
    assert (found.stream, found.ref, found.bytes) == ("a", "r", len(message))
    assert type(found.item) is type(expected)
    for name in expected.__struct_fields__[1:]:
        assert getattr(found.item, name) == getattr(expected, name)
    data = found.item.data  # type: ignore[union-attr]
    assert isinstance(data, memoryview) and data.obj is message and bytes(data) == b"xyz"


def test_an_empty_last_piece_may_end_a_file() -> None:
    found = wire.decode_binary(binary({"type": "video", "stream": "a", "final": True}, b""))
    assert isinstance(found.item, items.VideoBytes) and found.item.final


def test_open_carries_every_field_of_a_request() -> None:
    request = Request(
        system="s", format="live", policy="latest", video_fps=4.0, params=SamplingParams(seed=3, stop=("x",))
    )
    fields = msgspec.to_builtins(request)
    message = wire.decode_text(json.dumps({"type": "open", "stream": "a", **fields}))
    assert isinstance(message, wire.OpenMessage)
    assert message.request() == request


@given(st.text(min_size=1, max_size=20), st.text(max_size=20))
def test_an_event_keeps_its_fields_and_gains_its_stream(name: str, text: str) -> None:
    seen = events.Seen(4, "video", 0, 40_000)
    sent = json.loads(wire.encode_event(name, events.Token(1, 2, 3, text, seen, number=9)))
    assert sent == {
        "type": "token",
        "stream": name,
        "reply": 1,
        "index": 2,
        "id": 3,
        "text": text,
        "seen": {"seq": 4, "modality": "video", "start_us": 0, "stop_us": 40_000},
        "number": 9,
    }
