"""One film, taken in once, and many who ask about it at the same time: `python -m penstock.demos.many_askers`."""

import asyncio

from penstock import Engine, Request, SamplingParams, Stream, VideoFrame

from .film import draw

QUESTIONS = (
    "What do you see?",
    "What colour is the circle?",
    "Where is the square?",
    "How many things are there?",
    "What moved?",
    "Is there a green star?",
)


async def answer(stream: Stream, question: str) -> str:
    """Ask aside, on a copy of the stream: its cache is shared, and nobody hears the others."""
    async with stream.aside(question, SamplingParams(max_tokens=32)) as reply:
        return await reply.text()


async def main() -> None:
    """Show four seconds once; ask everything at once."""
    async with await Engine.load() as engine, await engine.stream(Request(format="turns")) as stream:
        for frame in range(8):
            await stream.append(VideoFrame(draw(frame / 2), pts_us=frame * 500_000))
        for question, text in zip(
            QUESTIONS, await asyncio.gather(*(answer(stream, q) for q in QUESTIONS)), strict=True
        ):
            print(f"{question:30} {text}")


if __name__ == "__main__":
    asyncio.run(main())
