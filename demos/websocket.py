"""The same over a WebSocket, without any model library: `penstock serve`, then `python -m penstock.demos.websocket`."""

import asyncio
import sys

from penstock import Request, SamplingParams, VideoFrame, connect

from .film import draw


async def main(url: str) -> None:
    """Show two seconds, ask, show more, and read what is said."""
    async with connect(url) as connection:
        async with await connection.stream(Request(format="live")) as stream:
            for frame in range(4):
                await stream.append(VideoFrame(draw(frame / 2), pts_us=frame * 500_000))
            reply = await stream.watch("Tell me what happens.", SamplingParams(max_tokens=64))
            for frame in range(4, 12):
                await stream.append(VideoFrame(draw(frame / 2), pts_us=frame * 500_000))
                await asyncio.sleep(0.1)
            await stream.end()
            async for token in reply:
                print(token.text, end="", flush=True)
            print(f"\n({reply.reason})")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
