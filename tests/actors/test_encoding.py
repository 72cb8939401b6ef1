"""Every message survives being encoded and decoded; what is not data is refused."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from penstock.actors import messages as m
from penstock.actors.lookback import Clip
from penstock.engine import command as c
from penstock.engine.embeddings import Embeddings
from penstock.engine.encoding import decoder, encode
from penstock.engine.frozen import Frozen, Snapshot
from penstock.engine.plan import Draw, Feed, Likely, Plan, Result, TableEdit
from penstock.engine.scheduling.journal import Entry, Made
from penstock.engine.span import Prompt, Rows, Span, Stored, Turn
from penstock.streams import event as e
from penstock.streams import item as i
from penstock.streams import segment as s
from penstock.streams.event import TranscriptRow
from penstock.streams.requests.prompt import Content, Media
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.requests.turns import TurnDetection

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
SAMPLES = np.linspace(-1, 1, 10, dtype=np.float32)
AUDIO = s.AudioSegment(2, 0, SAMPLES, 3, 1, 0, 0, 2_000_000, 0.5, SAMPLES[:, None])
SEEN = e.Seen(1, "video", 0, None)
SPAN = Span(1, 0, "video", np.arange(3), (1, 1, 3), 0, 0, 0, 1_000, (5,), (6, 7), Stored(9, 0, 3, 16))
ROWS = Rows(np.arange(2), np.arange(6).reshape(3, 2), Stored(9, 1, 3, 16), SEEN, True)
DRAW = Draw(0.5, seed=2**40)
PARAMS = SamplingParams(max_tokens=3, stop=("a", "b"), stop_token_ids=(1, 2), seed=7)
FROZEN = Frozen(Request(system="Look."), 4, True, False, "live", "so", b"media", -1.5, b"state", [9], 2, 16)
LAYERS = [(torch.ones(2, 16, 1, 4), torch.zeros(2, 16, 1, 4))]
TAKEN = Snapshot(1, 2, FROZEN, LAYERS, {9: (torch.ones(3, 4), None)}, e.Error("no", "no"))
USAGE = e.Usage({"text": 3}, 1, 2, 4, 0.5, 0.25, {"video": {"late": 1}})
MESSAGES: list[msgspec.Struct] = [
    c.Open(1, Request(system="Look.", params=PARAMS)),
    m.Take(1, 2, i.Image(b"jpeg"), 7),
    m.Take(1, 2, i.Image(PIXELS, 5), 7),
    m.Take(1, 2, i.VideoFrame(memoryview(b"abc")[1:], 5, "rgb24", 1, 1), 7),
    m.Take(1, 2, i.VideoBytes(bytearray(b"abc"), True), 7),
    m.Take(1, 2, i.AudioChunk(SAMPLES[None], 16_000), 7),
    m.Take(1, 2, i.AudioBytes(b""), 7),
    m.Take(1, 2, Clip((i.VideoFrame(b"jpeg", 5), i.AudioChunk(SAMPLES[None], 16_000, 5)), 10.0), 7),
    m.Flush(1, 3, 7),
    m.Flush(1, 3, 7, True),
    m.Hear(1, 3, TurnDetection(silence_ms=300), 7),
    m.Hear(1, 3, None, 7),
    m.Converse(1, 1, Content([Media("image", PIXELS), i.AudioBytes(b"x", True)], [{"role": "user", "content": [{}]}])),
    m.Converse(1, 1, Content([Media("audio", SAMPLES, 8000)], ids=[1, 2], video_fps=1.0, options={"max_pixels": 4})),
    c.Fork(1, 2, 9),
    c.Fork(1, 2, 9, PARAMS),
    c.Freeze(1, 2, FROZEN),
    c.Unfreeze(2),
    c.Thaw(1, FROZEN, 1 << 40),
    TAKEN,
    m.Bring(1, TAKEN, 1 << 40),
    m.Tell(1, [], snapshots=[TAKEN]),
    m.Forget(1),
    m.Segments(1, 2, [s.ImageSegment(2, 0, PIXELS), s.UnitSegment(2, 1, PIXELS[None], AUDIO, 0, 1)], True),
    m.Segments(1, 2, [s.VideoSegment(2, 0, PIXELS[None], 0, 1), AUDIO], False, 7),
    m.Announce(1, 2, [(0, 12, None, "ImageSegment", None), (1, 3, 5, "AudioSegment", 4)], 7),
    m.Announce(1, 2, [(0, 12, 9, "VideoSegment", 0)], 7, True),
    m.Grant([(1, 2, 3), (4, 5, 6)]),
    m.Discard([(1, 2, 3)]),
    m.Encoded(1, 100),
    c.Spans(1, [SPAN]),
    c.LaidOut(1, 1, Prompt([ROWS, Rows(np.zeros(0, np.int64), np.zeros((3, 0), np.int64))])),
    c.Resolved(1, 2),
    c.Spelt(1, "words", True, [5, 6]),
    c.Spelt(1, "words", False, None),
    m.Failed(1, 2, 0, "media", "no"),
    m.Notice(1, e.Dropped(2, "video", 1, None, 3, "latest")),
    c.Accept(1, c.MediaInput(2)),
    c.Accept(1, c.TextInput(2, "Look.", False, 3, 1)),
    c.Accept(1, c.Question(2, "Who?", PARAMS, False, -1, None, True)),
    c.Accept(1, c.MediaEnd(2)),
    c.Accept(1, c.PromptInput(1, PARAMS)),
    c.Interrupt(1, 1, 4, 2),
    c.Interrupt(1, 5, at=-1),
    c.Interrupt(1, 5, 4, 2, 3),
    c.Accept(1, c.Question(2, "", PARAMS, turn=3)),
    c.Spans(1, [Span(2, 1, "audio", np.zeros(0, np.int64), (0, 0, 0), 0, 0, None, 9, turn=Turn(3, 2**62))]),
    m.Segments(1, 2, [s.TurnEnd(2, 0, 3, 9)], False, 7),
    m.Tell(1, [e.SpeechStarted(3, 2, 9, "energy")]),
    m.Tell(1, [e.SpeechStopped(3, 2, 9, "silence")]),
    c.Refuse(1, e.Error("media", "no", 2)),
    m.Spent([(1, 0.5)]),
    c.AppendRows(64),
    c.GuessCost(0.25),
    c.Yield([1, 2]),
    c.Due([2, 1]),
    c.Hurry(1, 2),
    c.Park(1, True),
    m.Transcribe(1, 2),
    c.Close(1, "closed"),
    m.Rouse(),
    m.TryAgain(),
    m.Broken("no"),
    m.Tell(1, [e.Appended(1, "video", 0, None, 3, 4, 5, 6), e.Token(1, 0, 5, "a", SEEN, age_us=4)], ("live", "so")),
    m.Tell(1, [e.Token(1, 0, 5, "a", SEEN, -0.5, ((5, "a", -0.5),))]),
    m.Tell(1, [e.ReplyStarted(1, 2, True), e.Resting(1, 4)]),
    m.Tell(1, [e.ReplyDone(1, "stop", 3), e.Held(1, 0), e.Credit(5, 6), e.Evicted(0, 1)], resolved=[1, 2]),
    m.Tell(1, [e.MediaDecoded(1, 9)]),
    m.Tell(1, [e.Error("input", "no", 3), e.Closed("closed", USAGE)], running=(1, 2, 3)),
    m.Tell(1, [], transcripts=[(1, [TranscriptRow(0, [1, 2], [[0, 1], [0, 1], [0, 1]], SEEN)])]),
    Plan(1, [(1, [2])], [(0, 1)], [TableEdit(0, 0, [1])], [(2, [5])], [7], [Feed(1, 0, 4, [ROWS], DRAW)], [(9, 2)]),
    Result(1, [5, 6]),
    Result(1, [5, 6], [3], [4], [None, Likely(-0.5, [(6, -0.5)])]),
]  # fmt: skip


Tells = m.Tell | Result  # a union, as the others are
BOXES: tuple[Any, ...] = (m.DecodeMessage, m.EncodeMessage, m.ScheduleMessage, m.GenerateMessage, Tells, Plan | Result)


def again(message: Any) -> Any:
    """The message, from its bytes."""
    return decoder(m.Message).decode(encode(message))


def same(first: Any, second: Any) -> bool:
    """Equal, all the way down, with the same types of data."""
    if isinstance(first, msgspec.Struct):
        names = first.__struct_fields__
        return type(first) is type(second) and all(same(getattr(first, n), getattr(second, n)) for n in names)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and bool((first == second).all())
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and bool((first == second).all())
    if isinstance(first, bytearray | memoryview):
        return bytes(first) == bytes(second)
    if type(first) is not type(second):
        return False
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first == second


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_survives(message: msgspec.Struct) -> None:
    boxes = [box for box in BOXES if type(message) in box.__args__]
    assert boxes
    for box in boxes:
        assert same(message, decoder(box).decode(encode(message)))


def test_every_kind_of_message_is_among_them() -> None:
    kinds = set(m.Message.__args__)
    assert kinds <= {type(message) for message in MESSAGES}
    assert set(e.Event.__args__) <= {
        type(event) for tell in MESSAGES if isinstance(tell, m.Tell) for event in tell.events
    } | {e.Dropped}


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool],
)
@pytest.mark.parametrize("shape", [(2, 3), (0, 4), (), (3, 1, 2)])
def test_tensors_survive(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 4).to(dtype)
    for made in (Made(9, Embeddings(tensor)), Made(9, Embeddings(tensor, tensor[None]))):
        assert same(made, decoder(Entry).decode(encode(made)))


def test_views_are_encoded_as_they_look() -> None:
    matrix = torch.arange(12).reshape(3, 4)
    message = c.Spans(1, [msgspec.structs.replace(SPAN, ids=np.arange(10)[::3])])
    assert same(message, again(message))
    made = Made(9, Embeddings(matrix[:, 1:3].T))
    assert same(made, decoder(Entry).decode(encode(made)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64, np.bool_, ">i2"])
@pytest.mark.parametrize("shape", [(2, 3), (0, 4), ()])
def test_arrays_survive_and_may_be_written(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    got = again(m.Take(1, 1, i.Image(array), 7)).item.data
    assert same(array, got)
    assert got.flags.writeable


@pytest.mark.parametrize(
    "thing",
    [print, lambda: 0, threading.Lock(), torch.nn.Linear(1, 1), object(), np.array([object()]), i.Image],
    ids=str,
)
def test_what_is_not_data_is_refused(thing: Any) -> None:
    with pytest.raises(TypeError):
        encode(m.Converse(1, 1, Content([], [{"x": thing}])))


def test_future_is_refused() -> None:
    loop = asyncio.new_event_loop()
    future: Any = loop.create_future()
    with pytest.raises(TypeError):
        encode(m.Take(1, 1, i.Image(future), 7))
    loop.close()
