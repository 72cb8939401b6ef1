"""An encoder in another process. The law: an engine that asks it says what it says with towers of its own; also when
the encoder is killed under a stream and started again."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from encoder_process import EncoderProcess, Slow, encoding, towers_of
from penstock.actors.engine import Engine
from penstock.actors.remote import RemoteTowers
from penstock.engine.config import EngineConfig
from penstock.engine.encoding import decoder, encode
from penstock.engine.families.towers import PictureTowers
from penstock.engine.loading.open import load
from penstock.engine.loading.towers import load_towers
from penstock.engine.loading.weights import of_decoder
from penstock.engine.remote import EncodePieces, RefusedWork, RemotePiece, answer
from penstock.errors import ModelError
from penstock.server.engine_metrics import EngineCollector
from penstock.streams.event import Error
from penstock.streams.item import AudioChunk, Image, Text, VideoFrame
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import AudioSegment, ImageSegment, Segment, UnitSegment, VideoSegment
from penstock.streams.size import fit
from safetensors.torch import load_file, save_file
from websockets.asyncio.client import connect as open_socket

from tests.actors.watch import Reader, until
from tests.fixtures.loaded import served
from tests.fixtures.recipe import model_path
from tests.reference.media import frames, picture, sound

SHORT = SamplingParams(max_tokens=8, temperature=0)
TEXT = Request(messages=[{"role": "user", "content": "Hello."}], params=SHORT)


def setup(url: str, **config: Any) -> EngineConfig:
    return EngineConfig(kv_tokens=4096, encoder=url, **config)


def segments(name: str) -> list[tuple[int, Segment]]:
    """Media of two streams, of which one is louder, in turn."""
    spec = served(name).family.spec
    assert spec.image is not None
    found: list[tuple[int, Segment]] = [(1, ImageSegment(1, 0, picture(1, *fit(spec.image, 70, 90))))]
    if spec.video is not None:
        clip = frames(2, spec.temporal_patch, *fit(spec.video, 56, 84))
        found += [(2, VideoSegment(1, 0, clip, 0, 500_000)), (1, VideoSegment(2, 0, clip, 500_000, 1_000_000))]
    if spec.audio_rate:
        for place, (stream, gain) in enumerate(((1, 0.3), (2, 1.0), (1, 0.05), (2, 0.02))):
            block = gain * sound(place, 1.0)
            found.append((stream, AudioSegment(3 + place, 0, block, 0, 100, 0, 0, 1_000_000)))
        clip = frames(3, 2 * spec.temporal_patch, 56, 84)
        block = 0.1 * sound(7, spec.block_samples / spec.audio_rate)
        inside = AudioSegment(9, 0, block, 0, spec.block_samples // spec.hop_samples, 0, 0, 1_000_000)
        found.append((1, UnitSegment(9, 0, clip, inside, 0, 1_000_000)))
    return found


def remote(engine: Engine) -> RemoteTowers:
    towers = engine._wiring._remote
    assert towers is not None
    return towers


def assert_same(ours: Any, theirs: Any) -> None:
    assert encode(ours[0]) == encode(theirs[0])  # the spans
    assert torch.equal(ours[1].rows, theirs[1].rows)
    assert (ours[1].deep is None) == (theirs[1].deep is None)
    assert ours[1].deep is None or torch.equal(ours[1].deep, theirs[1].deep)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3_omni", "gemma3", "llava_onevision", "smolvlm")]


@pytest.mark.parametrize("name", ["omni", "qwen3_vl", *SLOW])
def test_spans_from_the_service_are_those_of_own_towers(name: str) -> None:
    own = served(name).towers
    streams = {1: 71_001, 2: 71_002}
    pieces = segments(name)

    async def work() -> None:
        async with encoding(name) as process:
            async with await Engine.load(model_path(name), config=setup(process.url)) as engine:
                towers = remote(engine)
                for batch in (pieces[:3], *([piece] for piece in pieces[3:])):
                    local = own.encode([(streams[stream], piece) for stream, piece in batch])
                    far = await asyncio.to_thread(towers.encode, batch)
                    for ours, theirs in zip(local, far, strict=True):
                        assert_same(ours, theirs)
                assert [towers.loudest(one) for one in streams] == [own.loudest(two) for two in streams.values()]

    try:
        asyncio.run(work())
    finally:
        for stream in streams.values():
            own.forget(stream)


def test_an_encoder_keeps_nothing_of_a_stream() -> None:
    towers: Any = towers_of("omni").towers
    block = AudioSegment(1, 0, sound(1, 1.0), 0, 100, 0, 0, 1_000_000)
    answer(towers, EncodePieces([RemotePiece(1, block)]))
    assert not towers._loudest


async def film(stream: Any, first: int = 0) -> None:
    """A second of pictures and sound, and a still."""
    for place in range(first, first + 2):
        await stream.append(VideoFrame(frames(4, 8, 56, 84)[place], place * 500_000))
    await stream.append(AudioChunk(sound(first, 1.0), 16_000, first * 500_000))
    await stream.append(Image(picture(first + 1, 70, 90)))


async def told(engine: Engine, at: Any = None) -> list[Any]:
    """What an engine says about two seconds of media; `at` is called between them."""
    async with await engine.stream(Request(format="turns", window=None)) as stream:
        await film(stream)
        found: list[Any] = [await (await stream.ask("What is it?", SHORT)).text()]
        if at is not None:
            await at(stream)
        await film(stream, 2)
        found.append(await (await stream.ask("And now?", SHORT)).text())
        return found + [(row.ids, row.positions) for row in await stream.transcript()]


def prompt() -> Request:
    parts = [{"type": "image", "image": picture(5, 70, 90)}, {"type": "text", "text": "What is it?"}]
    return Request(messages=[{"role": "user", "content": parts}], params=SHORT)


def test_engines_that_share_an_encoder_say_what_they_say_with_towers() -> None:
    async def work() -> None:
        async with await Engine.load(model_path("omni"), config=EngineConfig(kv_tokens=4096)) as whole:
            wanted, answered = await told(whole), await whole.generate(prompt())
            weights = whole.info.memory.weight_bytes
        async with encoding("omni") as process:
            engines = [await Engine.load(model_path("omni"), config=setup(process.url)) for _ in range(2)]
            try:
                assert await asyncio.gather(*map(told, engines)) == [wanted, wanted]
                assert [await engine.generate(prompt()) for engine in engines] == [answered] * 2
                assert all(engine.info.memory.weight_bytes < weights for engine in engines)
                figures = engines[0].statistics()
                assert figures["encoder"]["here"] and figures["encoder"]["seconds"] > 0
                assert figures["usage"]["encode_seconds"] > 0
                assert engines[0].info.encoder == process.url and engines[0].info.modalities == whole.info.modalities
                shown = {metric.name: metric.samples for metric in EngineCollector(lambda: figures, bool).collect()}
                here, lost = (shown[f"penstock_encoder_{name}"][0].value for name in ("here", "lost"))
                assert (here, lost) == (1, 0)
            finally:
                for engine in engines:
                    await engine.close()

    asyncio.run(work())


def test_an_encoder_that_is_killed_under_a_stream_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    slow = Slow(towers_of("omni").towers)
    caplog.set_level(logging.INFO, "penstock.actors")

    async def work() -> None:
        process = EncoderProcess()
        await process.start(towers_of("omni"))

        async def killed(stream: Any) -> None:
            """The next question is lost in the middle of it; what comes meanwhile waits."""
            await process.end()
            await process.start(towers_of("omni")._replace(towers=slow))
            first = process.service
            asking = asyncio.create_task(stream.append(Image(picture(9, 70, 90))))
            await asyncio.to_thread(slow.begun.wait, 20)
            await process.stop()
            await asking
            slow.go.set()
            await asyncio.to_thread(first.stop)
            await until(lambda: engine.statistics()["encoder"]["held"] > 0)
            assert await engine.generate(TEXT)  # words need no encoder
            await stream.append(AudioChunk(0.01 * sound(3, 1.0), 16_000, 900_000))
            await process.start(towers_of("omni"))

        async def still(stream: Any) -> None:
            await stream.append(Image(picture(9, 70, 90)))
            await stream.append(AudioChunk(0.01 * sound(3, 1.0), 16_000, 900_000))

        try:
            async with await Engine.load(model_path("omni"), config=EngineConfig(kv_tokens=4096)) as whole:
                wanted = await told(whole, still)
            async with await Engine.load(model_path("omni"), config=setup(process.url)) as engine:
                assert await told(engine, killed) == wanted
                assert engine.statistics()["encoder"]["lost"] == 2
                assert engine.statistics()["encoder"]["held"] == 0
        finally:
            await process.end()

    asyncio.run(work())
    lines = [record.getMessage() for record in caplog.records if record.name == "penstock.actors"]
    assert any("media waits for it" in line for line in lines)
    assert any("the encoder is there again" in line for line in lines)


def test_media_waits_for_so_long_and_is_refused_then() -> None:
    async def work() -> None:
        process = EncoderProcess()
        await process.start(towers_of("omni"))
        config = setup(process.url, encoder_seconds=0.2)
        async with await Engine.load(model_path("omni"), config=config) as engine:
            await process.end()
            async with await engine.stream(Request(format="turns")) as stream:
                reader = Reader(stream)
                seq = await stream.append(Image(picture(1, 70, 90)))
                (error,) = await reader.see(Error)
                assert (error.code, error.seq, error.fatal) == ("encoder_away", seq, False)
                assert "expected the encoder within the time that media waits for it, got none: encoder ws://127" in (
                    error.message
                )
                with pytest.raises(Exception, match="expected the encoder within the time") as refused:
                    await engine.generate(prompt())
                assert getattr(refused.value, "code", "") == "encoder_away"
                await stream.append(Text("There is a door."))
                assert await (await stream.ask("What is there?", SHORT, ignore_failed=True)).text()
                await process.start(towers_of("omni"))
                await stream.append(Image(picture(1, 70, 90)))
                assert await (await stream.ask("What is it?", SHORT)).text()
                assert len(reader.of(Error)) == 1
        await process.end()

    asyncio.run(work())


def test_an_engine_that_stops_does_not_wait_for_its_encoder() -> None:
    slow = Slow(towers_of("omni").towers)

    async def work() -> None:
        process = EncoderProcess()
        await process.start(towers_of("omni")._replace(towers=slow))
        async with await Engine.load(model_path("omni"), config=setup(process.url)) as engine:
            stream = await engine.stream(Request())
            await stream.append(Image(picture(1, 70, 90)))
            await asyncio.to_thread(slow.begun.wait, 20)
        slow.go.set()  # only now
        await process.end()

    asyncio.run(asyncio.wait_for(work(), 20))


def copy_with(tmp_path: Path, change: Any) -> Path:
    """A copy of the model whose weights are changed."""
    folder = tmp_path / "other"
    shutil.copytree(model_path("omni"), folder)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_towers_are_named_by_what_they_are(tmp_path: Path) -> None:
    def decoder_changed(weights: dict[str, torch.Tensor]) -> None:
        for name in filter(of_decoder, weights):
            weights[name] = weights[name] + 1

    tuned = load_towers(copy_with(tmp_path / "a", decoder_changed), EngineConfig())
    assert tuned.fingerprint == towers_of("omni").fingerprint
    names = [name for name in load_file(model_path("omni") / "model.safetensors") if not of_decoder(name)]
    assert len(names) > 20

    def tower_changed(weights: dict[str, torch.Tensor]) -> None:
        weights[names[-1]] = weights[names[-1]] * 1.5

    other = load_towers(copy_with(tmp_path / "b", tower_changed), EngineConfig())
    assert other.fingerprint != towers_of("omni").fingerprint
    assert isinstance(other.towers, PictureTowers)
    model = other.towers.model
    assert not [weight for weight in model.visual.parameters() if weight.is_meta]
    assert all(weight.is_meta for weight in model.language_model.parameters())


REFUSED = {
    "another tower": ({"fingerprint": "0123"}, {}, "expected towers with the fingerprint [0-9a-f]{32}, got 0123"),
    "another type": ({"dtype": "bfloat16"}, {}, r"expected towers in float32, got bfloat16 \(.*omni"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_encoder_is_refused_with_both(name: str) -> None:
    fields, config, why = REFUSED[name]

    async def work() -> None:
        process = EncoderProcess()
        await process.start(towers_of("omni")._replace(**fields))
        with pytest.raises(ModelError, match=why):
            await Engine.load(model_path("omni"), config=setup(process.url, encoder_seconds=0.1, **config))
        await process.end()

    asyncio.run(work())


def test_who_shows_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("open sesame\n")
    (tmp_path / "wrong").write_text("sesame\n")

    async def work() -> None:
        async with encoding("omni", api_key="open sesame") as process:
            for file in (None, str(tmp_path / "wrong")):
                with pytest.raises(ModelError, match="refused with 401: .*expected an API key"):
                    config = setup(process.url, encoder_key_file=file, encoder_seconds=0.1)
                    await Engine.load(model_path("omni"), config=config)
            config = setup(process.url, encoder_key_file=str(tmp_path / "key"))
            async with await Engine.load(model_path("omni"), config=config) as engine:
                assert await engine.generate(prompt())
                assert b"penstock_encode_engines 1.0" in await metrics(process)

    asyncio.run(work())


async def metrics(process: EncoderProcess) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(process.url.rsplit(":")[-1]))
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    data = await reader.read()
    writer.close()
    return data


def test_what_is_no_question_is_refused_and_the_encoder_goes_on() -> None:
    async def work() -> None:
        async with encoding("omni") as process, open_socket(f"{process.url}/v1/encode") as socket:
            await socket.recv()
            for data in (b"\x80\x04pickle", b"", msgspec.msgpack.encode({"type": "pieces", "pieces": 3})):
                await socket.send(data)
                said = decoder(RefusedWork).decode(await socket.recv(decode=False))
                assert said.code == "message" and "expected pieces or a prompt" in said.message
            wrong = EncodePieces([RemotePiece(1, ImageSegment(1, 0, np.zeros((3, 3), np.uint8)))])
            await socket.send(encode(wrong))
            assert decoder(RefusedWork).decode(await socket.recv(decode=False)).code == "input"
            with pytest.raises(Exception, match="1009|message too big"):
                await socket.send(bytes((1 << 24) + 1))
                await socket.recv()

    asyncio.run(work())


def test_a_piece_that_is_too_large_for_the_encoder_is_refused_and_not_sent_for_ever() -> None:
    async def work() -> None:
        async with encoding("omni") as process:
            async with await Engine.load(model_path("omni"), config=setup(process.url)) as engine:
                towers = remote(engine)
                large = ImageSegment(1, 0, np.zeros((4000, 4000, 3), np.uint8))
                with pytest.raises(Exception, match=r"expected at most 16777216 bytes, got 48\d+"):
                    await asyncio.to_thread(towers.encode, [(1, large)])
                assert await engine.generate(prompt())

    asyncio.run(work())


@pytest.mark.parametrize(
    ("name", "config", "why"),
    [
        (
            "text",
            {"encoder": "ws://127.0.0.1:1"},
            "expected a model that takes media, got qwen2, which takes text only",
        ),
        ("omni", {"encoder": "127.0.0.1:8001"}, "encoder: expected an address, ws://host:port or wss://host:port, got"),
        (
            "omni",
            {"encoder": "ws://127.0.0.1:1", "encoder_seconds": 0.1},
            "encoder ws://127.0.0.1:1: cannot be reached",
        ),
        ("omni", {"encoder": "ws://127.0.0.1:1", "encoder_key_file": "/nowhere"}, "encoder_key_file: expected a file"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(name: str, config: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        asyncio.run(Engine.load(model_path(name), config=EngineConfig(**config)))


def test_a_model_without_towers_is_not_encoded() -> None:
    with pytest.raises(ModelError, match="expected a model that takes media, got qwen2, which takes text only"):
        load_towers(model_path("text"), EngineConfig())


def test_the_towers_of_a_tied_model_are_loaded_alone(tmp_path: Path) -> None:
    """Its output layer is its embedding: neither is there for the towers, and both are for the decoder."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(model_path("qwen2_vl"))
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(model_path("qwen2_vl")).save_pretrained(tmp_path)
    assert load_towers(tmp_path, EngineConfig()).nbytes == towers_of("qwen2_vl").nbytes
    whole, alone = load(tmp_path, EngineConfig()), load(tmp_path, EngineConfig(language_only=True))
    assert torch.equal(whole.head.weight, alone.head.weight)
