"""Memory that runs out costs the one who asked for most; everybody else has the tokens that they would have had.

The fault is put in where torch would raise it: in the decoder of the language model, in a tower, in a copy to the host.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from penstock.engine.family import Loaded
from penstock.errors import OutOfMemoryError, PenstockError
from penstock.streams.event import Appended, Closed, Error, Token
from penstock.streams.item import Image
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import ImageSegment

from tests.actors.conftest import House
from tests.actors.watch import Reader, ids, until
from tests.engine.rig import Rig
from tests.reference.media import picture

SHORT = SamplingParams(max_tokens=4)
LONG = SamplingParams(max_tokens=120)
MANY_ROWS = 8  # more than two tokens, fewer than are appended beside them at once
MUCH = "what is there to see in this scene now ? " * 30

# Each gives or raises the error; the second and the last ask for more than there are addresses.
ERRORS: dict[str, Callable[[], Exception]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: too_large(lambda: torch.empty(1 << 60, dtype=torch.uint8)),
    "python": lambda: MemoryError(),
    "numpy": lambda: too_large(lambda: np.empty(1 << 60, dtype=np.uint8)),
}


def too_large(allocate: Callable[[], object]) -> Exception:
    allocate()
    raise AssertionError("there was room")


class Small:
    """A decoder for which memory holds steps of `rows` rows and no more, once `armed`."""

    def __init__(self, text: Any, rows: int, error: Callable[[], Exception]) -> None:
        self._text = text
        self._rows = rows
        self._error = error
        self.armed = False
        self.refused: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text, name)

    def __call__(self, **inputs: Any) -> Any:
        rows = inputs["inputs_embeds"].shape[1]
        if self.armed and rows > self._rows:
            self.refused.append(rows)
            self._text(**inputs)  # it has written keys and values of some layers by then
            raise self._error()
        return self._text(**inputs)


def quiet(caplog: pytest.LogCaptureFixture) -> Any:
    return caplog.at_level(logging.CRITICAL, "penstock")


async def beside(house: House, loaded: Loaded, greedy: bool) -> tuple[list[list[int]], list[Any]]:
    """Tokens of two replies beside which a third stream appends much; and what the third was told."""
    async with house.engine(loaded) as engine:
        streams = [await engine.stream() for _ in range(3)]
        for place, stream in enumerate(streams):
            await stream.append(Image(picture(place)))
        readers = [Reader(stream) for stream in streams]
        heat = 0.0 if greedy else 1.0
        params = [SamplingParams(max_tokens=120, temperature=heat, seed=seed, ignore_eos=True) for seed in (5, 6)]
        replies = [await stream.ask("What?", one) for stream, one in zip(streams, params, strict=False)]
        for reader in readers:
            await reader.see(Appended)
        for reader in readers[:2]:
            await reader.see(Token, 2)
        if isinstance(loaded.text, Small):
            loaded.text.armed = True
        try:
            third = await streams[2].ask(MUCH, SHORT)
            await third.text()
        except OutOfMemoryError as error:
            assert isinstance(loaded.text, Small) and "memory ran out" in str(error)
        said = [await ids(reply) for reply in replies]
        assert engine.failed is None
        if isinstance(loaded.text, Small):
            loaded.text.armed = False
        async with await engine.stream() as fresh:  # the engine goes on
            assert len(await ids(await fresh.ask("And?", SHORT))) == 4
        return said, readers[2].events


@pytest.mark.parametrize("kind", ERRORS)
def test_a_step_without_room_ends_the_stream_that_asked_for_most(
    house: House, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = Small(house.loaded.text, MANY_ROWS, ERRORS[kind])
    with quiet(caplog):
        said, told = house.run(beside(house, house.loaded._replace(text=small), greedy=kind != "cuda"))
    plain, _ = house.run(beside(house, house.loaded, greedy=kind != "cuda"))
    assert small.refused and small.refused[0] > MANY_ROWS
    assert said == plain and all(len(ids) == 120 for ids in said)
    assert [type(event) for event in told[-2:]] == [Error, Closed]
    error = told[-2]
    assert (error.code, error.fatal) == (OutOfMemoryError.code, True) and told[-1].reason == "error"


def test_other_errors_of_a_step_are_not_taken_for_it(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        broken = Small(house.loaded.text, 0, lambda: RuntimeError("an illegal memory access was encountered"))
        async with house.engine(house.loaded._replace(text=broken)) as engine, await engine.stream() as stream:
            broken.armed = True
            with pytest.raises(PenstockError, match="the engine has failed"):
                await (await stream.ask("What?", SHORT)).text()
            assert "illegal memory access" in str(engine.failed)

    with quiet(caplog):
        house.run(work())


def test_a_step_in_which_nobody_fits_ends_one_after_the_other(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        small = Small(house.loaded.text, 0, ERRORS["cuda"])
        async with house.engine(house.loaded._replace(text=small)) as engine:
            streams = [await engine.stream() for _ in range(3)]
            readers = [Reader(stream) for stream in streams]
            for stream in streams:
                await stream.ask("What?", SamplingParams(max_tokens=100_000))
            small.armed = True
            for reader in readers:
                await reader.task
                assert [error.code for error in reader.of(Error)] == ["out_of_memory"]
            small.armed = False
            async with await engine.stream() as fresh:
                assert len(await ids(await fresh.ask("And?", SHORT))) == 4

    with quiet(caplog):
        house.run(work())


class Narrow:
    """Towers for which memory holds no picture that is wider than high."""

    def __init__(self, towers: Any) -> None:
        self._towers = towers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._towers, name)

    def encode(self, batch: list[Any]) -> Any:
        for _, segment in batch:
            if isinstance(segment, ImageSegment) and segment.pixels.shape[1] > segment.pixels.shape[0]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self._towers.encode(batch)

    def prompt(self, *_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def test_an_input_without_room_in_the_encoder_fails_alone(house: House, caplog: pytest.LogCaptureFixture) -> None:
    high, wide = np.rot90(picture(1, 84, 56)).copy(), picture(2, 56, 84)
    if high.shape[1] > high.shape[0]:
        high = np.rot90(high).copy()

    async def work(loaded: Loaded) -> tuple[list[list[int]], list[Error]]:
        async with house.engine(loaded) as engine, await engine.stream() as stream, await engine.stream() as other:
            reader = Reader(stream)
            await stream.append(Image(high))
            if loaded is not house.loaded:
                await stream.append(Image(wide))
            await other.append(Image(high))
            replies = [await one.ask("What?", LONG, ignore_failed=True) for one in (stream, other)]
            said = [await ids(reply) for reply in replies]
            await until(lambda: not engine.statistics()["segments_waiting"])
            return said, reader.of(Error)

    with quiet(caplog):
        said, errors = house.run(work(house.loaded._replace(towers=Narrow(house.loaded.towers))))
    plain, none = house.run(work(house.loaded))
    assert said == plain and not none
    assert [(error.seq, error.code, error.fatal) for error in errors] == [(2, "out_of_memory", False)]
    assert "\n" not in errors[0].message


def test_a_prompt_without_room_in_the_encoder_is_told(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        loaded = house.loaded._replace(towers=Narrow(house.loaded.towers))
        request = Request(messages=[{"role": "user", "content": [{"type": "text", "text": "Hello."}]}])
        async with house.engine(loaded) as engine, await engine.stream(request) as stream:
            reader = Reader(stream)
            (error,) = await reader.see(Error)
            assert (error.code, error.seq, error.fatal) == ("out_of_memory", 1, False)

    with quiet(caplog):
        house.run(work())


@pytest.mark.parametrize("move", ["_save", "_restore"])
def test_pages_that_cannot_be_moved_cost_their_stream(
    loaded: Loaded, omni: tuple[Any, Any], move: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pages of an idle stream go to the host, or come back, and there is no room for them."""
    rig = Rig(loaded, kv_tokens=256, page_tokens=16)
    first, second = rig.open(), rig.open()

    def no_room(stream: int, pages: list[int]) -> None:
        assert stream == first.stream and pages
        raise MemoryError

    monkeypatch.setattr(rig.core.language.cache, move, no_room)
    first.text("hill " * 150)
    rig.run()
    second.text("door " * 150)
    second.ask("What?", max_tokens=8)
    with quiet(caplog):
        rig.run()
        if move == "_restore":
            assert first.stream in rig.core.scheduler.streams
            first.text("and more")
            rig.run()
    assert first.stream not in rig.core.scheduler.streams
    rig.core.scheduler.check()
    assert second.check(*omni) == 8
