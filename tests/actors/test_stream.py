"""Streams: appends, questions, interrupts and readers from several tasks at once."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.actors import stream as stream_module
from penstock.actors.engine import Engine
from penstock.actors.messages import Tell
from penstock.actors.reply import Reply
from penstock.actors.stream import Stream
from penstock.codecs import decoders
from penstock.codecs.errors import ContextOverflowError, InputError, StreamClosedError
from penstock.engine.family import Family, Loaded
from penstock.streams.event import Appended, Closed, Error, ReplyDone, ReplyStarted, Token
from penstock.streams.item import AudioChunk, Embedding, Image, Text, VideoFrame
from penstock.streams.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import Reader, big_picture, cancelled, ids, shots, until
from tests.reference.media import picture, sound

WORDS = "What do you see?"


def most(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens)


async def texts(engine: Engine, stream: Stream, loaded: Loaded) -> str:
    """The words that the cache of a stream holds."""
    await quiet(engine)
    rows = await stream.transcript()
    return loaded.family.tokenizer.decode([id for row in rows for id in row.ids])


async def quiet(engine: Engine) -> None:
    """Wait until there is nothing to feed."""
    await until(lambda: not engine.statistics()["stepping"])


class Holding:
    """Pictures that come as bytes are not decoded before `go` is set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        patch.setattr(decoders, "decode_picture", self._decode)

    def _decode(self, data: Any, limits: Any) -> np.ndarray:
        self.begun.set()
        assert self.go.wait(20)
        return picture(len(data))


def test_inputs_act_in_the_order_of_their_numbers(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            reader = Reader(stream)
            seqs = [await stream.append(Image(big_picture(1)))]
            seqs += [await stream.append(Image(picture(seed))) for seed in range(2, 5)]
            seqs += [await stream.append(frame) for frame in shots(5, 3)]
            reply = await stream.ask(WORDS, most(4))
            await reply.text()
            assert seqs == list(range(1, 8)) and reply.seq == 8
            # Frames go in pairs, under the number of the second; the question flushes the lone third one.
            assert [event.seq for event in reader.of(Appended)] == [1, 2, 3, 4, 6, 8]
        await reader.task
        assert [event.number for event in reader.events] == list(range(1, len(reader.events) + 1))
        assert isinstance(reader.events[-1], Closed)

    house.run(work())


def test_events_tell_the_same_tokens_as_the_reply(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            reader = Reader(stream)
            for frame in shots(1, 4):
                await stream.append(frame)
            reply = await stream.ask(WORDS, most(12))
            read = [token async for token in reply]
            again = [token async for token in reply]
            (done,) = await reader.see(ReplyDone)
            told = reader.of(Token)
            assert [msgspec.structs.replace(event, number=0) for event in told] == read == again
            assert [token.index for token in read] == list(range(12))
            assert "".join(token.text for token in read) + done.text == await reply.text()
            assert (done.reply, done.reason, done.tokens) == (reply.id, "length", 12) and reply.reason == "length"
            kinds = [type(event) for event in reader.events]
            assert kinds.index(ReplyStarted) < kinds.index(Token) < kinds.index(ReplyDone)
            assert all(token.seen is not None and token.seen.seq == 4 for token in read)

    house.run(work())


def test_several_tasks_use_one_stream(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            reader = Reader(stream)

            async def film() -> list[int]:
                return [await stream.append(frame) for frame in shots(1, 8)]

            async def talk() -> list[int]:
                return [await stream.append(Text(f"word {number}")) for number in range(3)]

            async def ask(words: str) -> int:
                reply = await stream.ask(words, most(6))
                await reply.text()
                return reply.seq

            async with asyncio.TaskGroup() as group:
                made = [group.create_task(film()), group.create_task(talk())]
                asked = [group.create_task(ask(words)) for words in ("one?", "two?", "three?")]
            seqs = [seq for task in made for seq in task.result()] + [task.result() for task in asked]
            assert sorted(seqs) == list(range(1, 15))
            assert len(await reader.see(ReplyDone, 3)) == 3
            appended = [event.seq for event in reader.of(Appended)]
            assert appended == sorted(appended)

    house.run(work())


def test_question_waits_for_the_media_before_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        holding = Holding(monkeypatch)
        async with house.engine() as engine, await engine.stream() as stream:
            reader = Reader(stream)
            await stream.append(Image(b"slow"))
            asked = asyncio.create_task(stream.ask(WORDS, most(3)))
            await until(holding.begun.is_set)
            other = await engine.stream()  # goes through every actor meanwhile
            await (await other.ask(WORDS, most(3))).text()
            assert not asked.done()
            holding.go.set()
            await (await asked).text()
            kinds = [type(event) for event in reader.events]
            assert kinds.index(Appended) < kinds.index(Token)
            await other.close()

    house.run(work())


def test_question_in_a_hurry_overtakes_media(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        holding = Holding(monkeypatch)
        async with house.engine() as engine, await engine.stream() as stream:
            reader = Reader(stream)
            await stream.append(Image(picture(1)))
            await reader.see(Appended)
            await stream.append(Image(b"slow"))
            reply = await stream.ask(WORDS, most(3), wait_ms=1)
            await reply.text()
            assert not holding.go.is_set()
            assert [event.seq for event in reader.of(Appended)] == [1]
            assert all(token.seen is not None and token.seen.seq == 1 for token in reader.of(Token))
            holding.go.set()
            await (await stream.ask("And now?", most(3))).text()
            assert [event.seq for event in reader.of(Appended)] == [1, 2]

    house.run(work())


@pytest.mark.parametrize("format", ["turns", "live", "interrupt"])
def test_second_question_while_a_reply_runs(house: House, format: str) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format=format)) as stream:
            first = await stream.ask(WORDS, most(200))
            iterator = aiter(first)
            taken = [await anext(iterator) for _ in range(3)]
            second = await stream.ask("And now?", most(3))
            assert first.reason is not None
            rest = [token async for token in iterator]
            await second.text()
            assert second.reason == "length"
            count = len(taken + rest)
            assert (first.reason, count) == {
                "turns": ("length", 200),
                "live": ("stop", count),
                "interrupt": ("interrupted", 3),
            }[format]
            if format == "live":
                assert count < 200

    house.run(work())


def test_words_go_into_the_turn_in_order(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(system="Look.")) as stream:
            for word in ("one", "two"):
                await stream.append(Text(word))
            await (await stream.ask("three", most(1))).text()
            said = await texts(engine, stream, house.loaded)
            assert said.startswith("<|im_start|>system\nLook.<|im_end|>\n<|im_start|>user\nonetwothree<|im_end|>")

    house.run(work())


async def stopping(house: House) -> tuple[Loaded, list[int]]:
    """The fixture with an end token that it gives early, and what it says before that."""
    async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
        for frame in shots(1, 2):
            await stream.append(frame)
        learnt = await ids(await stream.ask(WORDS, most(6)))
    data = msgspec.structs.replace(house.loaded.family.data, stop_ids=frozenset([learnt[3]]))
    family = Family(data, house.loaded.family.tokenizer)
    return house.loaded._replace(family=family), learnt[: learnt.index(learnt[3])]


def test_a_reply_that_is_not_to_be_held_ends_where_the_model_ends_it(house: House) -> None:
    async def work() -> None:
        loaded, said = await stopping(house)
        async with house.engine(loaded) as engine, await engine.stream(Request(format="live")) as stream:
            for frame in shots(1, 2):
                await stream.append(frame)
            reply = await stream.ask(WORDS, SamplingParams(max_tokens=50, hold=False))
            assert await ids(reply) == said and reply.reason == "stop"
            for frame in shots(2, 2, first=2):  # more media was to come
                await stream.append(frame)

    house.run(work())


def test_params_that_the_model_cannot_follow_are_refused(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            rows = house.loaded.family.data.vocabulary
            for params, message in (
                (SamplingParams(logit_bias={rows: 1.0}), f"logit_bias: expected token ids below {rows}, got {rows}"),
                (SamplingParams(stop_token_ids=(rows,), min_tokens=1), f"stop_token_ids: expected .*, got {rows}"),
                (SamplingParams(max_tokens=4, min_tokens=5), "min_tokens: expected 0 to 4, got 5"),
                (SamplingParams(presence_penalty=3), r"presence_penalty: expected in \[-2, 2\], got 3"),
            ):
                with pytest.raises(InputError, match=message):
                    await stream.ask(WORDS, params)
                with pytest.raises(InputError, match=message):
                    await engine.stream(Request(params=params))
            assert len(await ids(await stream.ask(WORDS, SamplingParams(max_tokens=2, logit_bias={7: 100.0})))) == 2

    house.run(work())


def test_end_ends_a_reply_that_is_held_open(house: House) -> None:
    async def work() -> None:
        loaded, said = await stopping(house)
        async with house.engine(loaded) as engine, await engine.stream(Request(format="live")) as stream:
            reader = Reader(stream)
            for frame in shots(1, 2):
                await stream.append(frame)
            reply = await stream.ask(WORDS, most(50))
            await reader.see(Token, len(said))
            await quiet(engine)
            assert reply.reason is None and [token.id for token in reader.of(Token)] == said
            for frame in shots(2, 2, first=2):
                await stream.append(frame)
            await reader.see(Appended, 2)
            await quiet(engine)
            assert reply.reason is None
            await stream.end()
            assert (await ids(reply))[: len(said)] == said
            assert reply.reason in ("stop", "length")
            with pytest.raises(InputError, match="has ended"):
                await stream.append(Image(picture(1)))
            later = await stream.ask("And now?", most(8))  # words may still come; nothing is held open any more
            await later.text()

    house.run(work())


@pytest.mark.parametrize("format", ["turns", "live"])
def test_interrupt_keeps_what_was_taken_and_tells_no_more(house: House, format: str) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format=format)) as stream:
            reply = await stream.ask(WORDS, most(400))
            taken = []
            async for token in reply:
                taken.append(token)
                if len(taken) == 4:
                    break
            await stream.interrupt()
            assert [token async for token in reply] == taken
            assert reply.reason == "interrupted"
            await stream.interrupt()  # no reply runs
            later = await stream.ask("And now?", most(2))
            await later.text()
            said = await texts(engine, stream, house.loaded)
            words = house.loaded.family.tokenizer.decode([token.id for token in taken])
            assert f"<|im_start|>assistant\n{words}<|im_end|>" in said
            reader = Reader(stream)  # begins to read events only now
            done = (await reader.see(ReplyDone, 2))[0]
            assert [event.id for event in reader.of(Token) if event.reply == reply.id] == [token.id for token in taken]
            assert (done.reason, done.tokens) == ("interrupted", 4)
        await reader.task
        assert [event.number for event in reader.events] == list(range(1, len(reader.events) + 1))

    house.run(work())


def test_interrupt_at_a_token(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            reply = await stream.ask(WORDS, most(400))
            iterator = aiter(reply)
            for _ in range(6):
                await anext(iterator)
            await stream.interrupt(at=2)
            assert [token async for token in iterator] == []
            assert len(await ids(reply)) == 3

    house.run(work())


def test_interrupt_that_comes_too_late_takes_nothing_away(house: House) -> None:
    """The reply has ended in the engine when its client, who does not know yet, interrupts it: all tokens are told."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            said = [Token(7, index, index, "", None) for index in range(5)]
            stream.told(Tell(stream.id, [ReplyStarted(7, 1), *said[:3]]))
            reply = stream.reply
            assert reply is not None
            await stream.interrupt(at=0)
            stream.told(Tell(stream.id, [said[3]]))
            assert stream._outbox.unread_tokens == 1  # what lies behind it is held back until it is known
            assert await anext(aiter(reply)) == said[0] and reply.count == 1
            stream.told(Tell(stream.id, [said[4], ReplyDone(7, "length", 5)]))
            assert [token async for token in reply] == said and reply.reason == "length"
            reader = Reader(stream)
            await reader.see(ReplyDone)
            assert [event.index for event in reader.of(Token)] == [0, 1, 2, 3, 4]

    house.run(work())


def test_fork_goes_on_like_its_parent(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="live")) as stream:
            for frame in shots(1, 3):  # the third waits for a fourth
                await stream.append(frame)
            reply = await stream.ask(WORDS, most(120))
            await anext(aiter(reply))
            twin = await stream.fork()
            assert twin.reply is not None and twin.reply.id == reply.id
            told = [token async for token in twin.reply]
            mine = await ids(reply)
            assert told and told[0].index == 120 - len(told)
            assert mine[told[0].index :] == [token.id for token in told]
            await quiet(engine)
            assert await stream.transcript() == await twin.transcript()
            # Each goes on by itself: the same next frame and question, then one is closed.
            answers = []
            for one in (stream, twin):
                for frame in shots(2, 2, first=3):
                    await one.append(frame)
                answers.append(await ids(await one.ask("And now?", most(8))))
            assert answers[0] == answers[1]
            await stream.close()
            assert len(await ids(await twin.ask("Still there?", most(8)))) == 8
            await twin.close()

    house.run(work())


def test_fork_takes_along_what_is_held_and_what_waits(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            hum = sound(3, 1.0)
            await stream.append(AudioChunk(hum[None], 16_000))
            await stream.append(shots(1, 1)[0])
            first = await stream.ask(WORDS, most(60))
            later = asyncio.create_task(stream.ask("And now?", most(5)))
            await asyncio.sleep(0)  # it takes its number in its first step
            await stream.append(shots(2, 1, first=1)[0])
            twin = await stream.fork()
            reader = Reader(twin)
            await first.text()
            mine = await ids(await later)
            started = (await reader.see(ReplyStarted, 2))[1]
            await reader.see(ReplyDone, 2)
            assert [token.id for token in reader.of(Token) if token.reply == started.reply] == mine
            for one in (stream, twin):
                await one.append(shots(3, 1, first=2)[0])
            replies = [await one.ask("Well?", most(5)) for one in (stream, twin)]
            assert replies[0].seq == replies[1].seq
            assert await ids(replies[0]) == await ids(replies[1])
            await quiet(engine)
            assert await stream.transcript() == await twin.transcript()
            await twin.close()

    house.run(work())


def test_fork_waits_for_what_is_being_decoded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        holding = Holding(monkeypatch)
        async with house.engine() as engine, await engine.stream() as stream:
            await stream.append(Image(b"slow"))
            fork = asyncio.create_task(stream.fork())
            text = asyncio.create_task(stream.append(Text("later")))
            gone = asyncio.create_task(stream.fork())
            await until(holding.begun.is_set)
            assert await cancelled(gone)
            assert not fork.done() and not text.done()
            holding.go.set()
            twin = await fork
            await text
            mine, its = [await one.ask(WORDS, most(4)) for one in (stream, twin)]
            await mine.text()
            await its.text()
            assert "later" in await texts(engine, stream, house.loaded)
            assert "later" not in await texts(engine, twin, house.loaded)
            assert [row.seen for row in await twin.transcript() if row.seen] == [
                row.seen for row in await stream.transcript() if row.seen
            ]
            await twin.close()

    house.run(work())


def test_prompted_reply_is_there_however_late_one_asks_for_it(house: House) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": WORDS}]}

    async def work() -> None:
        async with house.engine() as engine:
            request = Request(messages=[message], params=most(3))
            async with await engine.stream(request) as stream:
                await Reader(stream).see(ReplyDone)
                reply = await stream.prompted()
                assert len(await ids(reply)) == 3
                twin = await stream.fork()
                later = [await ids(await one.ask("And now?", most(3))) for one in (stream, twin)]
                assert later[0] == later[1]
                await twin.close()
            with pytest.raises(InputError, match="lost"):
                await engine.generate(Request(messages=[{"role": "user", "content": [{"type": "lost"}]}]))
            with pytest.raises(InputError, match="messages"):
                await engine.generate(Request(messages=[{"role": "user"}]))
            async with await engine.stream() as stream:
                with pytest.raises(InputError, match="without"):
                    await stream.prompted()

    house.run(work())


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (Embedding(np.zeros((1, 4), np.float32)), "not supported yet"),
        ("words", "expected an item"),
        (Text(3), "Text.text: expected str, got int"),  # type: ignore[arg-type]
        (Image("words"), "Image.data"),  # type: ignore[arg-type]
        (VideoFrame(b"x", 0.5), "VideoFrame.pts_us"),  # type: ignore[arg-type]
        (AudioChunk(b"x", "fast"), "AudioChunk.rate: expected int, got str"),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_is_no_item_is_refused_at_the_door(house: House, item: Any, words: str) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            with pytest.raises(InputError, match=words):
                await stream.append(item)
            assert await stream.append(Text("fine")) == 1

    house.run(work())


def test_nothing_is_taken_after_close(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            stream = await engine.stream()
            reader = Reader(stream)
            await asyncio.gather(stream.close(), stream.close())
            await stream.close()
            await reader.task
            assert [type(event) for event in reader.events] == [Closed]
            calls = [stream.append(Text("late")), stream.ask("late"), stream.interrupt(), stream.end()]
            for call in (*calls, stream.fork(), stream.transcript()):
                with pytest.raises(StreamClosedError):
                    await call

    house.run(work())


def test_close_ends_a_running_reply(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            stream = await engine.stream()
            reader = Reader(stream)
            reply = await stream.ask(WORDS, most(1000))
            waiting = asyncio.create_task(stream.ask("later?"))
            await reader.see(Token)
            await stream.close()
            await reply.text()
            assert reply.reason == "interrupted"
            with pytest.raises(StreamClosedError):
                await waiting
            await reader.task
            assert [type(event) for event in reader.events[-2:]] == [ReplyDone, Closed]

    house.run(work())


def test_question_that_does_not_fit_is_refused_with_numbers(house: House) -> None:
    async def work() -> None:
        async with house.engine(kv_tokens=256) as engine, await engine.stream() as stream:
            with pytest.raises(ContextOverflowError, match="expected at most .* got"):
                await stream.ask("word " * 400)
            assert len(await ids(await stream.ask(WORDS, most(3)))) == 3

    house.run(work())


def test_callers_buffer_may_change_behind_an_append(house: House) -> None:
    async def work() -> list[list[int]]:
        answers = []
        async with house.engine() as engine:
            for spoil in (False, True):
                async with await engine.stream() as stream:
                    pixels = picture(1)
                    await stream.append(Image(pixels))
                    if spoil:
                        pixels[:] = 0
                    answers.append(await ids(await stream.ask(WORDS, most(6))))
        return answers

    first, second = house.run(work())
    assert first == second


CALLS = ["append", "text", "ask", "stream", "iterate", "reply", "fork", "transcript", "end later", "interrupt"]


@given(st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, 12)), min_size=1, max_size=10))
def test_cancelling_any_call_leaves_the_stream_usable(house: House, acts: list[tuple[str, int]]) -> None:
    async def work(engine: Engine) -> None:
        stream = await engine.stream(Request(format="live"))
        words: dict[int, str] = {}
        replies: list[Reply] = []
        spare: list[Stream] = []

        async def call(name: str, number: int) -> None:
            match name:
                case "append":
                    await stream.append(shots(1, 1, first=number)[0])
                case "text":
                    words[await stream.append(Text(f"({number})"))] = f"({number})"
                case "ask":
                    replies.append(await stream.ask(f"[{number}]", most(5)))
                case "stream":
                    spare.append(await engine.stream())
                case "iterate":
                    await anext(stream)
                case "reply" if replies:
                    await replies[-1].text()
                case "fork":
                    spare.append(await stream.fork())
                case "transcript":
                    await stream.transcript()
                case "interrupt":
                    await stream.interrupt()

        for number, (name, ticks) in enumerate(acts):
            task = asyncio.create_task(call(name, number))
            for _ in range(ticks):
                await asyncio.sleep(0)
            await cancelled(task)
            if not task.cancelled():
                task.result()
        assert len(await ids(await stream.ask("last?", most(4)))) == 4
        said = await texts(engine, stream, house.loaded)
        places = [said.index(words[seq]) for seq in sorted(words)]
        assert places == sorted(places)
        assert all(said.count(word) == 1 for word in words.values())
        assert not [
            number for number in range(len(acts)) if f"({number})" in said and f"({number})" not in words.values()
        ]
        for other in (stream, *spare):
            await other.close()

    async def all_of_it() -> None:
        # Two frames are more than the credit, so appends wait.
        async with house.engine() as engine:
            await work(engine)
            await until(lambda: engine.statistics()["streams"] == 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module, "CREDIT_BYTES", 20_000)
        house.run(all_of_it())


def test_append_waits_for_credit_and_may_be_cancelled(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(stream_module, "CREDIT_BYTES", 100)
        holding = Holding(monkeypatch)
        async with house.engine() as engine, await engine.stream() as stream:
            await stream.append(Image(bytes(90)))
            waiting = [asyncio.create_task(stream.append(Image(bytes(90)))) for _ in range(3)]
            await until(holding.begun.is_set)
            assert stream.credit_bytes == 10 and not any(task.done() for task in waiting)
            assert await cancelled(waiting[1])
            ended = asyncio.create_task(stream.append(Text("words need no credit")))
            assert await ended == 2
            holding.go.set()
            assert sorted([await waiting[0], await waiting[2]]) == [3, 4]
            await (await stream.ask(WORDS, most(2))).text()
            assert len([row for row in await stream.transcript() if row.seen]) == 3
            assert stream.credit_bytes == 100

    house.run(work())


def test_append_that_waits_is_refused_when_the_media_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        monkeypatch.setattr(stream_module, "CREDIT_BYTES", 100)
        holding = Holding(monkeypatch)
        async with house.engine() as engine:
            stream = await engine.stream()
            reader = Reader(stream)
            await stream.append(Image(bytes(90)))
            first = asyncio.create_task(stream.append(Image(bytes(90))))
            await until(holding.begun.is_set)
            await stream.end()
            second = await engine.stream()
            await second.append(Image(bytes(90)))
            closing = asyncio.create_task(second.append(Image(bytes(90))))
            await asyncio.sleep(0)
            await second.close()
            with pytest.raises(StreamClosedError):
                await closing
            holding.go.set()
            with pytest.raises(InputError, match="has ended"):
                await first
            await stream.close()
            await reader.task
            assert not reader.of(Error)

    house.run(work())
