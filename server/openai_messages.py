"""Conversations and tools as OpenAI's clients write them, made into those of a `Request`. In: a list of messages. Out:
messages for the model's chat template, or MessageError with the place. Nothing is decoded, nothing is fetched."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import InputError
from ..streams.requests.messages import EMBEDDED, check_messages, check_tools, described
from .errors import MessageError
from .kept_media import checked_name, named

_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"}
# What clients send back of an answer that they have had, and what says nothing to a template.
_ECHOED = {"refusal", "annotations", "id", "index"}
_MEDIA = ("image_url", "video_url", "audio_url", "input_audio")
# Beside its type and its value a part may have these, which change nothing.
_BESIDE = {"type", "text", "uuid", "cache_control", "detail", "annotations", "logprobs", "sampling_rate"}
_WITHIN = {"url", "data", "format", "detail"}
_ROWS = {"kind", "grid", "dtype", "shape", "pts_us", "stop_us"}  # what rows made elsewhere say of themselves


def checked_messages(given: list[Any], parts: bool) -> list[dict[str, Any]]:
    """A conversation for a `Request`. `parts`: the model takes content as a list of parts; else texts are joined."""
    messages = []
    for number, message in enumerate(given):
        place = f"messages[{number}]"
        if not isinstance(message, dict):
            raise MessageError(f"{place}: expected {{'role': ..., 'content': ...}}, got {described(message)}", place)
        messages.append(_message(place, message, parts))
    try:
        check_messages(messages)
    except InputError as error:
        raise MessageError(str(error), str(error).partition(": ")[0]) from None
    return messages


def checked_tools(given: list[Any], choice: Any) -> tuple[list[dict[str, Any]], Any]:
    """The tools for a `Request`, and which of them are to be called: none where the choice is "none", some where it
    names those that are allowed."""
    try:
        check_tools(given)
    except InputError as error:
        raise MessageError(str(error), str(error).partition(": ")[0]) from None
    if choice == "auto" and not given:
        raise MessageError("tool_choice: expected tools beside it, got none", "tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return _allowed(given, choice)
    return ([] if choice == "none" else given), choice


def _allowed(tools: list[dict[str, Any]], choice: dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    """`{"type": "allowed_tools", "mode", "tools"}`; chats have an object more than responses."""
    inner = choice.get("allowed_tools", choice)
    mode, named = (inner.get("mode"), inner.get("tools")) if isinstance(inner, dict) else (None, None)
    if mode not in ("auto", "required") or not isinstance(named, list) or not named:
        raise MessageError(
            "tool_choice: expected allowed_tools with a mode, 'auto' or 'required', and a list of tools, got others",
            "tool_choice",
        )
    functions = {tool["function"]["name"]: tool for tool in tools}
    allowed = []
    for tool in named:
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or name not in functions:
            known = ", ".join(map(repr, functions)) or "no tools"
            raise MessageError(f"tool_choice: expected names of {known}, got {described(name)}", "tool_choice")
        allowed.append(functions[name])
    return allowed, mode


def _message(place: str, message: dict[str, Any], parts: bool) -> dict[str, Any]:
    for name, value in message.items():
        if name not in _FIELDS | _ECHOED and value:
            raise MessageError(f"{place}.{name}: expected no such field, got {described(value)}", f"{place}.{name}")
    made = {name: value for name, value in message.items() if name in _FIELDS and value is not None}
    if made.get("role") == "developer":
        made["role"] = "system"
    if "tool_calls" in made:
        made["tool_calls"] = _calls(f"{place}.tool_calls", made["tool_calls"])
        made.setdefault("content", "")
    content = made.get("content")
    if isinstance(content, list):
        made["content"] = content = [_part(f"{place}.content[{number}]", part) for number, part in enumerate(content)]
        texts = all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content)
        if texts and (not parts or made.get("role") == "tool"):
            made["content"] = "\n".join(part["text"] for part in content)
    return made


def _part(place: str, part: Any) -> Any:
    """A content part without what the engine does not know."""
    if not isinstance(part, dict):
        return part
    if part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    name = part.get("type")
    uuid = part.get("uuid")
    if name in _MEDIA and uuid is not None:
        try:
            checked_name(uuid, place)
        except InputError as error:
            raise MessageError(str(error), f"{place}.uuid") from None
        if all(part.get(key) is None for key in (name, "path", "url", "base64")):
            part = {**part, name: named()}
    if not isinstance(name, str):
        return part  # which is refused
    rows = _ROWS if name in EMBEDDED else set()
    check_known(place, part, _BESIDE | {name, "path", "url", "base64"} | rows)
    if isinstance(part.get(name), dict):
        check_known(f"{place}.{name}", part[name], _WITHIN | rows)
    gone = ("cache_control",) if name in _MEDIA and uuid is not None else ("cache_control", "uuid")
    return {name: value for name, value in part.items() if name not in gone}


def check_known(place: str, given: dict[Any, Any], known: set[Any]) -> None:
    """MessageError where an object has a field that says something and is not known."""
    for name, value in given.items():
        if name not in known and value not in (None, "", [], {}):
            at = f"{place}.{name}"[:120]
            raise MessageError(f"{at}: expected no such field, got {described(value)}", at)


def _calls(place: str, calls: Any) -> list[dict[str, Any]]:
    """Calls of tools with arguments as an object, as chat templates expect them."""
    if not isinstance(calls, list):
        raise MessageError(f"{place}: expected a list of calls, got {described(calls)}", place)
    made = []
    for number, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            at = f"{place}[{number}]"
            raise MessageError(
                f"{at}: expected {{'function': {{'name': ..., 'arguments': ...}}}}, got {described(call)}", at
            )
        arguments = function.get("arguments", "")
        if isinstance(arguments, str):
            try:
                arguments = msgspec.json.decode(arguments.encode()) if arguments.strip() else {}
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                pass  # a model wrote it so: the template gets it as it is
        made.append({**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return made
