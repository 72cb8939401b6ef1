"""How replies end: held ones, interrupts, closing."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from penstock.actors.messages import Tell
from penstock.engine.family import Family, Loaded
from penstock.errors import InputError, StreamClosedError
from penstock.streams.event import Appended, Closed, ReplyDone, ReplyStarted, Token
from penstock.streams.item import Image
from penstock.streams.requests.request import Request, SamplingParams

from tests.actors.conftest import House
from tests.actors.watch import WORDS, Reader, ids, most, quiet, shots, texts
from tests.reference.media import picture


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


def test_end_ends_a_reply_that_is_held_open(house: House) -> None:
    async def work() -> None:
        loaded, said = await stopping(house)
        async with house.engine(loaded) as engine, await engine.stream(Request(format="live")) as stream:
            reader = Reader(stream)
            for frame in shots(1, 2):
                await stream.append(frame)
            reply = await stream.watch(WORDS, most(50))
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
