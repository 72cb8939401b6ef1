"""What a reply has to be, as OpenAI's clients say it: `response_format`, `text.format`, `tool_choice`. In: fields of a
body. Out: `Structured` or None, or MessageError with the place. Nothing is compiled here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..streams.requests.messages import described
from ..streams.requests.structured import Structured
from .errors import MessageError
from .tool_calls import call_schema


def reply_form(given: Any, place: str, tools: Sequence[dict[str, Any]], choice: Any) -> Structured | None:
    """The form of a reply. `given`: the field `place` of a body; `tools` in the form of a `Request`, of which `choice`
    may want one called. A call that is wanted goes before `given` only where that wants nothing."""
    wanted, form = _wanted(tools, choice), _format(given, place)
    if wanted is None or form is None:
        return wanted or form
    raise MessageError(f"tool_choice: expected a choice that forces no call beside {place}, got both", "tool_choice")


def _format(given: Any, place: str) -> Structured | None:
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, dict) else None
    match kind:
        case "text":
            return None
        case "json_object":
            return Structured(json_object=True)
        case "json_schema":
            inner, where = given.get("json_schema"), f"{place}.json_schema"  # chats have an object more than responses
            schema = inner.get("schema") if isinstance(inner, dict) else given.get("schema")
            where += ".schema" if isinstance(inner, dict) else ""
            if not isinstance(schema, dict):
                raise MessageError(f"{where}: expected a JSON schema, got {described(schema)}", where)
            return _checked(Structured(json_schema=schema), where)
    types = "'text', 'json_object' or 'json_schema'"
    raise MessageError(f"{place}.type: expected {types}, got {described(kind)}", f"{place}.type")


def _wanted(tools: Sequence[dict[str, Any]], choice: Any) -> Structured | None:
    """The call that the client wants, as the JSON that `ToolCallReader` reads."""
    if choice in (None, "auto", "none"):
        return None
    functions = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    if choice != "required":
        name = _name(choice)
        if name not in functions:
            known = ", ".join(map(repr, functions)) or "no tools"
            raise MessageError(
                f"tool_choice: expected the name of one of {known}, got {described(name)}", "tool_choice"
            )
        functions = {name: functions[name]}
    if not functions:
        raise MessageError("tool_choice: expected tools beside it, got none", "tool_choice")
    try:
        return _checked(Structured(json_schema=call_schema(functions)), "tools")
    except ValueError as error:
        raise MessageError(f"tools: {error}", "tools") from None


def _name(choice: Any) -> Any:
    if not isinstance(choice, dict) or choice.get("type") != "function":
        expected = "'auto', 'none', 'required' or a function"
        raise MessageError(f"tool_choice: expected {expected}, got {described(choice)}", "tool_choice")
    inner = choice.get("function")
    return inner.get("name") if isinstance(inner, dict) else choice.get("name")


def _checked(form: Structured, place: str) -> Structured:
    try:
        form.check()
    except InputError as error:
        raise MessageError(f"{place}: {str(error).partition(': ')[2]}", place) from None
    return form
