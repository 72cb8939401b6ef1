"""What streams have cost reaches the client, the log and `/metrics`, also where the client has vanished."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from harness import get_bytes, run, serving, until
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.server.client import connect
from penstock.streams.event import Closed, Token, Usage
from penstock.streams.item import Image
from penstock.streams.requests.request import Request, SamplingParams
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.recipe import model_path
from tests.reference.media import picture


def test_the_sums_of_a_key_are_the_engines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.server")
    usages: list[Usage] = []
    known: dict[str, Any] = {}
    figures: dict[str, float] = {}
    rows: dict[str, float] = {}  # by modality

    async def main() -> None:
        async with Engine(load(model_path("omni"), EngineConfig()), EngineConfig()) as engine, serving(engine) as url:
            async with connect(url) as connection:
                stream = await connection.stream(Request())
                await stream.append(Image(picture(1)))
                await (await stream.ask("What?", SamplingParams(max_tokens=3))).text()
                await stream.close()
                usages.extend([event.usage async for event in stream if isinstance(event, Closed) and event.usage])
            async with connect(url, resume=False) as connection:  # and goes while a reply runs
                stream = await connection.stream(Request())
                await stream.ask("What?", SamplingParams(max_tokens=4000, ignore_eos=True))
                async for event in stream:
                    if isinstance(event, Token):
                        break
            await until(lambda: not engine.statistics()["streams"] and len(ends()) == 2)
            known.update(engine.statistics()["usage"])
            _, body = await get_bytes(url, "/metrics")
            families = text_string_to_metric_families(body.decode())
            told = [sample for family in families for sample in family.samples]
            figures.update({sample.name: sample.value for sample in told})
            rows.update(
                {sample.labels["modality"]: sample.value for sample in told if sample.name == "penstock_key_rows_total"}
            )

    def ends() -> list[Any]:
        return [record for record in caplog.records if record.getMessage().startswith("stream end")]

    run(main)
    (usage,) = usages
    first, second = ends()
    assert (first.rows, first.refed, first.dropped) == (usage.rows, 0, {}) and usage.rows["image"] > 0
    assert first.encode_seconds == round(usage.encode_seconds, 3) > 0
    assert second.reason == "client gone" and second.step_seconds > 0 and second.rows["text"] > 0
    assert usage.rows["text"] + second.rows["text"] == known["rows"]["text"]
    assert rows == known["rows"]
    for name in ("encode", "step"):
        assert figures[f"penstock_key_{name}_seconds_total"] == pytest.approx(known[f"{name}_seconds"])
        assert figures[f"penstock_{name}_seconds_total"] == known[f"{name}_seconds"]
