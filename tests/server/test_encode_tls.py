"""An encoder behind TLS: an engine trusts whom its machine trusts, or the file that SSL_CERT_FILE names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from encoder_process import encoding
from penstock.actors.engine import Engine
from penstock.errors import ModelError
from test_encode_service import SHORT, prompt, setup
from test_tls import CERT, KEY, files

from tests.fixtures.recipe import model_path


def test_media_goes_over_tls_to_an_encoder_whose_certificate_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = files(tmp_path, CERT, KEY)

    async def work() -> None:
        async with encoding("qwen3_vl", **made) as process:
            url = process.url.replace("ws://", "wss://")
            with pytest.raises(ModelError, match=r"expected a certificate .*SSL_CERT_FILE.*got .*self-signed"):
                await Engine.load(model_path("qwen3_vl"), config=setup(url, encoder_seconds=0.1))
            monkeypatch.setenv("SSL_CERT_FILE", made["tls_cert"])
            with pytest.raises(ModelError, match=r"expected a certificate .*got .*0.0.0.0"):
                elsewhere = url.replace("127.0.0.1", "0.0.0.0")
                await Engine.load(model_path("qwen3_vl"), config=setup(elsewhere, encoder_seconds=0.1))
            async with await Engine.load(model_path("qwen3_vl"), config=setup(url)) as engine:
                assert await engine.generate(prompt(), SHORT)
                assert engine.statistics()["encoder"]["here"]

    asyncio.run(work())
