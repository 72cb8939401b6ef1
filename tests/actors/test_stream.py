"""Streams: appends and questions from several tasks at once, and what is refused at the door."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest
from penstock.actors.reply import Reply
from penstock.errors import ContextOverflowError, InputError, StreamClosedError
from penstock.streams.event import Appended, Closed, ReplyDone, ReplyStarted, Token
from penstock.streams.item import AudioChunk, Embedding, Image, Text, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Holding, Reader, big_picture, ids, most, shots, texts, until
from tests.reference.media import picture


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


def test_what_a_stop_string_held_back_to_the_end_is_the_rest(house: House) -> None:
    """The reply might have gone on with the stop string; it has ended before."""

    async def work() -> None:
        async with house.engine() as engine:

            async def said(*stop: str) -> Reply:
                async with await engine.stream() as stream:
                    reply = await stream.ask(WORDS, SamplingParams(max_tokens=8, stop=stop))
                    await reply.text()
                    return reply

            whole = await (plain := await said()).text()
            held = await said(f"{whole[-1]}\n\n")
            assert (plain.rest, held.reason) == ("", "length") and held.rest.endswith(whole[-1])
            assert "".join([token.text async for token in held]) + held.rest == await held.text() == whole

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


@pytest.mark.parametrize("format", ["turns", "live", "interrupt", "per-frame", "units"])
def test_second_question_while_a_reply_runs(house: House, format: str) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format=format)) as stream:
            first = await stream.ask(WORDS, most(200), hold=format == "units")
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
                "live": ("overtaken", count),
                "interrupt": ("interrupted", 3),
                "per-frame": ("length", 200),
                "units": ("stop", 20),
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
        (Embedding(np.zeros((1, 4), np.float32), "smell"), "this model takes text, image, video, audio, got Embedding"),
        (Embedding("words"), "Embedding.data"),  # type: ignore[arg-type]
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
