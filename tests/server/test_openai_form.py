"""Replies of a form at OpenAI's doors: what clients say becomes a form or is refused with its place, and a call that is
wanted is read as one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.server.errors import MessageError
from penstock.server.openai_form import reply_form
from penstock.server.openai_messages import checked_tools
from penstock.server.tool_calls import ToolCallArguments, ToolCallReader, ToolCallStarted, call_schema
from penstock.streams.requests.structured import Structured

COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": COLOUR}} for name in ("look", "point")]


def test_a_format_becomes_a_form() -> None:
    inside = {"type": "json_schema", "json_schema": {"name": "seen", "schema": COLOUR, "strict": True}}
    flat = {"type": "json_schema", "name": "seen", "schema": COLOUR}
    for form in (inside, flat):
        assert reply_form(form, "response_format", [], None) == Structured(json_schema=COLOUR)
    assert reply_form({"type": "json_object"}, "text.format", [], None) == Structured(json_object=True)
    assert reply_form({"type": "text"}, "text.format", TOOLS, "auto") is None


@pytest.mark.parametrize(
    ("form", "choice", "place"),
    [
        ({"type": "yaml"}, None, "response_format.type"),
        ("json", None, "response_format.type"),
        ({"type": "json_schema"}, None, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": 3}}, None, "response_format.json_schema.schema"),
        (None, "sometimes", "tool_choice"),
        (None, {"type": "function", "function": {"name": "sing"}}, "tool_choice"),
        ({"type": "json_object"}, "required", "tool_choice"),
    ],
)
def test_what_is_no_form_is_refused_with_its_place(form: Any, choice: Any, place: str) -> None:
    with pytest.raises(MessageError) as refused:
        reply_form(form, "response_format", TOOLS, choice)
    assert refused.value.path == place and "expected" in str(refused.value)


@given(st.data())
def test_a_call_that_is_wanted_is_read_as_that_call(data: st.DataObject) -> None:
    """Whatever the schema of a wanted call allows, the reader finds one call of a function that was wanted."""
    choice = data.draw(st.sampled_from(["required", {"type": "function", "name": "point"}]))
    form = reply_form(None, "response_format", TOOLS, choice)
    assert form is not None and isinstance(form.json_schema, dict)
    wanted = data.draw(st.sampled_from(form.json_schema["anyOf"]))["properties"]
    arguments = {"colour": data.draw(st.sampled_from(wanted["arguments"]["properties"]["colour"]["enum"]))}
    text = json.dumps({"name": wanted["name"]["const"], "arguments": arguments})
    reader = ToolCallReader(["look", "point"], str)
    cut = data.draw(st.integers(0, len(text)))
    parts = [*reader.feed(text[:cut]), *reader.feed(text[cut:]), *reader.end()]
    (started,) = (part for part in parts if isinstance(part, ToolCallStarted))
    said = "".join(part.text for part in parts if isinstance(part, ToolCallArguments))
    assert len(parts) == 1 + sum(isinstance(part, ToolCallArguments) for part in parts)
    assert json.loads(said) == arguments
    assert started.name == "point" or choice == "required"


def test_definitions_of_functions_stand_where_references_look_for_them() -> None:
    one = {"type": "object", "properties": {"a": {"$ref": "#/$defs/Place"}}, "$defs": {"Place": {"type": "string"}}}
    schema = call_schema({"f": one, "g": one})
    assert schema["$defs"] == {"Place": {"type": "string"}}
    assert all("$defs" not in call["properties"]["arguments"] for call in schema["anyOf"])
    with pytest.raises(ValueError, match="Place"):
        call_schema({"f": one, "g": {**one, "$defs": {"Place": {"type": "integer"}}}})


@pytest.mark.parametrize("inside", [False, True], ids=["responses", "chats"])
def test_only_tools_that_are_allowed_are_told_and_called(inside: bool) -> None:
    def choice(mode: str, *names: str) -> dict[str, Any]:
        named = [{"type": "function", **({"function": {"name": n}} if inside else {"name": n})} for n in names]
        said = {"mode": mode, "tools": named}
        return {"type": "allowed_tools", **({"allowed_tools": said} if inside else said)}

    assert checked_tools(TOOLS, choice("auto", "point")) == ([TOOLS[1]], "auto")
    tools, mode = checked_tools(TOOLS, choice("required", "point"))
    form = reply_form(None, "response_format", tools, mode)
    assert form is not None and "look" not in json.dumps(form.json_schema) and "point" in json.dumps(form.json_schema)
    for wrong in (choice("auto", "sing"), choice("none", "look"), choice("auto"), {"type": "allowed_tools"}):
        with pytest.raises(MessageError, match="tool_choice: expected"):
            checked_tools(TOOLS, wrong)
