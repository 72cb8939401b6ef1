"""Grammars are compiled beside the event loop, before anything is asked; calls keep their order meanwhile."""

from __future__ import annotations

import asyncio
import copy
import gc
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from penstock.engine.family import Loaded
from penstock.engine.words import grammar
from penstock.engine.words.grammar import Grammars
from penstock.errors import InputError
from penstock.streams.event import Error, ReplyDone, Token
from penstock.streams.item import Text
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.requests.structured import Structured
from penstock.streams.requests.turns import TurnDetection

from tests.actors.conftest import House
from tests.actors.test_turns import say, spoken
from tests.actors.watch import WORDS, Reader, quiet, shots

WORD = re.compile("[a-z]{3}-[0-9]{12}")
BAD = SamplingParams(structured=Structured(json_schema={"type": "foo"}))
PLACE = "^params.structured.json_schema: Invalid type: foo"


def words(number: int = 12, **params: Any) -> SamplingParams:
    structured = Structured(regex=f"[a-z]{{3}}-[0-9]{{{number}}}")
    return SamplingParams(**{"max_tokens": 60, "temperature": 1.0, "seed": 3, **params}, structured=structured)


@pytest.fixture
def fresh(loaded: Loaded) -> Callable[[], Loaded]:
    """Gives the model with a grammar compiler that has compiled nothing."""

    def make() -> Loaded:
        family = copy.copy(loaded.family)
        family.grammars = Grammars(family.tokenizer, family.data.vocabulary, family.stop_ids)
        return loaded._replace(family=family)

    return make


def test_what_cannot_be_compiled_is_refused_before_anything_happens(house: House) -> None:
    async def work() -> None:
        async with house.engine() as engine, await engine.stream() as stream:
            reader = Reader(stream)
            for _ in range(2):
                with pytest.raises(InputError, match=PLACE):
                    await stream.ask(WORDS, BAD)
            for call in (
                engine.stream(Request(params=BAD)),
                engine.generate(Request(messages=[{"role": "user", "content": WORDS}]), BAD),
                stream.fork(again=BAD),
            ):
                with pytest.raises(InputError, match=PLACE):
                    await call
            with pytest.raises(InputError, match="expected exactly one of json_schema, .*, got regex and choice"):
                await stream.ask(WORDS, SamplingParams(structured=Structured(regex="a", choice=["b"])))
            assert stream.next_seq() == 1
            assert WORD.fullmatch(await (await stream.ask(WORDS, words())).text())
            assert not reader.of(Error)

    house.run(work())


def test_the_loop_goes_on_and_calls_keep_their_order(
    house: House, fresh: Callable[[], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question is in before what is appended after it, and an interrupt meanwhile is for it."""
    loaded, held, begun = fresh(), threading.Event(), threading.Event()
    plain = Grammars._made

    def slow(self: Grammars, name: str, text: str) -> Any:
        begun.set()
        assert held.wait(20)
        return plain(self, name, text)

    monkeypatch.setattr(Grammars, "_made", slow)

    async def work() -> None:
        async with house.engine(loaded) as engine, await engine.stream(Request(format="turns")) as stream:
            calls: list[asyncio.Task[Any]] = []
            for call in (
                stream.ask(WORDS, words()),
                stream.append(Text("More.")),
                stream.fork(),
                stream.append(shots(1, 1)[0]),
            ):
                calls.append(asyncio.create_task(call))
                await asyncio.sleep(0)
            await asyncio.to_thread(begun.wait)
            assert stream.next_seq() == 1
            async with await engine.stream() as other:
                await (await other.ask(WORDS, SamplingParams(max_tokens=3))).text()
            await stream.interrupt()
            held.set()
            reply, text, twin, frame = await asyncio.gather(*calls)
            assert (reply.seq, text, frame) == (1, 2, 3)
            assert twin.next_seq() == 3
            assert (await reply.text(), reply.reason) == ("", "interrupted")
            assert WORD.fullmatch(await (await stream.ask(WORDS, words())).text())
            await twin.close()
            # A cancelled question is not asked, and nothing waits for it.
            held.clear()
            begun.clear()
            task = asyncio.create_task(stream.ask(WORDS, words(5)))
            await asyncio.to_thread(begun.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await stream.append(Text("Still here.")) == 5
            held.set()

    house.run(work())


def test_no_grammar_is_compiled_twice_while_somebody_may_still_ask_with_it(
    house: House, fresh: Callable[[], Loaded], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """However many others come meanwhile: those of a question that waits, of its copies, and of a stream that listens.
    They would be compiled on the event loop."""
    monkeypatch.setattr(grammar, "_KEPT", 1)
    plain, made = Grammars._made, list[tuple[str, str]]()

    def noted(self: Grammars, name: str, text: str) -> Any:
        made.append((threading.current_thread().name, text))
        return plain(self, name, text)

    monkeypatch.setattr(Grammars, "_made", noted)

    async def others(engine: Any) -> None:
        for letter in "uvw":
            await engine.compiling.compile([Structured(regex=letter)])

    async def work() -> None:
        async with house.engine(fresh()) as engine:
            listens = await engine.stream(
                Request(format="turns", params=words(4), turn_detection=TurnDetection(detector="energy"))
            )
            async with listens, await engine.stream(Request(format="turns")) as stream:
                reply = await stream.ask(WORDS, words(150, max_tokens=400))
                later = asyncio.create_task(stream.ask("And now?", words(5)))
                await asyncio.sleep(0)
                twin = await stream.fork()
                await stream.snapshot(tmp_path / "here")
                await others(engine)
                reader = Reader(twin)
                assert re.fullmatch("[a-z]{3}-[0-9]{150}", await reply.text())
                assert re.fullmatch("[a-z]{3}-[0-9]{5}", await (await later).text())
                await reader.see(ReplyDone, 2)
                await others(engine)
                reader = Reader(listens)
                await say(listens, spoken())
                await reader.see(ReplyDone)
                assert re.fullmatch("[a-z]{3}-[0-9]{4}", "".join(token.text for token in reader.of(Token)))
                await twin.close()
            await quiet(engine)
            assert made and [text for _, text in made].count("[a-z]{3}-[0-9]{5}") == 1
            gc.collect()
            await others(engine)
            await engine.compiling.compile([words(5).structured or Structured()])
            assert [text for _, text in made].count("[a-z]{3}-[0-9]{5}") == 2  # nobody asks with it any more
        async with house.engine(fresh()) as engine, await engine.restore(tmp_path / "here") as restored:
            await others(engine)
            await Reader(restored).see(ReplyDone, 2)
        assert {thread.partition("_")[0] for thread, _ in made} == {"penstock-grammar"}

    house.run(work())


def test_without_the_package_it_is_said_what_to_install(
    house: House, fresh: Callable[[], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with house.engine(fresh()) as engine, await engine.stream() as stream:
            monkeypatch.setitem(sys.modules, "llguidance", None)
            with pytest.raises(InputError, match=re.escape('pip install "penstock[grammar]"')):
                await stream.ask(WORDS, words())

    house.run(work())


def test_a_copy_of_a_running_reply_goes_on_in_its_grammar(
    house: House, fresh: Callable[[], Loaded], tmp_path: Path
) -> None:
    """A fork, a restored snapshot, with a question that waits; and the reply to a prompt once more."""
    messages = [{"role": "user", "content": "Tell me about it. " * 3}]

    async def work() -> None:
        async with house.engine() as engine:
            async with await engine.stream(
                Request(messages=messages, format="turns", params=words(150, max_tokens=400))
            ) as stream:
                reply = await stream.prompted()
                await anext(aiter(reply))
                later = asyncio.create_task(stream.ask("And now?", words(5)))
                await asyncio.sleep(0)
                twin = await stream.fork()
                copied = twin.reply
                await stream.snapshot(tmp_path / "here")
                again = await stream.fork(again=words(7, seed=9))
                expected = [await reply.text(), await (await later).text()]
                assert re.fullmatch("[a-z]{3}-[0-9]{7}", await (await again.prompted()).text())
                assert copied is not None
                text = await copied.text()
                assert text and expected[0].endswith(text)
                await twin.close()
                await again.close()
        assert re.fullmatch("[a-z]{3}-[0-9]{150}", expected[0])
        assert re.fullmatch("[a-z]{3}-[0-9]{5}", expected[1])
        async with house.engine(fresh()) as engine, await engine.restore(tmp_path / "here") as restored:
            reader = Reader(restored)
            assert restored.reply is not None
            text = await restored.reply.text()
            assert text and expected[0].endswith(text)
            await reader.see(ReplyDone, 2)
            assert [event.reason for event in reader.of(ReplyDone)] == ["stop", "stop"]
            last = reader.of(ReplyDone)[1].reply
            assert "".join(token.text for token in reader.of(Token) if token.reply == last) == expected[1]
            await quiet(engine)

    house.run(work())


def test_a_reply_that_its_grammar_ends_raises_why(
    house: House, fresh: Callable[[], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(grammar._LIMITS, "max_lexer_states", 40)
    params = SamplingParams(structured=Structured(regex="([ab]*a[ab]{9}c)+"), max_tokens=400, temperature=2.0, seed=1)

    async def work() -> None:
        async with house.engine(fresh()) as engine, await engine.stream(Request(format="turns")) as stream:
            reply = await stream.ask(WORDS, params)
            with pytest.raises(InputError, match="too many states"):
                await reply.text()
            assert reply.reason == "error"
            assert await (await stream.ask(WORDS, SamplingParams(max_tokens=3, ignore_eos=True))).text()

    house.run(work())
