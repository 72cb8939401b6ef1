"""Whole replies through a connection are those of the engine, whatever the client hands in as media; and what is too
large for a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import run, running_engine, serving
from penstock.demos.film import make_film
from penstock.errors import InputError, MediaError
from penstock.server.client import connect
from penstock.server.errors import ServerLimitError
from penstock.streams.item import AudioBytes, AudioChunk, Image, VideoBytes
from penstock.streams.requests.request import Request, SamplingParams
from PIL import Image as Pillow

from tests.reference.media import RATE, picture, png, sound, wav

PARAMS = SamplingParams(max_tokens=6)
PIXELS = picture(1, 60, 80)
SAMPLES = sound(2, 1.5)
FILM = make_film(1.5)


HALVES = AudioChunk((SAMPLES * 32767).astype("<i2").tobytes(), RATE)
STEREO = AudioChunk(np.stack([SAMPLES, SAMPLES * 0.5]), RATE)
MEDIA: dict[str, Any] = {
    "pixels": PIXELS,
    "a PIL image": Pillow.fromarray(PIXELS),
    "bytes of a picture": png(PIXELS),
    "an item of pixels": Image(PIXELS),
    "an item of a file": Image(png(PIXELS)),
    "samples and rate": (SAMPLES, RATE),
    "16 bit samples": HALVES,
    "stereo samples": STEREO,
    "bytes of a sound": wav(SAMPLES),
    "an item of a sound": AudioBytes(wav(SAMPLES), final=True),
    "a part with a rate": {"type": "audio", "audio": SAMPLES, "sampling_rate": RATE},
    "bytes of a film": FILM,
    "an item of a film": VideoBytes(FILM, final=True),
    "a part of OpenAI's": {"type": "image_url", "image_url": {"url": "picture.png"}},
    "a path": Path("picture.png"),
    "the name of a file": "film.mp4",
}


def part(value: Any) -> Any:
    """The value as a content part."""
    if isinstance(value, dict):
        return value
    match value:
        case AudioChunk() | AudioBytes() | (_, int()):
            kind = "audio"
        case VideoBytes() | str():
            kind = "video"
        case np.ndarray() if value.dtype == np.float32:
            kind = "audio"
        case np.ndarray() if value.ndim == 4:
            kind = "video"
        case bytes():
            kind = "image" if value.startswith(b"\x89PNG") else "audio" if value.startswith(b"RIFF") else "video"
        case _:
            kind = "image"
    return {"type": kind, kind: value}


def test_any_media_is_answered_as_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("picture.png").write_bytes(png(PIXELS))
    Path("film.mp4").write_bytes(FILM)

    async def main() -> None:
        async with running_engine("real") as engine, serving(engine) as url, connect(url) as connection:
            for name, value in MEDIA.items():
                content = [{"type": "text", "text": "Here:"}, part(value), {"type": "text", "text": "Well?"}]
                request = Request(messages=[{"role": "user", "content": content}, {"role": "user", "content": "And?"}])
                expected = await engine.generate(request, PARAMS)
                assert expected and await connection.generate(request, PARAMS) == expected, name
            token = engine._wiring.encode._encoder._towers.processor.image_token
            prompt = f"<|vision_bos|>{token}<|vision_eos|>Well?"
            for name, value in MEDIA.items():
                if part(value)["type"].startswith("image"):
                    request = Request(prompt=prompt, media=[value], params=PARAMS)
                    assert await connection.generate(request) == await engine.generate(request), name

    run(main)


def test_a_prompt_that_cannot_be_used_is_refused_as_in_process() -> None:
    broken = png(PIXELS)[:60]
    request = Request(messages=[{"role": "user", "content": [part(broken), {"type": "text", "text": "Well?"}]}])

    async def main() -> None:
        async with running_engine("real") as engine, serving(engine) as url, connect(url) as connection:
            with pytest.raises(MediaError) as here:
                await engine.generate(request, PARAMS)
            for _ in range(2):
                with pytest.raises(type(here.value)) as there:
                    await connection.generate(request, PARAMS)
                assert str(there.value) == str(here.value)
            with pytest.raises(type(here.value)):
                await connection.generate_all(request, 2, PARAMS)
            assert await connection.generate(Request(prompt="Well?"), PARAMS)

    run(main)


def test_several_replies_are_those_of_the_engine() -> None:
    request = Request(messages=[{"role": "user", "content": [part(PIXELS), {"type": "text", "text": "Well?"}]}])
    params = SamplingParams(max_tokens=8, temperature=1.0, seed=5)

    async def main() -> None:
        async with running_engine("real") as engine, serving(engine) as url, connect(url) as connection:
            texts = await engine.generate_all(request, 3, params)
            assert len(set(texts)) == 3
            assert await connection.generate_all(request, 3, params) == texts
            with pytest.raises(ServerLimitError, match="at most 8, got one more"):
                await connection.generate_all(request, 9, params)
            assert await connection.generate_all(request, 1, params) == texts[:1]
            with pytest.raises(InputError, match="generate: expected a request with messages or a prompt, got none"):
                await connection.generate(Request())

    run(main)


def test_a_reply_anew_needs_a_reply_to_a_prompt() -> None:
    async def main() -> None:
        async with running_engine("real") as engine, serving(engine) as url, connect(url) as connection:
            async with await connection.stream(Request(format="turns")) as stream:
                await (await stream.ask("Well?", PARAMS)).text()
                with pytest.raises(InputError, match="again: expected a stream whose prompt has a reply"):
                    await stream.fork(again=PARAMS)
                with pytest.raises(InputError, match="max_tokens: expected .* got 0"):
                    await stream.fork(again=SamplingParams(max_tokens=0))
                assert await (await stream.ask("Well?", PARAMS)).text()

    run(main)


NO_FILES = {
    "audio: expected a file, or \\(samples, rate\\) over the wire, got an array \\(24000,\\)": SAMPLES,
    "video: expected a file, or frames that a stream is shown over the wire, got an array": np.stack([PIXELS] * 2),
    "image: expected a PIL image, an array, bytes": {"type": "image", "image": 7},
    "media: expected a file that can be read, got '/no/such.mp4'": "/no/such.mp4",
    "sound: expected \\(channels, n\\) float32": AudioChunk(SAMPLES, RATE),
    "nothing is fetched": "https://example.org/cat.mp4",
}


@pytest.mark.parametrize("told", NO_FILES)
def test_what_is_no_file_is_refused_by_the_client(told: str) -> None:
    async def main() -> None:
        async with running_engine("fake") as engine, serving(engine) as url, connect(url) as connection:
            with pytest.raises(InputError, match=told):
                await connection.generate(Request(messages=[{"role": "user", "content": [part(NO_FILES[told])]}]))
            assert not engine.streams

    run(main)


def test_a_message_that_is_too_long_ends_nothing_else() -> None:
    async def main() -> None:
        async with running_engine("fake") as engine, serving(engine, max_text_bytes=2000) as url:
            async with connect(url) as connection, await connection.stream(Request()) as stream:
                with pytest.raises(
                    ServerLimitError, match=r"text message: the server takes at most 2000 bytes, got \d{4}"
                ):
                    await stream.ask("Well? " * 500)
                with pytest.raises(ServerLimitError, match="text message: the server takes at most 2000 bytes"):
                    await connection.generate(Request(prompt="Well?", media=[PIXELS]))
                assert await (await stream.ask("Well?")).text()

    run(main)


def test_a_long_file_goes_in_pieces_and_a_picture_as_a_file() -> None:
    async def main() -> None:
        async with running_engine("real") as engine, serving(engine, max_message_bytes=6000) as url:
            assert len(FILM) > 6000
            async with connect(url) as connection:
                texts = []
                for host in (engine, connection):
                    async with await host.stream(Request(format="turns", policy="block")) as stream:
                        await stream.append(VideoBytes(FILM, final=True))
                        await stream.append(Image(PIXELS[:28, :28]))
                        texts.append(await (await stream.ask("Well?", PARAMS)).text())
                assert texts[0] and texts[0] == texts[1]
                async with await connection.stream(Request()) as stream:
                    noise = np.random.default_rng(1).integers(0, 255, (100, 100, 3), dtype=np.uint8)
                    with pytest.raises(ServerLimitError, match="binary message: the server takes at most 6000 bytes"):
                        await stream.append(Image(noise))

    run(main)
