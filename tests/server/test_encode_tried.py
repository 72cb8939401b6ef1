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
from penstock.streams.item import AudioChunk, Image
from test_encode_service import prompt, setup, told

from tests.actors.watch import until
from tests.families.built import BUILDERS
from tests.reference.media import picture, sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures one by one, video and sound in clips."""
    return BUILDERS["gemma4"].build(tmp_path_factory.mktemp("gemma4"))


@pytest.fixture(scope="module")
def far(folder: Path) -> LoadedTowers:
    return load_towers(folder, EngineConfig())


async def more(stream: Any) -> None:
    await stream.append(Image(picture(9, 70, 90)))
    await stream.append(AudioChunk(0.01 * sound(3, 1.0), 16_000, 900_000))


def test_engines_that_share_an_encoder_which_is_killed_say_what_the_whole_model_says(
    folder: Path, far: LoadedTowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = EncoderProcess()
    engines: list[Engine] = []
    gone = asyncio.Event()

    async def killed(stream: Any) -> None:
        """Media that both show waits until it is there again."""
        if not gone.is_set():
            gone.set()
            await process.end()
            await more(stream)
            await until(lambda: engines[0].statistics()["encoder"]["held"] > 0)
            await process.start(far)
        else:
            await more(stream)

    async def work() -> None:
        async with await Engine.load(folder, config=EngineConfig(kv_tokens=4096)) as whole:
            wanted, answered = await told(whole, more), await whole.generate(prompt())
            weights = whole.info.memory.weight_bytes
        monkeypatch.setattr(FamilyTrial, "run", None)
        await process.start(far)
        try:
            engines.extend([await Engine.load(folder, config=setup(process.url)) for _ in range(2)])
            assert [await engine.generate(prompt()) for engine in engines] == [answered] * 2
            assert all(engine.info.memory.weight_bytes < weights for engine in engines)
            assert await asyncio.gather(*(told(engine, killed) for engine in engines)) == [wanted] * 2
            assert all(engine.statistics()["encoder"]["lost"] == 1 for engine in engines)
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
