"""What a reply says follows its grammar, whatever comes in between: media, forks, preemption, penalties, silence."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine.config import EngineConfig
from penstock.engine.core import make_parts
from penstock.engine.family import Loaded
from penstock.engine.scheduling.journal import Journal, replay
from penstock.engine.words import grammar
from penstock.errors import InputError
from penstock.streams.event import Error, ReplyDone, Resting, Token
from penstock.streams.requests.request import SamplingParams
from penstock.streams.requests.structured import Structured

from .acts import Client
from .rig import Rig, Session

PAIR = Structured(regex="[a-z]{3}-[0-9]{12}")
WORD = re.compile("[a-z]{3}-[0-9]{12}")


def said(session: Session, reply: int = 1) -> str:
    """The words of one reply that has ended."""
    told = [event for event in session.events if isinstance(event, Token | ReplyDone) and event.reply == reply]
    assert isinstance(told[-1], ReplyDone)
    kept = [event for event in told[:-1] if isinstance(event, Token)][: told[-1].tokens]
    return "".join(event.text for event in (*kept, told[-1]))


def answered(loaded: Loaded, structured: Structured, **params: Any) -> tuple[str, str]:
    """The words of one reply, and why it ended."""
    rig = Rig(loaded)
    session = rig.open(format="turns")
    session.ask("What?", structured=structured, **{"max_tokens": 400, "temperature": 1.0, "seed": 1, **params})
    rig.run()
    return said(session), session.ends()[0][0]


# ---- Schemas ---------------------------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-9, 9),
        st.integers(0, 50),
    ),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 6)),
    st.builds(
        lambda values: {"enum": values}, st.lists(st.sampled_from(["red", "ünder", 'a"b', 7, None, True]), min_size=1)
    ),
)


def _larger(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    items = st.builds(
        lambda one, least: {"type": "array", "items": one, "minItems": least, "maxItems": 3}, inner, st.integers(0, 2)
    )
    objects = st.builds(
        lambda fields, optional: {
            "type": "object",
            "properties": fields,
            "required": [name for name in fields if name not in optional],
            "additionalProperties": False,
        },
        st.dictionaries(st.sampled_from(["a", "b", "shape"]), inner, min_size=1, max_size=3),
        st.sets(st.sampled_from(["a", "b"])),
    )
    return st.one_of(items, objects)


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is what the schema says, for the schemas above."""
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    match schema["type"]:
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case "array":
            fits = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
            return fits and all(valid(one, schema["items"]) for one in value)
        case _:
            known = schema["properties"]
            fits = isinstance(value, dict) and set(schema["required"]) <= set(value) <= set(known)
            return fits and all(valid(one, known[name]) for name, one in value.items())


@given(
    schema=st.recursive(LEAVES, _larger, max_leaves=4),
    seed=st.integers(0, 99),
    temperature=st.sampled_from([0.0, 1.0, 3.0]),
)
@settings(max_examples=30)
def test_a_finished_reply_is_valid(text_loaded: Loaded, schema: dict[str, Any], seed: int, temperature: float) -> None:
    text, reason = answered(text_loaded, Structured(json_schema=schema), seed=seed, temperature=temperature)
    assert reason == "stop"
    assert valid(json.loads(text), schema)


@pytest.mark.parametrize(
    ("structured", "form"),
    [
        (Structured(choice=["red", "dark red", 'a "b"\n', "ü/\\"]), 'red|dark red|a "b"\n|ü/\\\\'),
        (Structured(regex="[a-c]{4}(x|yy)?"), "[a-c]{4}(x|yy)?"),
        (Structured(grammar='start: "go " COUNT\nCOUNT: /[0-9]{1,3}/'), "go [0-9]{1,3}"),
        (Structured(json_schema='{"type": "integer", "minimum": 5, "maximum": 7}'), "[567]"),
    ],
    ids=["choice", "regex", "grammar", "schema as text"],
)
def test_each_kind(text_loaded: Loaded, structured: Structured, form: str) -> None:
    for seed in range(5):
        text, reason = answered(text_loaded, structured, seed=seed)
        assert reason == "stop"
        assert re.fullmatch(form, text), text


def test_any_object(text_loaded: Loaded) -> None:
    """It may be long: what comes is an object as far as it goes."""
    text, reason = answered(text_loaded, Structured(json_object=True), logit_bias=_likely(text_loaded, "}"))
    assert reason == "stop"
    assert isinstance(json.loads(text), dict)


def _likely(loaded: Loaded, text: str) -> dict[int, float]:
    return {loaded.family.tokenizer.convert_tokens_to_ids(text): 100.0}


# ---- Together with the other parameters ------------------------------------------------------------------------------


def test_what_ends_it_early_is_told(text_loaded: Loaded) -> None:
    text, reason = answered(text_loaded, PAIR, max_tokens=5)
    assert reason == "length"
    assert not WORD.fullmatch(text)
    text, reason = answered(text_loaded, PAIR, stop=("-",))
    assert (len(text), reason) == (3, "stop")


@pytest.mark.parametrize(
    "params",
    [
        {"min_tokens": 300},
        {"repetition_penalty": 50.0, "presence_penalty": 2.0, "frequency_penalty": 2.0},
        {"temperature": 5.0, "top_k": 2, "top_p": 0.1, "min_p": 0.5},
        {"temperature": 0.0},
        {"logprobs": 3},
    ],
    ids=str,
)
def test_no_other_parameter_breaks_it(text_loaded: Loaded, params: dict[str, Any]) -> None:
    ends = {id: 100.0 for id in text_loaded.family.stop_ids}
    assert WORD.fullmatch(answered(text_loaded, PAIR, logit_bias=ends, **params)[0])


def test_a_word_that_ends_it_does_so_only_where_it_is_complete(text_loaded: Loaded) -> None:
    digit = text_loaded.family.tokenizer.convert_tokens_to_ids("1")
    for seed in range(3):
        text, _ = answered(text_loaded, Structured(regex="[01]{3}[01]*"), seed=seed, stop_token_ids=(digit,))
        assert re.fullmatch("0{3}0*", text)
    with pytest.raises(InputError, match="ignore_eos: expected false"):
        SamplingParams(structured=PAIR, ignore_eos=True).check()


def test_a_grammar_that_becomes_too_complex_ends_the_reply_with_an_error(
    text_loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client is told why, and the stream goes on."""
    monkeypatch.setitem(grammar._LIMITS, "max_lexer_states", 40)
    rig = Rig(text_loaded)
    session = rig.open(format="turns")
    session.ask("What?", structured=Structured(regex="([ab]*a[ab]{9}c)+"), max_tokens=400, temperature=2.0, seed=1)
    rig.run()
    (error,) = session.of(Error)
    assert error.message.startswith("params.structured: lexer error: too many states")
    assert session.ends()[0][0] == "error"
    session.ask("And now?", structured=PAIR, max_tokens=40)
    rig.run()
    assert WORD.fullmatch(said(session, 2))


@pytest.mark.parametrize(
    ("structured", "error"),
    [
        (Structured(json_schema={"type": "foo"}), "params.structured.json_schema: Invalid type: foo"),
        (Structured(json_schema={"not": {}}), "params.structured.json_schema: Unimplemented keys: ..not"),
        (Structured(json_schema="{"), "params.structured.json_schema: EOF while parsing"),
        (Structured(regex="(a"), "params.structured.regex: .*unclosed group"),
        (Structured(grammar="start: foo"), 'params.structured.grammar: .*unknown name: "foo"'),
        (
            Structured(json_schema={"type": "integer", "multipleOf": 99991, "minimum": 10, "maximum": 10**15}),
            "params.structured.json_schema: fuel exhausted",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_compiled_is_refused_by_its_place(
    text_loaded: Loaded, structured: Structured, error: str
) -> None:
    structured.check()
    with pytest.raises(InputError, match=error):
        text_loaded.family.grammars.compile(structured)


# ---- In a stream -----------------------------------------------------------------------------------------------------


def test_media_and_words_go_in_between_its_words(omni_loaded: Loaded) -> None:
    """A splice leaves the grammar where it is."""
    rig = Rig(omni_loaded, page_tokens=16)
    client = Client(rig.open(format="live"))
    client.do("ask", structured=PAIR, max_tokens=40, hold=False, temperature=1.0, seed=3)
    for kind in ("pair", "text", "sound", "image", "pair"):
        rig.step(2)
        client.do(kind)
    rig.run()
    session = client.session
    assert len({event.seen.seq if event.seen else 0 for event in session.of(Token)}) > 2
    assert WORD.fullmatch(said(session))
    assert session.ends()[0][0] == "stop"


def test_a_fork_goes_on_by_itself(omni_loaded: Loaded) -> None:
    """Each copy has a state of its own: with other media in one they say other words, and both are whole."""
    rig = Rig(omni_loaded, page_tokens=16)
    client = Client(rig.open(format="live"))
    client.do("pair")
    form = "(a[0-9]{2}|b[c-z]{2}){9}"  # what may come next depends on what was said
    client.do("ask", structured=Structured(regex=form), max_tokens=40, hold=False, temperature=2.0, seed=3)
    rig.step(5)
    twin = rig.fork(client.session)
    third = rig.fork(client.session)
    client.do("image", 1)
    rig.run()
    assert said(twin) == said(third) != said(client.session)
    assert all(re.fullmatch(form, said(session)) for session in (client.session, twin, third))


def test_a_reply_that_was_cut_leaves_nothing_behind(omni_loaded: Loaded) -> None:
    rig = Rig(omni_loaded)
    client = Client(rig.open(format="live"))
    client.do("ask", structured=PAIR, max_tokens=40)
    rig.step(8)
    client.session.interrupt(at=2)
    assert said(client.session) and WORD.fullmatch(said(client.session)) is None
    client.do("ask", structured=PAIR, max_tokens=40, hold=False)
    rig.run()
    client.do("ask", max_tokens=3, hold=False, ignore_eos=True)
    rig.run()
    assert WORD.fullmatch(said(client.session, 2))
    assert [reason for reason, _ in client.session.ends()] == ["interrupted", "stop", "length"]


@pytest.mark.parametrize("host_pages", [0, 64])
def test_others_and_moves_change_nothing(text_loaded: Loaded, host_pages: int) -> None:
    """Among streams without a grammar, in a cache that is too small for all: what each says is what it says alone."""
    wanted = [
        {"structured": PAIR},
        {},
        {"structured": Structured(json_schema={"type": "string", "minLength": 30, "maxLength": 40})},
        {},
    ]
    params: list[dict[str, Any]] = [
        {"max_tokens": 60, "temperature": 1.0, "seed": 7 + place, **one} for place, one in enumerate(wanted)
    ]

    def told(some: list[int], **config: Any) -> list[list[Any]]:
        rig = Rig(text_loaded, page_tokens=16, host_pages=host_pages, **config)
        sessions = [rig.open(format="turns") for _ in some]
        for place, session in zip(some, sessions, strict=True):
            session.ask("What is it that you see there?", **params[place])
        rig.run()
        moved = any(plan.saves or plan.restores for plan in rig.plans)
        lost = len({(feed.stream, feed.first) for plan in rig.plans for feed in plan.feeds}) < sum(
            len(plan.feeds) for plan in rig.plans
        )
        assert len(some) == 1 or (moved if host_pages else lost)
        return [[(event.index, event.id) for event in session.of(Token)] for session in sessions]

    alone = [told([place], kv_tokens=4096)[0] for place in range(4)]
    assert told([0, 1, 2, 3], kv_tokens=144) == alone


def test_a_run_is_repeated(text_loaded: Loaded) -> None:
    rig = Rig(text_loaded)
    journal = rig.core.scheduler.journal = Journal(rig.core.language.spans)
    session = rig.open(format="turns")
    session.ask("What?", structured=PAIR, max_tokens=40, temperature=1.0, seed=5)
    rig.run()
    again = list(replay(journal.entries, *make_parts(text_loaded, EngineConfig(kv_tokens=8192, backend="cpu"))))
    assert [event for one in again for _, event in one.events] == session.events
    assert all(one.result == one.entry for one in again if one.result is not None)


@pytest.mark.parametrize("format", ["live", "per-frame", "units"])
def test_a_held_reply_says_value_after_value(omni_loaded: Loaded, format: str) -> None:
    """Between two values it may be silent, and nowhere else; media goes in also inside one."""
    rig = Rig(omni_loaded, page_tokens=16)
    client = Client(rig.open(format=format, unit_tokens=3))
    client.do("ask", structured=PAIR, max_tokens=600, temperature=1.0, seed=4)
    for _ in range(14):
        client.do("unit" if format == "units" else "pair")
        rig.step(5)
    client.session.end()
    rig.run()
    session, place, values = client.session, 0, []
    texts = [event.text for event in session.of(Token)]
    for rest in session.of(Resting):
        values.append("".join(texts[place : rest.tokens]))
        place = rest.tokens
    values.append("".join(texts[place:]))
    spoken = [value for value in values if value]
    assert len(spoken) > 2
    assert all(map(WORD.fullmatch, spoken)), values
    assert session.ends()[0][0] == "stop"


def test_it_may_be_silent_from_the_start(omni_loaded: Loaded) -> None:
    """A model that has nothing to say of what it sees says nothing, where media may still come."""
    ends = {id: 100.0 for id in omni_loaded.family.stop_ids}
    for format, hold, tokens in (("live", True, 0), ("live", False, 16), ("turns", True, 16)):
        rig = Rig(omni_loaded)
        client = Client(rig.open(format=format))
        client.do("pair")
        client.do("ask", structured=PAIR, max_tokens=40, logit_bias=ends, hold=hold)
        rig.run()
        client.session.end()
        rig.run()
        assert len(said(client.session)) == tokens, (format, hold)
        assert client.session.ends()[0][0] == "stop"
