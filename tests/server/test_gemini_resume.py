"""A connection of `BidiGenerateContent` that is lost or closed: its client comes back by a handle, and goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_engine import FakeEngine
from gemini_room import GeminiRoom
from harness import raw_client, run, serving, until
from penstock.streams.item import Text
from test_gemini import Live, jpeg, live
from websockets.exceptions import ConnectionClosed

WANTED: dict[str, Any] = {"sessionResumption": {}}


async def handle(client: Live) -> str:
    """The newest handle, which comes next."""
    update = (await client.next())["sessionResumptionUpdate"]
    assert update["resumable"] is True
    return update["newHandle"]


def back(url: str, handle: str, **setup: Any) -> Any:
    return live(url, session_resumption={"handle": handle}, **setup)


async def refused(url: str, handle: str, **setup: Any) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        async with back(url, handle, **setup):
            pass
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def go(words: str) -> dict[str, Any]:
    return {"client_content": {"turns": [{"parts": [{"text": words}]}], "turn_complete": True}}


@pytest.mark.parametrize("ends", ["lost", "closed", "not noticed"])
def test_a_turn_that_ran_is_told_from_its_beginning(ends: str) -> None:
    """The stream is the same one; a client that was in the middle of a turn gets all of that turn."""

    async def main() -> None:
        engine = FakeEngine(tokens=4)
        engine.gate = asyncio.Semaphore(6)
        async with serving(engine) as url:
            async with live(url, **WANTED) as first:
                assert await handle(first)
                await first.say(**go("Hello"))
                whole = await first.turn()
                newest = await handle(first)
                await first.say(**go("And?"))
                begun = [await first.next(), await first.next()]
                if ends == "lost":
                    first.socket.transport.abort()
                elif ends == "closed":
                    await first.socket.close()
                async with back(url, newest) as second:
                    engine.gate.release()
                    engine.gate.release()
                    assert await second.turn() == whole
                    assert second.told[1:3] == begun
                    assert await handle(second) != newest
                    for _ in range(4):
                        engine.gate.release()
                    await second.say(**go("Go on."))
                    assert await second.turn() == whole
            (stream,) = engine.streams
            assert [item.text for item in stream.items if isinstance(item, Text)] == ["Hello", "And?", "Go on."]

    run(main)


def test_what_was_seen_and_said_before_is_known(brook_url: str) -> None:
    async def main() -> None:
        setup = {"realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}}}
        async with asyncio.timeout(60):
            async with live(brook_url, **setup, **WANTED) as client:
                first = await handle(client)
                await client.say(realtimeInput={"video": jpeg("red")})
                assert await client.ask("What colour is the square?") == "red."
                newest = await handle(client)
                client.socket.transport.abort()
            async with back(brook_url, newest, **setup) as client:
                assert await client.ask("And where is it?") == "middle."
                cached = client.told[-1]["usageMetadata"]["cachedContentTokenCount"]
                assert cached > 16, "expected the picture to be in the cache still"
            async with back(brook_url, first, **setup) as client:
                assert [await client.turn() for _ in range(2)] == ["red.", "middle."]

    asyncio.run(main())


def test_a_handle_that_is_unknown_or_too_old_is_refused_and_nothing_else_is_lost() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine, resume_seconds=0.2, unread_bytes=2_000) as url, live(url) as other:
            for unknown in ("x", "x.1", "x.y", ".", "x." + "9" * 30):
                code, reason = await refused(url, unknown)
                assert code == 1008 and reason.startswith("setup.sessionResumption.handle: "), reason
            async with live(url, **WANTED) as client:
                first = await handle(client)
                for _ in range(9):
                    await client.say(**go("Hello"))
                    await client.turn()
                    newest = await handle(client)
            code, reason = await refused(url, first)
            assert code == 1008 and "sessionResumption.handle" in reason  # not all is kept that came after it
            stream = engine.streams[-1]
            await until(lambda: stream.closed)
            assert (await refused(url, newest))[0] == 1008
            await other.say(**go("Hello"))
            assert await other.turn()

    run(main)


def test_a_session_keeps_its_setup() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url:
            said = {"systemInstruction": {"parts": [{"text": "Be short."}]}, "generationConfig": {"temperature": 0.5}}
            async with live(url, **said, **WANTED) as client:
                newest = await handle(client)
            code, reason = await refused(url, newest, systemInstruction={"parts": [{"text": "Be long."}]})
            assert code == 1008 and reason.startswith("setup.systemInstruction: "), reason
            for again in (said, {}):
                async with back(url, newest, **again) as client:
                    await client.say(**go("Hello"))
                    await client.turn()

    run(main)


def test_a_handle_belongs_to_its_door_and_key() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url, live(url, **WANTED) as client:
            token = (await handle(client)).partition(".")[0]
            async with raw_client(url) as other:
                await other.send(type="resume", token=token, received=0)
                assert (await other.receive())["code"] == "resume"
                await other.send(type="keep")
                kept = (await other.receive_until("kept"))[-1]["token"]
                assert (await refused(url, f"{kept}.0"))[0] == 1008
            await client.say(**go("Hello"))
            assert await client.turn()

    run(main)


@pytest.mark.parametrize("noticed", [True, False])
def test_a_full_server_lets_a_client_in_that_comes_back(noticed: bool) -> None:
    async def main() -> None:
        async with serving(FakeEngine(), max_connections=1) as url, live(url, **WANTED) as client:
            newest = await handle(client)
            if noticed:
                client.socket.transport.abort()
            else:
                with pytest.raises(ConnectionClosed, match="1013"):
                    async with live(url) as other:  # let in to come back, but it does not
                        await other.say(**go("Hello"))
                        await other.turn()
            async with back(url, newest) as client:
                await client.say(**go("Hello"))
                assert await client.turn()

    run(main)


def test_who_has_not_asked_for_it_leaves_nothing() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as url:
            async with live(url) as client:
                await client.say(**go("Hello"))
                await client.turn()
                client.socket.transport.abort()
            await until(lambda: engine.streams[-1].closed)

    run(main)


def test_a_server_that_goes_down_keeps_nobody() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with serving(engine) as url:
            async with live(url, **WANTED) as client:
                await client.say(realtimeInput={"text": "Hello"})
                await client.turn()
        assert engine.streams[-1].closed

    run(main)


def test_who_has_a_handle_from_after_a_call_is_not_told_it_again() -> None:
    room = GeminiRoom(sessionResumption={}, tools=[{"functionDeclarations": [{"name": "look"}]}])
    room.say(**go("What is there?"))
    while "toolCall" not in room.told[-2]:
        room.step(7)
    assert room.told[-1]["sessionResumptionUpdate"]["newHandle"] == f"token.{len(room.told) - 2}"
