"""A question about a film, in one process: `python -m penstock.demos.file FILM "What do you see?"`."""

import asyncio
import sys
from pathlib import Path

from penstock import Engine, Request, SamplingParams, VideoBytes

PIECE_BYTES = 64 * 1024


async def main(path: str, question: str) -> None:
    """Feed the file as it is (WebM, MP4 or MPEG-TS), then ask."""
    async with await Engine.load() as engine, await engine.stream(Request(format="turns")) as stream:
        film = await asyncio.to_thread(Path(path).read_bytes)
        for start in range(0, len(film), PIECE_BYTES):
            await stream.append(VideoBytes(film[start : start + PIECE_BYTES], final=start + PIECE_BYTES >= len(film)))
        reply = await stream.ask(question, SamplingParams(max_tokens=64))
        print(await reply.text())


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit('usage: python -m penstock.demos.file FILM ["QUESTION"]')
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "What do you see?"))
