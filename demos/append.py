"""Frames go in while the reply is running, in one process: `python -m penstock.demos.append`."""

import asyncio

from penstock import Engine, Request, SamplingParams, VideoFrame

from .film import draw


async def main() -> None:
    """Show two seconds, ask, and show more while the answer comes."""
    engine = await Engine.load()  # Or the name of a model; without one a small random model, whose words mean nothing.
    async with await engine.stream(Request(system="You watch a door.", format="live")) as stream:
        for second in range(2):
            await stream.append(VideoFrame(draw(second), pts_us=second * 1_000_000))
        reply = await stream.ask("Who came in?", SamplingParams(max_tokens=64))
        async for token in reply:
            print(token.text, end="", flush=True)
            if token.index % 16 == 8:  # The film goes on while the model speaks.
                second += 1
                await stream.append(VideoFrame(draw(second), pts_us=second * 1_000_000))
        print()
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
