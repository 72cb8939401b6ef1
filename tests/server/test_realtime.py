"""`/v1/realtime` as the unmodified `openai` SDK has it, with Brook, which knows what it sees and hears."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

from fake_engine import FakeEngine
from harness import run, serving
from openai import AsyncOpenAI
from realtime_client import Talking, beeps, picture, sound, talking, text, words_of
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

COLOUR, SHAPE, HEARD = text("What colour is the square?"), text("What shape is it?"), text("What do you hear?")
ORDER = """response.created response.output_item.added conversation.item.added response.content_part.added
response.output_text.delta response.output_text.done response.content_part.done response.output_item.done
conversation.item.done response.done""".split()


def talk(url: str, main: Callable[[Talking], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(60), talking(url, **options) as talk:
            await main(talk)

    asyncio.run(run())


def kinds(talk: Talking) -> list[str]:
    """The kinds of the events that came, each once where it came several times in a row."""
    told = [event["type"] for event in talk.told]
    return [kind for place, kind in enumerate(told) if kind != told[place - 1] or not place]


def test_pictures_and_words_are_answered_in_the_order_of_events(brook_url: str) -> None:
    async def main(client: Talking) -> None:
        session = await client.update(output_modalities=["audio"], audio={"output": {"voice": "marin", "speed": 1.2}})
        assert session["output_modalities"] == ["text"] and session["model"] == "Brook".lower()
        shown = await client.add(picture("red"), COLOUR)
        client.told.clear()
        response = await client.respond(metadata={"client_event_id": "7"})
        assert (
            kinds(client) == ORDER and words_of(response) == "red." and response["metadata"]["client_event_id"] == "7"
        )
        added = next(event for event in client.told if event["type"] == "conversation.item.added")
        assert added["previous_item_id"] == shown
        first = response["usage"]
        assert first["input_token_details"]["image_tokens"] == 16 and first["output_tokens"] == 2
        await client.add(SHAPE)
        second = await client.respond()
        assert words_of(second) == "square."
        held = second["usage"]["input_token_details"]["cached_tokens"]
        assert held == first["total_tokens"] and second["usage"]["input_tokens"] > held

    talk(brook_url, main)


def test_sounds_are_heard_from_items_and_from_the_buffer(brook_url: str) -> None:
    async def main(client: Talking) -> None:
        session = await client.update(audio={"input": {"turn_detection": None}})
        assert session["audio"]["input"] == {
            "format": {"type": "audio/pcm", "rate": 24000},
            "noise_reduction": None,
            "transcription": None,
            "turn_detection": None,
        }
        heard = await client.ask(sound(beeps(2)), text("How many beeps were there?"))
        assert heard == "two."
        await client.connection.input_audio_buffer.append(audio=base64.b64encode(beeps(3)).decode())
        await client.connection.input_audio_buffer.clear()
        await client.until("input_audio_buffer.cleared")
        await client.connection.input_audio_buffer.commit()
        assert (await client.refused())["code"] == "input_audio_buffer_commit_empty"
        low = beeps(1, 350.0)
        for piece in (low[:9_600], low[9_600:]):
            await client.connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        await client.connection.input_audio_buffer.commit()
        committed = await client.until("input_audio_buffer.committed")
        done = await client.until("conversation.item.done")
        assert done["item"]["id"] == committed["item_id"]
        await client.connection.conversation.item.retrieve(item_id=committed["item_id"])
        kept = (await client.until("conversation.item.retrieved"))["item"]["content"][0]["audio"]
        assert base64.b64decode(kept) == low
        assert await client.ask(text("Was the last beep high or low?")) == "low."
        usage = next(event for event in reversed(client.told) if event["type"] == "response.done")["response"]["usage"]
        assert usage["input_token_details"]["audio_tokens"] > 0

    talk(brook_url, main)


def test_the_past_can_be_changed(brook_url: str) -> None:
    """Deleted items are not seen any more, items are put in between, turns of an assistant are brought along: what the
    model sees is the conversation as it is."""

    async def main(client: Talking) -> None:
        await client.add(picture("red"), item={"id": "first"})
        await client.add(picture("blue"), item={"id": "second"})
        assert await client.ask(COLOUR) == "blue."
        await client.connection.conversation.item.delete(item_id="second")
        assert (await client.until("conversation.item.deleted"))["item_id"] == "second"
        assert await client.ask(COLOUR) == "red."
        await client.add(picture("green"), previous_item_id="first", item={"id": "third"})
        assert client.told[-1]["previous_item_id"] == "first"
        await client.add({"type": "output_text", "text": "square."}, role="assistant")
        assert await client.ask(text("And what colour is it?")) == "green."
        for id, code in (("second", "item_delete_invalid_item_id"), ("none", "item_delete_invalid_item_id")):
            await client.connection.conversation.item.delete(item_id=id)
            assert (await client.refused())["code"] == code

    talk(brook_url, main)


def test_responses_beside_the_conversation(brook_url: str) -> None:
    async def main(client: Talking) -> None:
        await client.add(picture("red"), COLOUR)
        aside = await client.respond(conversation="none", metadata={"topic": "aside"})
        assert aside["conversation_id"] is None and words_of(aside) == "red."
        other = {"type": "message", "role": "user", "content": [picture("yellow"), COLOUR]}
        assert words_of(await client.respond(conversation="none", input=[other])) == "yellow."
        assert kinds(client).count("conversation.item.added") == 1
        inside = await client.respond()
        assert words_of(inside) == "red." and inside["conversation_id"]
        assert words_of(await client.respond(instructions="Answer in short.")) == "red."

    talk(brook_url, main)


def test_a_response_is_cancelled(brook_url: str) -> None:
    """A cut response has its usage, and the conversation goes on."""

    async def main(client: Talking) -> None:
        await client.connection.response.cancel()
        refused = await client.refused()
        assert refused["code"] == "response_cancel_not_active" and refused["message"].startswith("Cancellation failed")
        await client.add(picture("red"), text("Say what you see, all the time."))
        await client.connection.response.create()
        await client.connection.response.create(event_id="again")
        refused = await client.refused()
        assert refused["code"] == "conversation_already_has_active_response" and refused["event_id"] == "again"
        await client.connection.response.cancel()
        cut = (await client.until("response.done"))["response"]
        if cut["status"] != "completed":  # it may have been faster
            assert cut["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert cut["usage"]["input_tokens"] > 0
        assert await client.ask(COLOUR) == "red."

    talk(brook_url, main)


def test_what_is_wrong_is_refused_and_the_session_goes_on(brook_url: str) -> None:
    async def main(client: Talking) -> None:
        bad = {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]}
        await client.connection.conversation.item.create(item=bad, event_id="mine")  # pyright: ignore
        refused = await client.refused()
        assert refused["event_id"] == "mine" and refused["param"] == "item.content[0].image_url"
        await client.connection.send_raw('{"type": "sing", "event_id": "song"}')
        assert (await client.refused())["event_id"] == "song"
        await client.connection.send_raw("no JSON")
        assert (await client.refused())["code"] == "invalid_json"
        await client.connection.session.update(session={"type": "realtime", "max_output_tokens": 0})
        assert (await client.refused())["param"] == "session.max_output_tokens"
        broken = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        await client.add(broken)
        assert (await client.refused())["code"].startswith("media")
        assert await client.ask(picture("blue"), COLOUR) == "blue."
        for place in range(3):  # each part of an item has its own answer
            content = [picture("red"), COLOUR, picture("blue")]
            await client.add(*content[:place], broken, *content[place:], event_id=f"part {place}")
            assert (await client.refused())["event_id"] == f"part {place}"
            assert await client.ask(picture("green"), COLOUR) == "green."

    talk(brook_url, main)


def test_what_is_wrong_in_a_prompt_is_refused_by_its_item(brook_url: str) -> None:
    """Only a prompt can hold the past here, so the picture is looked at with the next response; that fails, and the one
    after it is to the rest."""

    async def main(client: Talking) -> None:
        await client.update(instructions="Answer in short.")
        await client.add(text("Hello"))
        await client.add({"type": "output_text", "text": "Hello."}, role="assistant")
        await client.add(picture("blue"))
        broken = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        id = await client.add(picture("red"), broken, event_id="mine")
        await client.add(COLOUR)
        await client.connection.response.create()
        refused = await client.refused()
        assert refused["event_id"] == "mine" and id in refused["message"] and refused["code"] == "media_format"
        assert (await client.until("response.done"))["response"]["status"] == "failed"
        assert words_of(await client.respond()) == "blue."

    talk(brook_url, main)


def test_pictures_are_spliced_into_the_running_response(brook_url: str) -> None:
    """Opted in to: what comes during a response goes into it, each delta says what it could see, and rests are told."""

    async def main(client: Talking) -> None:
        session = await client.update(penstock={"format": "live", "seen": True, "rest": True})
        assert session["penstock"] == {"format": "live", "seen": True, "rest": True}
        await client.add(picture("red"), text("Say what you see."))
        await client.connection.response.create()
        await rest(client)
        await client.add(picture("blue"))
        await rest(client)
        await client.add(COLOUR)
        await rest(client)
        await client.connection.response.cancel()
        cut = (await client.until("response.done"))["response"]
        assert cut["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert cut["usage"]["input_token_details"]["image_tokens"] == 16
        deltas = [event for event in client.told if event["type"] == "response.output_text.delta"]
        assert len({event["response_id"] for event in deltas}) == 1
        seen = [event["penstock"]["seen"]["seq"] for event in deltas]
        assert seen == sorted(seen) and len(set(seen)) == 2
        words = "".join(event["delta"] for event in deltas)
        assert "red" in words and "blue" in words.partition("red")[2] and words.endswith("blue."), words

    talk(brook_url, main)


async def rest(client: Talking) -> None:
    """Wait for a rest, which is no event of OpenAI's."""
    while True:
        event = (await client.connection.recv()).to_dict()
        client.told.append(event)
        if event["type"] == "penstock.response.rest":
            return


def test_a_transcription_session_needs_a_model_that_is_asked_for_words() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url, AsyncOpenAI(api_key="none", base_url=f"{url}/v1") as client:
            async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
                told = [await connection.recv(), await connection.recv()]
                assert told[1].type == "error" and "transcription" in told[1].error.message

    asyncio.run(main())


def test_a_browser_shows_its_key_among_the_subprotocols() -> None:
    async def main() -> None:
        async with serving(FakeEngine(), api_key="secret") as url:
            address = url.replace("http", "ws", 1) + "/v1/realtime?model=gpt-realtime"
            for key in ("openai-insecure-api-key.secret", "openai-insecure-api-key.wrong"):
                try:
                    async with connect(address, subprotocols=["realtime", key], proxy=None) as socket:  # pyright: ignore
                        assert socket.subprotocol == "realtime" and key.endswith("secret")
                        assert '"session.created"' in str(await socket.recv())
                except InvalidStatus as error:
                    assert error.response.status_code == 401 and key.endswith("wrong")

    run(main)
