"""Brook listens and tells what it hears: `python -m penstock.demos.microphone [SECONDS [SOURCE [FORMAT]]]`.

SOURCE and FORMAT are what PyAV opens: "default" and "pulse" on Linux (the default; "alsa" without PulseAudio), ":0" and
"avfoundation" on macOS, "audio=NAME" and "dshow" on Windows; any URL or file without a format.
"""

import asyncio
import sys
from collections.abc import Iterator

import av
from penstock import AudioChunk, Engine, Request, SamplingParams

RATE = 16_000


def chunks(source: str, format: str | None, seconds: float) -> Iterator[AudioChunk]:
    """The source's sound, mono at 16 kHz, in pieces as they come."""
    resampler, heard = av.AudioResampler("fltp", "mono", RATE), 0
    with av.open(source, format=format) as microphone:
        for frame in microphone.decode(audio=0):
            for piece in resampler.resample(frame):
                yield AudioChunk(piece.to_ndarray(), rate=RATE)
                heard += piece.samples
            if heard >= seconds * RATE:
                return


async def main(seconds: float = 10.0, source: str = "default", format: str | None = "pulse") -> None:
    """Listen, then ask what there was."""
    async with await Engine.load() as engine, await engine.stream(Request(format="turns")) as stream:
        sound = chunks(source, format, seconds)
        while (chunk := await asyncio.to_thread(next, sound, None)) is not None:
            await stream.append(chunk)
        for question in ("What did you hear last?", "How many beeps did you hear?", "Which words did you hear?"):
            reply = await stream.ask(question, SamplingParams(max_tokens=32))
            print(question, await reply.text())


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) > 1:
        asyncio.run(main(float(given[0]), given[1], given[2] if len(given) > 2 else None))
    else:
        asyncio.run(main(float(given[0])) if given else main())
