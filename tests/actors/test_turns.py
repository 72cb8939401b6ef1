"""Streams that listen: they reply to what was said, fall silent for it, and feed nothing twice for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from penstock.actors.stream import Stream
from penstock.engine.plan import Plan
from penstock.errors import InputError
from penstock.streams.event import Dropped, ReplyDone, ReplyStarted, SpeechStarted, SpeechStopped
from penstock.streams.item import AudioChunk
from penstock.streams.requests.request import Request
from penstock.streams.requests.turns import TurnDetection
from penstock.streams.requests.window import Window

from tests.actors.conftest import House
from tests.actors.watch import Reader, ids, most, quiet, tokens, until
from tests.streams.spoken import noise, silence, words

RATE = 16_000
LISTENS = TurnDetection(detector="energy")


def asks(**ways: Any) -> Request:
    return Request(format="turns", params=most(6), turn_detection=TurnDetection(detector="energy", **ways))


def spoken(pause: float = 1.0, seed: int = 1) -> np.ndarray:
    """A pause with a little noise, a question, and a pause."""
    said = words("what is the colour of the sky", seed)
    return np.concatenate([silence(pause), said, silence(0.8)]) + noise(pause + 0.8 + len(said) / RATE, 0.001, seed)


async def say(stream: Stream, sound: np.ndarray, at_us: int = 0, size: int = 1600) -> int:
    """Append this sound in chunks, as from a microphone; returns the media time at its end."""
    for start in range(0, len(sound), size):
        await stream.append(AudioChunk(sound[None, start : start + size], RATE, at_us + start * 125 // 2))
    return at_us + len(sound) * 125 // 2


async def held(engine: Any, stream: Stream) -> list[Any]:
    """What the cache has: ids and positions, row by row."""
    await quiet(engine)
    rows = await stream.transcript()
    columns = [(run.ids, *run.positions) for run in rows]
    return [row for column in columns for row in zip(*column, strict=True)]


def test_a_stream_that_listens_is_one_in_which_somebody_appends_what_was_said_and_asks(house: House) -> None:
    """Two turns: the cache and the replies are those of a client that has cut the sound and asks by itself."""

    async def work() -> None:
        sounds = [spoken(1.0), spoken(2.0, 2)]
        async with house.engine() as engine:
            async with await engine.stream(asks()) as stream:
                reader, at_us = Reader(stream), 0
                for turn, sound in enumerate(sounds, 1):
                    at_us = await say(stream, sound, at_us)
                    await reader.see(ReplyDone, turn)
                mine = [await held(engine, stream), tokens(reader.events, 1), tokens(reader.events, 2)]
            await reader.task
            starts, stops = reader.of(SpeechStarted), reader.of(SpeechStopped)
            assert [event.turn for event in starts] == [event.turn for event in stops] == [1, 2]
            assert [event.seq for event in reader.of(ReplyStarted)] == [event.seq for event in stops]
            lost = [event for event in reader.of(Dropped) if event.reason == "silence"]
            assert [event.stop_us for event in lost] == [event.at_us for event in starts]
            async with await engine.stream(Request(format="turns", params=most(6))) as other:
                whole, theirs = np.concatenate(sounds), []
                for start, stop in zip(starts, stops, strict=True):
                    cut = whole[start.at_us * 2 // 125 : stop.at_us * 2 // 125]
                    await say(other, cut, start.at_us)
                    theirs.append(await ids(await other.ask()))
                assert [await held(engine, other), *theirs] == mine

    house.run(work())


def test_speech_cuts_a_reply_where_it_was_taken_and_feeds_nothing_twice(house: House) -> None:
    """All rows of the cache, and what was cut of the reply, were fed once. Noise and a hum cut nothing."""

    async def work() -> None:
        fed: Counter[tuple[int, int]] = Counter()  # rows by place and id

        def observe(mailbox: str, lane: str, message: Any) -> None:
            if isinstance(message, Plan):
                for feed in message.feeds:
                    ids = np.concatenate([run.ids for run in feed.rows])
                    fed.update(enumerate(ids.tolist(), feed.first))

        async with house.engine(observer=observe) as engine:
            async with await engine.stream(asks()) as stream:
                fed.clear()
                reply = await stream.ask("Tell me everything.", most(4000))
                async for token in reply:
                    if token.index == 20:
                        break
                hum = np.concatenate([noise(0.5, 0.001), words("hmm"), noise(1.0, 0.001), noise(1.0, 0.1)])
                at_us = await say(stream, hum)
                await until(lambda: not stream._on_way)
                assert stream.reply is reply
                await say(stream, spoken(0.3), at_us)
                await until(lambda: reply.reason is not None)
                taken = reply.taken
                await until(lambda: stream.reply is not None)
                assert stream.reply is not None
                answer = await ids(stream.reply)
                assert reply.reason == "interrupted" and len([token async for token in reply]) == taken == 21
                rows = await held(engine, stream)
            assert len(answer) == 6
            assert [row for row, times in fed.items() if times > 1] == []
            assert set(enumerate(row[0] for row in rows[:-1])) <= set(fed)

    house.run(work())


def test_a_copy_in_the_middle_of_speech_goes_on_listening(house: House, tmp_path: Path) -> None:
    """A fork hears the rest as the stream itself does, and so does what a snapshot has, in another engine."""
    sound = spoken()
    place = len(sound) // 2 // 1600 * 1600
    first, rest, at_us = sound[:place], sound[place:], place * 125 // 2

    async def answer(stream: Stream) -> list[Any]:
        reader = Reader(stream)
        await say(stream, rest, at_us)
        (done,) = await reader.see(ReplyDone)
        stops = [(event.turn, event.at_us, event.reason) for event in reader.of(SpeechStopped)]
        return [stops, done.tokens, tokens(reader.events, done.reply)]

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(asks()) as stream:
            await say(stream, first)
            await stream.snapshot(tmp_path / "file")
            async with await stream.fork() as copy:
                forked = await answer(copy)
            mine = await answer(stream)
        assert forked == mine and mine[0] == [(1, mine[0][0][1], "silence")]
        async with house.engine() as engine, await engine.restore(tmp_path / "file") as again:
            assert await answer(again) == mine

    house.run(work())


def test_who_goes_on_to_speak_before_the_reply_begins_gets_one_reply(house: House) -> None:
    """Two halves with a long breath between, in one piece of sound: the reply to the first would be cut at once."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(asks(silence_ms=200)) as stream:
            reader = Reader(stream)
            both = np.concatenate([spoken(0.3), spoken(0.3, 2)])
            await stream.append(AudioChunk(both[None], RATE, 0))
            await reader.see(ReplyDone)
            await quiet(engine)
            assert len(reader.of(SpeechStarted)) == len(reader.of(SpeechStopped)) >= 2
            (begun,) = reader.of(ReplyStarted)
            assert begun.seq == 1

    house.run(work())


def test_the_end_of_the_media_ends_what_is_said(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream(asks()) as stream:
            reader = Reader(stream)
            await say(stream, words("what is the colour of the sky"))
            await stream.end()
            await reader.see(ReplyDone)
            (stopped,) = reader.of(SpeechStopped)
            assert stopped.reason == "end"

    house.run(work())


def test_listening_begins_and_ends_while_the_stream_is_open(house: House) -> None:
    """Before and after it all sound goes in, and nobody asks."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(Request(format="turns", params=most(6))) as stream:
            reader = Reader(stream)
            at_us = await say(stream, spoken())
            await stream.listen(TurnDetection(detector="energy", respond=False))
            at_us = await say(stream, spoken(), at_us)
            await reader.see(SpeechStopped)
            await stream.listen(None)
            await say(stream, spoken(), at_us)
            await ids(await stream.ask("Now?"))
            assert len(reader.of(SpeechStarted)) == len(reader.of(SpeechStopped)) == len(reader.of(ReplyStarted)) == 1
            lost = sum(event.count for event in reader.of(Dropped) if event.reason == "silence")
            assert 0.5 * RATE < lost < 1.3 * RATE and stream.request.turn_detection is None

    house.run(work())


def test_turns_go_on_where_listening_began_again_and_where_a_copy_went_back(house: House) -> None:
    """Each turn is replied to: the count of turns belongs to the stream and not to what listens just now."""

    async def work() -> None:
        async with house.engine() as engine, await engine.stream(asks()) as stream:
            reader, at_us = Reader(stream), 0
            for number in range(1, 4):
                at_us = await say(stream, spoken(1.0, number), at_us)
                await reader.see(ReplyDone, number)
                if number == 2:
                    await stream.listen(None)
                    await stream.listen(LISTENS)
            first = reader.of(ReplyStarted)[0].seq
            async with await stream.fork(back_to=first) as copy:
                other = Reader(copy)
                await say(copy, spoken(1.0, 4), at_us)
                await other.see(ReplyDone)
            assert [event.turn for event in reader.of(SpeechStarted)] == [1, 2, 3]

    house.run(work())


def test_the_question_of_a_turn_has_the_number_that_is_told(house: House) -> None:
    """Also where sound waits for what may come late, so that the end of speech is found in a later input."""

    async def work() -> None:
        request = msgspec.structs.replace(asks(), lateness_us=300_000)
        async with house.engine() as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            await say(stream, spoken(1.0))
            await say(stream, silence(1.0), round(len(spoken(1.0)) * 125 / 2))
            await reader.see(ReplyDone)
            assert [event.seq for event in reader.of(SpeechStopped)] == [event.seq for event in reader.of(ReplyStarted)]

    house.run(work())


def test_a_turn_is_replied_to_wherever_its_window_ends(house: House) -> None:
    """The question has to make room, and waits until what is laid before it has been fed: it is not lost meanwhile."""

    async def work() -> None:
        async with house.engine() as engine:
            for rows in range(64, 160, 8):
                async with await engine.stream(msgspec.structs.replace(asks(), window=Window(rows=rows))) as stream:
                    reader, at_us = Reader(stream), 0
                    for number in range(1, 4):
                        at_us = await say(stream, spoken(1.0, number), at_us)
                        await reader.see(ReplyDone, number)

    house.run(work())


def test_a_turn_that_ends_while_a_reply_runs_is_replied_to_after_it(house: House) -> None:
    async def work() -> None:
        way = asks(interrupt=False)
        async with house.engine() as engine, await engine.stream(way) as stream:
            reader = Reader(stream)
            at_us = await say(stream, spoken())
            await reader.see(SpeechStopped)
            reply = await stream.ask("What?", most(200))
            await say(stream, spoken(1.0, 2), at_us)
            await reader.see(SpeechStopped, 2)
            await ids(reply)
            await quiet(engine)
            assert len(reader.of(ReplyStarted)) == len(reader.of(ReplyDone)) == 3

    house.run(work())


def test_in_live_the_events_alone_come(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine:
            with pytest.raises(InputError, match="respond=False and interrupt=False"):
                await engine.stream(Request(format="live", turn_detection=LISTENS))
            tells = TurnDetection(detector="energy", respond=False, interrupt=False)
            async with await engine.stream(Request(format="live", turn_detection=tells)) as stream:
                reader = Reader(stream)
                with pytest.raises(InputError, match="respond=False and interrupt=False"):
                    await stream.listen(LISTENS)
                await say(stream, spoken())
                await reader.see(SpeechStopped)
                await ids(await stream.ask("Now?", most(2)))
                mine = await held(engine, stream)
                assert reader.of(SpeechStarted) and not [event for event in reader.of(Dropped)]
            async with await engine.stream(Request(format="live")) as other:
                await say(other, spoken())
                await ids(await other.ask("Now?", most(2)))
                assert await held(engine, other) == mine

    house.run(work())


@pytest.mark.parametrize("format", ["turns", "live"])
def test_a_stream_may_listen_and_keep_nothing(house: House, format: str) -> None:
    """It tells of the same speech as a stream that keeps it, and its cache is that of one without sound."""
    tells = TurnDetection(detector="energy", respond=False, interrupt=False)

    async def heard(engine: Any, turns: TurnDetection | None, sound: np.ndarray) -> tuple[list[Any], list[Any]]:
        async with await engine.stream(Request(format=format, turn_detection=turns)) as stream:
            reader = Reader(stream)
            await say(stream, sound)
            if turns is not None:
                await reader.see(SpeechStopped)
            await ids(await stream.ask("Now?", most(2)))
            kept = await held(engine, stream)
        await reader.task
        told = [
            (type(event), event.turn, event.at_us) for event in (*reader.of(SpeechStarted), *reader.of(SpeechStopped))
        ]
        return told, kept

    async def work() -> None:
        async with house.engine() as engine:
            sound = spoken()
            told, kept = await heard(engine, msgspec.structs.replace(tells, keeps=False), sound)
            theirs, more = await heard(engine, tells, sound)
            _, without = await heard(engine, None, sound[:0])
            assert told == theirs != []
            assert kept == without != more

    house.run(work())


@pytest.mark.parametrize(
    ("ways", "match"),
    [
        ({"keeps": False}, "keeps: expected True beside respond or interrupt, got False"),
        ({"detector": "ears"}, "auto, silero, energy"),
        ({"threshold": 1.0}, r"\[0.05, 0.95\], got 1.0"),
        ({"silence_ms": 20}, "100 to 60000, got 20"),
        ({"idle_ms": 1}, "100 to 3600000, got 1"),
    ],
)
def test_what_cannot_be_is_refused(ways: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Request(turn_detection=TurnDetection(**ways)).check()
    with pytest.raises(InputError, match="expected no audio_in_video"):
        Request(turn_detection=LISTENS, audio_in_video=True).check()
