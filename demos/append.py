"""Frames go in while the reply is running, in one process: `python -m penstock.demos.append`."""

import asyncio

from penstock import Engine, Request, SamplingParams, VideoFrame

from .film import draw


async def main() -> None:
    """Show two seconds, ask, and show more while the answer comes."""
    engine = await Engine.load()  # Or the name of a model; without one Brook, which knows coloured shapes.
    async with await engine.stream(Request(format="live")) as stream:
        for frame in range(4):
            await stream.append(VideoFrame(draw(frame / 2), pts_us=frame * 500_000))
        reply = await stream.watch("Tell me what happens.", SamplingParams(max_tokens=64))
        for frame in range(4, 16):  # The film goes on while the model speaks.
            await stream.append(VideoFrame(draw(frame / 2), pts_us=frame * 500_000))
            await asyncio.sleep(0.1)
        await stream.end()
        async for token in reply:
            print(token.text, end="", flush=True)
        print()
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
