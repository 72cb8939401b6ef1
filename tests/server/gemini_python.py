"""The unmodified `google-genai` package of Python over TLS. Prints one line of JSON for each answer.

Arguments: the server's address, a picture (JPEG), sound (PCM of 16 bits at 24 kHz).
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import asyncio
import json
import sys
from pathlib import Path

from google import genai
from google.genai import types

url, picture, sound = sys.argv[1], *map(lambda name: Path(name).read_bytes(), sys.argv[2:])
client = genai.Client(api_key="secret", http_options={"base_url": url})
MANUAL = {"automatic_activity_detection": {"disabled": True}}


async def turn(session: genai.live.AsyncSession) -> None:
    words, interrupted, usage = "", False, None
    async for message in session.receive():
        words += message.text or ""
        usage = message.usage_metadata or usage
        interrupted |= bool(message.server_content and message.server_content.interrupted)
    assert usage and usage.total_token_count == usage.prompt_token_count + usage.response_token_count
    sys.stdout.write(json.dumps("interrupted" if interrupted else words) + "\n")


async def come_back() -> None:
    """Leave in the middle, and go on by the handle."""
    config = {"response_modalities": ["TEXT"], "realtime_input_config": MANUAL, "session_resumption": {}}
    async with client.aio.live.connect(model="brook", config=config) as session:
        await session.send_realtime_input(video=types.Blob(data=picture, mime_type="image/jpeg"))
        async for message in session.receive():
            if update := message.session_resumption_update:
                assert update.resumable
                config = {**config, "session_resumption": {"handle": update.new_handle}}
                break
    async with client.aio.live.connect(model="brook", config=config) as session:
        await session.send_client_content(turns={"role": "user", "parts": [{"text": "What colour is the square?"}]})
        await turn(session)


async def main() -> None:
    config = {"response_modalities": ["TEXT"], "realtime_input_config": MANUAL, "temperature": 0.0}
    async with client.aio.live.connect(model="brook", config=config) as session:
        await session.send_realtime_input(video=types.Blob(data=picture, mime_type="image/jpeg"))
        await session.send_client_content(turns={"role": "user", "parts": [{"text": "What colour is the square?"}]})
        await turn(session)
        await session.send_realtime_input(activity_start=types.ActivityStart())
        await session.send_realtime_input(audio=types.Blob(data=sound, mime_type="audio/pcm;rate=24000"))
        await session.send_realtime_input(text="How many beeps were there?")
        await session.send_realtime_input(activity_end=types.ActivityEnd())
        await turn(session)
        for words in ("Say what you see, all the time.", "And where is it?"):
            await session.send_client_content(turns={"role": "user", "parts": [{"text": words}]})
        await turn(session)
        await turn(session)
    await come_back()
    try:
        async with client.aio.live.connect(model="brook", config={"response_modalities": ["AUDIO"]}):
            pass
    except genai.errors.APIError as error:
        sys.stdout.write(json.dumps(error.code) + "\n")


asyncio.run(main())
