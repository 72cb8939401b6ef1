"""An encoder in another process for a model that is tried. The engine opens the decoder alone and tries nothing: what
the trial has found comes over the connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from encoder_process import EncoderProcess, encoding
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.families.trial import FamilyTrial
from penstock.engine.loading.towers import LoadedTowers, load_towers
from penstock.errors import ModelError
from penstock.streams.item import AudioChunk, Image, VideoFrame
from penstock.streams.requests.request import Request
from test_encode_service import SHORT, prompt, setup

from tests.actors.watch import until
from tests.families.built import BUILDERS
from tests.reference.media import frames, picture, sound


# Pictures; pictures one by one, video and sound in clips.
@pytest.fixture(scope="module", params=["vipllava", pytest.param("gemma4", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return BUILDERS[request.param].build(tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def far(folder: Path) -> LoadedTowers:
    return load_towers(folder, EngineConfig())


async def show(engine: Engine, stream: Any, place: int) -> None:
    """A second of each kind that may come in a stream."""
    await stream.append(Image(picture(place, 70, 90)))
    if "video" in engine.info.classes:
        for number, pixels in enumerate(frames(4, 2, 56, 84)):
            await stream.append(VideoFrame(pixels, place * 1_000_000 + number * 500_000))
    if "audio" in engine.info.classes:
        await stream.append(AudioChunk(sound(place, 1.0), 16_000, place * 1_000_000))


async def told(engine: Engine, at: Any = show) -> list[Any]:
    """What an engine says of three seconds; the second is shown by `at`."""
    async with await engine.stream(Request(format="turns", window=None)) as stream:
        said: list[Any] = []
        for place, shows in enumerate((show, at, show)):
            await shows(engine, stream, place)
            said.append(await (await stream.ask("What is it?", SHORT)).text())
        return said + [(row.ids, row.positions) for row in await stream.transcript()]


def test_engines_that_share_an_encoder_which_is_killed_say_what_the_whole_model_says(
    folder: Path, far: LoadedTowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = EncoderProcess()
    engines: list[Engine] = []

    async def killed(engine: Engine, stream: Any, place: int) -> None:
        """Media waits until the encoder is there again."""
        ends = engine is engines[0]
        if ends:
            await process.end()
        await show(engine, stream, place)
        if ends:
            await until(lambda: engine.statistics()["encoder"]["held"] > 0)
            await process.start(far)

    async def work() -> None:
        async with await Engine.load(folder, config=EngineConfig(kv_tokens=4096)) as whole:
            wanted, answered = await told(whole), await whole.generate(prompt())
            weights = whole.info.memory.weight_bytes
        monkeypatch.setattr(FamilyTrial, "run", None)
        await process.start(far)
        try:
            engines.extend([await Engine.load(folder, config=setup(process.url)) for _ in range(2)])
            assert [await engine.generate(prompt()) for engine in engines] == [answered] * 2
            assert all(engine.info.memory.weight_bytes < weights for engine in engines)
            assert await asyncio.gather(*(told(engine, killed) for engine in engines)) == [wanted] * 2
            assert all(engine.statistics()["encoder"]["lost"] for engine in engines)
        finally:
            for engine in engines:
                await engine.close()
            await process.end()

    asyncio.run(work())


def test_an_encoder_of_another_model_has_found_nothing_of_use(folder: Path, far: LoadedTowers) -> None:
    async def refused(process: EncoderProcess, why: str, **config: Any) -> None:
        with pytest.raises(ModelError, match=why):
            await Engine.load(folder, config=setup(process.url, encoder_seconds=0.1, **config))

    async def work() -> None:
        async with encoding("omni") as process:
            await refused(process, "expected an encoder of this model, which is tried, got one that")
        process = EncoderProcess()
        assert far.findings is not None
        await process.start(far._replace(fingerprint="0123"))
        await refused(process, "expected towers with the fingerprint [0-9a-f]{32}, got 0123")
        template = folder / "other.jinja"
        template.write_text("{{ bos_token }}" + far.findings.template)
        await refused(process, "chat_template: expected the one with which", chat_template=str(template))
        await process.end()

    asyncio.run(work())
