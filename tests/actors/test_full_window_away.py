"""A stream whose window is full and whose rows lie in host memory, as those of a restored one do, is asked."""

from __future__ import annotations

from pathlib import Path

from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.requests.window import Window

from tests.actors.conftest import House
from tests.actors.watch import WORDS, ids, quiet, shots

SIX = SamplingParams(max_tokens=6, ignore_eos=True)


def test_what_has_to_leave_for_a_question_has_left_before_it_is_fed(house: House, tmp_path: Path) -> None:
    async def work() -> None:
        async with house.engine(kv_tokens=1024, page_tokens=16) as engine:
            request = Request(format="turns", window=Window(rows=160, text_rows=20))
            async with await engine.stream(request) as stream:
                for place, frame in enumerate(shots(1, 40)):
                    await stream.append(frame)
                    if place % 8 == 7:
                        await ids(await stream.ask(WORDS, SIX))
                await quiet(engine)
                assert engine.statistics()["window_by_stream"][stream.id]["rows"] > 150
                await stream.snapshot(tmp_path / "full")
                async with await engine.restore(tmp_path / "full") as again:
                    told = await ids(await again.ask(WORDS, SIX))
                assert told == await ids(await stream.ask(WORDS, SIX))

    house.run(work())
