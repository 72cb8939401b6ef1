"""Brook looks through a camera and tells what happens: `python -m penstock.demos.camera [SECONDS [SOURCE [FORMAT]]]`.

SOURCE and FORMAT are what PyAV opens: "/dev/video0" and "v4l2" on Linux (the default), "0" and "avfoundation" on macOS,
"video=NAME" and "dshow" on Windows; any URL or file without a format.
"""

import asyncio
import sys
from collections.abc import Iterator

import av
from penstock import Engine, Request, Stream, VideoFrame


def frames(source: str, format: str | None) -> Iterator[VideoFrame]:
    """The source's pictures with their media time."""
    with av.open(source, format=format) as camera:
        first = None
        for frame in camera.decode(video=0):
            first = frame.time if first is None else first
            yield VideoFrame(frame.to_ndarray(format="rgb24"), pts_us=round((frame.time - first) * 1e6))


async def watch(stream: Stream, seconds: float, source: str, format: str | None) -> None:
    """Append what the camera gives; where the model is slower, the oldest frames are dropped ("latest")."""
    pictures = frames(source, format)
    while (frame := await asyncio.to_thread(next, pictures, None)) is not None:
        await stream.append(frame)
        if frame.pts_us is not None and frame.pts_us >= seconds * 1e6:
            break
    await stream.end()


async def main(seconds: float = 30.0, source: str = "/dev/video0", format: str | None = "v4l2") -> None:
    """Ask once, then let the camera run while the reply goes on."""
    async with await Engine.load() as engine:
        async with await engine.stream(Request(format="live", policy="latest")) as stream:
            reply = await stream.watch("Tell me what happens.")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(watch(stream, seconds, source, format))
                async for token in reply:
                    print(token.text, end="\n" if token.text.endswith(".") else "", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    if len(given) > 1:
        asyncio.run(main(float(given[0]), given[1], given[2] if len(given) > 2 else None))
    else:
        asyncio.run(main(float(given[0])) if given else main())
