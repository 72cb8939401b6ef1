"""The same over a WebSocket, without any model library: `penstock serve`, then `python -m penstock.demos.websocket`."""

import asyncio
import sys

from penstock import Request, SamplingParams, VideoFrame, connect

from .film import draw


async def main(url: str) -> None:
    """Show two seconds, ask, and read the answer."""
    async with connect(url) as connection:
        async with await connection.stream(Request(format="live")) as stream:
            for second in range(2):
                await stream.append(VideoFrame(draw(second), pts_us=second * 1_000_000))
            reply = await stream.ask("What is moving?", SamplingParams(max_tokens=64))
            await stream.append(VideoFrame(draw(2.0), pts_us=2_000_000))
            await stream.append(VideoFrame(draw(3.0), pts_us=3_000_000))
            await stream.end()
            async for token in reply:
                print(token.text, end="", flush=True)
            print(f"\n({reply.reason})")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"))
