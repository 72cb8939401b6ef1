"""Calls are read from a reply in any pieces, and what is no call comes out as it was said."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from penstock.server.tool_calls import TextDelta, ToolCallArguments, ToolCallReader, ToolCallStarted

ARGUMENTS = {"at": "the <tool_call> door", "n": [1, {"a": None}]}
CALL = json.dumps({"name": "look", "arguments": ARGUMENTS})
PIECES = [
    f"<tool_call>\n{CALL}\n</tool_call>",
    "I look. ",
    "\n",
    "<tool",
    "a < b",
    "<tool_call>nothing</tool_call>",
    '<tool_call>{"name": "other"}</tool_call>',
    "{",
]


def read(pieces: list[str]) -> tuple[str, list[tuple[str, str, str]]]:
    """The words and the calls (id, name, arguments) of a reply that comes in these pieces."""
    reader = ToolCallReader(["look"], lambda number: f"c{number}")
    parts = [part for piece in pieces for part in reader.feed(piece)] + reader.end()
    text, calls = "", []
    for part in parts:
        match part:
            case TextDelta(words):
                text += words
            case ToolCallStarted(index, id, name):
                assert index == len(calls)
                calls.append((id, name, ""))
            case ToolCallArguments(index, words):
                calls[index] = (*calls[index][:2], calls[index][2] + words)
    assert reader.calls == len(calls)
    return text, calls


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.data())
def test_pieces_do_not_matter(said: list[str], data: st.DataObject) -> None:
    whole = "".join(said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(pieces) == read([whole]) == read(list(whole))


def test_the_known_forms_are_calls() -> None:
    for reply in (
        PIECES[0],
        f"<tool_call>{CALL}",
        CALL,
        f"[{CALL}]",
        json.dumps({"name": "look", "parameters": ARGUMENTS}),
        json.dumps({"type": "function", "function": {"name": "look", "arguments": json.dumps(ARGUMENTS)}}),
    ):
        text, ((id, name, arguments),) = read([reply])
        assert (text, id, name, json.loads(arguments)) == ("", "c0", "look", ARGUMENTS)
    text, calls = read([f"I look. {PIECES[0]}\n{PIECES[0]}"])
    assert text == "I look. " and [call[0] for call in calls] == ["c0", "c1"]


def test_what_is_no_call_is_what_was_said() -> None:
    for reply in (*PIECES[1:], "", '{"name": "other"}', "[1, 2]", "{" * 10_000):
        assert read([reply]) == (reply, [])


def test_of_more_calls_than_are_wanted_the_first_count() -> None:
    for reply in (PIECES[0] * 2, f"[{CALL}, {CALL}]", f"<tool_call>[{CALL}, {CALL}]"):
        for most in (1, 2):
            reader = ToolCallReader(["look"], str, most)
            parts = [*reader.feed(reply), *reader.end()]
            assert reader.calls == most == sum(isinstance(part, ToolCallStarted) for part in parts)
            assert not [part for part in parts if isinstance(part, TextDelta)]
