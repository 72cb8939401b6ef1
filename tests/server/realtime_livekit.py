"""The OpenAI Realtime model of LiveKit Agents, unmodified: what it says to a picture, to sound and to a chat that was
brought along.

Runs in an environment of its own. Arguments: the server's address, a file of raw RGB pixels 112 by 112, a file of PCM.
Prints one line of JSON for each answer.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai.realtime import RealtimeModel

URL, PIXELS, SOUND = sys.argv[1], Path(sys.argv[2]).read_bytes(), Path(sys.argv[3]).read_bytes()


async def answer(session: llm.RealtimeSession) -> str:
    generation = await session.generate_reply()
    words = ""
    async for message in generation.message_stream:
        async for piece in message.text_stream:
            words += piece
    return words


async def ask(session: llm.RealtimeSession, *messages: tuple[llm.ChatRole, str]) -> str:
    chat = session.chat_ctx.copy()
    for role, words in messages:
        chat.add_message(role=role, content=words)
    await session.update_chat_ctx(chat)
    return await answer(session)


async def main() -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):
        model = RealtimeModel(
            base_url=f"{URL}/v1", api_key="none", modalities=["text"], turn_detection=None, http_session=http
        )
        session = model.session()
        rgba = b"".join(PIXELS[at : at + 3] + b"\xff" for at in range(0, len(PIXELS), 3))
        session.push_video(rtc.VideoFrame(112, 112, rtc.VideoBufferType.RGBA, rgba))
        said = [await ask(session, ("user", "What colour is the square?"))]
        for at in range(0, len(SOUND), 4800):
            session.push_audio(rtc.AudioFrame(SOUND[at : at + 4800], 24_000, 1, 2400))
        known = asyncio.Event()
        session.on("remote_item_added", lambda _: known.set())
        session.commit_audio()
        await known.wait()
        said.append(await ask(session, ("user", "How many beeps were there?")))
        said.append(await ask(session, ("assistant", "square."), ("user", "And what colour is it?")))
        sys.stdout.write(json.dumps(said) + "\n")
        await session.aclose()
        await model.aclose()


asyncio.run(main())
