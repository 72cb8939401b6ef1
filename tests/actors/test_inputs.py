"""Prompts and media as clients have them: the same picture in any form is the same prompt, files are decoded beside the
event loop, and what cannot be used is refused with a reason.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from penstock.actors.engine import Engine
from penstock.demos.film import make_film
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.errors import ContextOverflowError, InputError, MediaError, PenstockError
from penstock.streams.event import Appended, Error, ReplyDone
from penstock.streams.item import AudioBytes, AudioChunk, Image, Text, VideoBytes, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from PIL import Image as Pictures
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.actors.conftest import House
from tests.actors.watch import Reader
from tests.fixtures.recipe import model_path
from tests.reference.media import RATE, frames, picture, png, sound, wav

REPLY = SamplingParams(max_tokens=8)
PIXELS, CLIP, SOUND = picture(1, 100, 70), frames(3, 4), sound(5, 1.3)
TINY = 2 * [{"type": "text", "text": ""}]
QUESTION = "USER: <image>\nWhat is the content of this image?\nASSISTANT:"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture(scope="session")
def llava() -> Loaded:
    return load(model_path("llava"), EngineConfig())


def test_the_first_example_of_the_multimodal_rfc(house: House, llava: Loaded) -> None:
    """A prompt string with `<image>`, a PIL image, and no argument about images (vllm-project/vllm, issue 4194)."""
    shown = Pictures.fromarray(PIXELS)

    async def work() -> str:
        async with house.engine(llava) as engine:
            return await engine.generate(Request(prompt=QUESTION, media=[shown]), REPLY)

    path = model_path("llava")
    model: Any = AutoModelForImageTextToText.from_pretrained(path)
    processor: Any = AutoProcessor.from_pretrained(path)
    inputs = processor(text=QUESTION, images=shown, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=REPLY.max_tokens, do_sample=False)
    text = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text and house.run(work()) == text


def test_a_picture_in_any_form_is_the_same(house: House, llava: Loaded, tmp_path: Path) -> None:
    data = png(PIXELS)
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    forms: list[Any] = [
        PIXELS,
        Pictures.fromarray(PIXELS),
        Pictures.open(path),
        data,
        memoryview(data),
        path,
        str(path),
        data_url(data),
        Image(data),
        Image(PIXELS),
        {"type": "image", "image": PIXELS},
        {"type": "image", "path": str(path)},
        {"type": "image", "base64": base64.b64encode(data).decode()},
        {"type": "image_url", "image_url": {"url": data_url(data)}},
    ]

    def message(part: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [part, {"type": "text", "text": "Well?"}]}]

    async def work() -> None:
        async with house.engine(llava) as engine:
            answers = {await engine.generate(Request(prompt=QUESTION, media=[form]), REPLY) for form in forms}
            parts = [form for form in forms if isinstance(form, dict)]
            told = {await engine.generate(Request(messages=message(part)), REPLY) for part in parts}
            other = await engine.generate(Request(prompt=QUESTION, media=[picture(2, 100, 70)]), REPLY)
        assert len(answers) == len(told) == 1 and other not in answers

    house.run(work())


def test_sound_and_video_in_any_form_are_the_same(house: House) -> None:
    exact = (SOUND * 32767).astype("<i2").astype(np.float32) / 32768
    file = wav(SOUND)
    sounds: list[Any] = [exact, (exact, RATE), file, AudioBytes(file), AudioChunk(exact[None], RATE)]
    parts: list[Any] = [
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(file).decode(), "format": "wav"}},
        {"type": "audio", "audio": exact},
        {"type": "audio_url", "audio_url": {"url": data_url(file, "audio/wav")}},
    ]
    clips: list[Any] = [CLIP, list(CLIP), [Pictures.fromarray(frame) for frame in CLIP]]

    async def work() -> None:
        async with house.engine() as engine:
            tokenizer = house.loaded.towers.processor  # type: ignore[attr-defined]
            heard = f"<|audio_bos|>{tokenizer.audio_token}<|audio_eos|> Well?"
            seen = f"<|vision_bos|>{tokenizer.video_token}<|vision_eos|> Well?"
            answers = {await engine.generate(Request(prompt=heard, media=[form]), REPLY) for form in (*sounds, *parts)}
            assert len(answers) == 1
            assert await engine.generate(Request(prompt=heard, media=[exact / 3]), REPLY) not in answers
            answers = {await engine.generate(Request(prompt=seen, media=[form]), REPLY) for form in clips}
            assert len(answers) == 1

    house.run(work())


@pytest.mark.parametrize("decode", ["inline", "workers"])
def test_a_film_is_taken_at_the_rate_that_is_asked_for(house: House, decode: str) -> None:
    """Frames of a file by the model's rate or the request's; where sound is inside video the file brings its own."""
    film = make_film(4.0)

    async def rows(engine: Engine, **request: Any) -> int:
        part = {"type": "video_url", "video_url": {"url": data_url(film, "video/mp4")}}
        asked = Request(messages=[{"role": "user", "content": [part]}], params=REPLY, **request)
        async with await engine.stream(asked) as stream:
            await (await stream.prompted()).text()
            return sum(len(row.ids) for row in await stream.transcript() if row.seen)

    async def work() -> None:
        async with house.engine(decode=decode) as engine:
            usual = await rows(engine)
            assert usual == await rows(engine, video_fps=2.0) == await rows(engine, processor={"fps": 2})
            assert await rows(engine, video_fps=1.0) == await rows(engine, processor={"fps": 1}) < usual
            assert await rows(engine, audio_in_video=True) > usual
            whole = await engine.generate(Request(messages=[{"role": "user", "content": [_video(film)]}]), REPLY)
            assert whole

    house.run(work())


def _video(film: bytes) -> dict[str, Any]:
    return {"type": "video", "video": VideoBytes(film)}


REFUSED: list[tuple[Any, type[PenstockError], str]] = [
    ("https://example.org/cat.png", InputError, "got 'https://example.org/cat.png': nothing is fetched"),
    ({"type": "image_url", "image_url": {"url": "http://example.org/cat.png"}}, InputError, "nothing is fetched"),
    ("no/such/file.png", InputError, "expected a file that can be read, got 'no/such/file.png': No such file"),
    ("data:image/png;base64", InputError, r"media\[0\]: data: URL: expected 'data:\[TYPE\]\[;base64\],DATA', got"),
    ("data:image/png;base64,?", InputError, "expected base64"),
    (7, InputError, "expected a PIL image, an array, bytes, a path, a data: URL or an item, got 7"),
    (np.zeros((4, 4), np.uint8), InputError, r"image: expected \(h, w, 3\) uint8, got \(4, 4\) uint8"),
    ({"type": "image"}, InputError, r"media\[0\]: expected its value under 'image', got only 'type'"),
    ({"type": "smell"}, InputError, r"media\[0\].type: expected text, image, video, audio, .* got 'smell'"),
    (VideoFrame(PIXELS), InputError, "got VideoFrame"),
    ([PIXELS, picture(1)], InputError, "expected pictures of one size"),
    (png(PIXELS)[:200], MediaError, "broken or cut short"),
    (b"words, no picture", MediaError, "expected"),
    (CLIP, InputError, "expected text or image, got 'video'"),
    ([], InputError, "got a list of 0"),
]


@pytest.mark.parametrize(
    ("value", "kind", "words"), REFUSED, ids=lambda value: value[:30] if isinstance(value, str) else ""
)
def test_what_is_no_media_is_refused(
    house: House, llava: Loaded, value: Any, kind: type[PenstockError], words: str
) -> None:
    async def work() -> None:
        async with house.engine(llava) as engine:
            with pytest.raises(kind, match=words):
                await engine.generate(Request(prompt=QUESTION, media=[value]), REPLY)
            assert await engine.generate(Request(prompt=QUESTION, media=[PIXELS]), REPLY)

    house.run(work())


MESSAGES = [{"role": "user", "content": "Well?"}]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Request(prompt="a", messages=MESSAGES), "expected one of messages, prompt and prompt_ids, got messages and"),
        (Request(prompt="a", prompt_ids=[1]), "got prompt and prompt_ids"),
        (Request(messages=MESSAGES, media=[PIXELS]), "media: expected prompt or prompt_ids beside them, got messages"),
        (Request(media=[PIXELS]), "got neither"),
        (Request(prompt="a", system="b"), "system: expected it inside prompt"),
        (Request(prompt=""), "at least one character"),
        (Request(prompt_ids=[]), "at least one token id"),
        (Request(messages={"role": "user"}), "expected a list"),  # type: ignore[arg-type]
        (
            Request(messages=[{"role": "user", "content": 3}]),
            r"messages\[0\].content: expected text or a list of parts, got 3",
        ),  # type: ignore[list-item]
        (Request(prompt="a", processor={"max_pixels": 4000}), "processor option 'max_pixels'"),
        (Request(), "expected a request with messages or a prompt, got none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_request_has_one_prompt(house: House, llava: Loaded, asked: Request, words: str) -> None:
    async def work() -> None:
        async with house.engine(llava) as engine:
            with pytest.raises(InputError, match=words):
                await engine.generate(asked, REPLY)

    house.run(work())


def test_limits_of_media_are_kept(house: House, llava: Loaded) -> None:
    async def work() -> None:
        async with house.engine(llava, limits_per_request={"image": 2, "video": 0}) as engine:
            three = Request(prompt="<image>" * 3, media=[PIXELS] * 3)
            with pytest.raises(InputError, match="^prompt: expected at most 2 images, got 3$"):
                await engine.generate(three, REPLY)
            parts = [{"type": "image", "image": PIXELS}] * 3
            with pytest.raises(InputError, match="^messages: expected at most 2 images, got 3$"):
                await engine.generate(Request(messages=[{"role": "user", "content": parts}]), REPLY)
            with pytest.raises(InputError, match="^prompt: expected at most 0 videos, got 1$"):
                await engine.generate(Request(prompt="<image>", media=[CLIP]), REPLY)
            assert await engine.generate(Request(prompt="<image>" * 2, media=[PIXELS] * 2), REPLY)
        for limits, words in (({"smell": 1}, "got 'smell'"), ({"image": -1}, "expected 0 or more for image, got -1")):
            with pytest.raises(InputError, match=words):
                async with house.engine(llava, limits_per_request=limits):
                    pass

    house.run(work())


def test_what_can_never_fit_is_refused_before_there_is_work(house: House) -> None:
    """A tiny picture that would be blown up, and words that would be cut into more tokens than there are rows."""
    room = 8192  # rows of the house's cache

    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            with pytest.raises(InputError, match=rf"'min_pixels': expected at most \d+, .* {room} rows, got {1 << 30}"):
                await engine.stream(Request(processor={"min_pixels": 1 << 30, "max_pixels": 1 << 30}))
            long, told = (
                "a" * (16 * room + 1),
                f"{room} rows: expected at most {16 * room} characters, got {16 * room + 1}",
            )
            with pytest.raises(ContextOverflowError, match=f"system: the cache holds {told}"):
                await engine.stream(Request(system=long))
            for name in ("role", "reasoning_content", "name"):
                asked = [{"role": "user", "content": "Well?", name: long}]
                with pytest.raises(ContextOverflowError, match="messages: the cache holds"):
                    await engine.stream(Request(messages=asked))
            for asked in ([{"role": "user", "content": ""}] * (room + 1), [{"role": "user", "content": TINY * room}]):
                with pytest.raises(ContextOverflowError, match=f"expected at most {room} messages and parts, got"):
                    await engine.stream(Request(messages=asked))
            with pytest.raises(ContextOverflowError, match=f"text: the cache holds {told}"):
                await stream.append(Text(long))
            with pytest.raises(ContextOverflowError, match=f"question: the cache holds {told}"):
                await stream.ask(long)
            assert await (await stream.ask("Well?", REPLY)).text()

    house.run(work())


def test_a_picture_of_more_rows_than_the_cache_has_is_not_encoded(house: House) -> None:
    async def work() -> None:
        large = Request(processor={"max_pixels": 200_000})
        async with house.engine(kv_tokens=64) as engine, await engine.stream(large) as stream:
            reader = Reader(stream)
            seq = await stream.append(Image(picture(1, 600, 600)))
            (error,) = await reader.see(Error)
            assert (error.code, error.seq, error.fatal) == ("context_overflow", seq, False)
            assert "the cache holds 64 rows for a stream: expected at most so many for one piece, got" in error.message
            assert engine._wiring.encode._encoder.encoded == 0
            asked = stream.ask("Well?", SamplingParams(max_tokens=2), ignore_failed=True)
            assert len(await (await asked).text())

    house.run(work())


def test_options_of_the_engine_hold_where_the_request_has_none(house: House) -> None:
    """For whole prompts and for what is appended alike."""

    async def rows(engine: Engine, **request: Any) -> list[int]:
        asked = Request(prompt=f"<|vision_bos|>{token}<|vision_eos|>", media=[big], params=REPLY, **request)
        async with await engine.stream(asked) as stream:
            await (await stream.prompted()).text()
            whole = sum(len(row.ids) for row in await stream.transcript() if row.seen)
        async with await engine.stream(Request(**request)) as stream:
            reader = Reader(stream)
            await stream.append(Image(big))
            await stream.ask("Well?", REPLY)
            await reader.see(ReplyDone)
            return [whole, *(event.rows for event in reader.events if isinstance(event, Appended))]

    big = picture(3, 200, 280)
    token = house.loaded.towers.processor.image_token  # type: ignore[attr-defined]
    small = {"min_pixels": 784, "max_pixels": 8000}
    large = {"min_pixels": 30_000, "max_pixels": 40_000}

    async def work() -> None:
        async with house.engine() as engine:
            asked = await rows(engine, processor=small)
            more = await rows(engine, processor=large)
        assert asked[0] == asked[1] < more[0] == more[1]
        async with house.engine(processor=small) as engine:
            assert await rows(engine) == asked
            assert await rows(engine, processor=large) == more
        with pytest.raises(InputError, match="'sharpness': expected one of those"):
            async with house.engine(processor={"sharpness": 2}):
                pass

    house.run(work())


def test_a_prompted_stream_goes_on(house: House, llava: Loaded) -> None:
    """Behind a prompt of the client's own comes a turn of the model's template."""

    async def work() -> None:
        async with house.engine(llava) as engine:
            async with await engine.stream(Request(prompt=QUESTION, media=[PIXELS], params=REPLY)) as stream:
                first = await (await stream.prompted()).text()
                await stream.append(Image(picture(2)))
                second = await (await stream.ask("And now?", REPLY)).text()
            assert first and second

    house.run(work())


def test_half_a_character_is_refused_and_the_reply_goes_on(house: House, llava: Loaded) -> None:
    """In a text, a question and a system prompt; no tokenizer takes it."""

    async def work() -> None:
        async with house.engine(llava) as engine:
            with pytest.raises(InputError, match=r"^system: expected Unicode text, got half a character .* at 2$"):
                await engine.stream(Request(system="a \ud83d"))
            stream = await engine.stream(Request(format="turns"))
            reply = await stream.ask("Who?", REPLY)
            with pytest.raises(InputError, match="^text: expected Unicode text"):
                await stream.append(Text("\ud83d"))
            with pytest.raises(InputError, match="^question: expected Unicode text"):
                await stream.ask("\udc00", REPLY)
            assert len([token async for token in reply]) == REPLY.max_tokens

    house.run(work())
