"""The input of `/v1/responses`, made into a conversation as `/v1/chat/completions` has it. In: text or a list of items.
Out: messages, and for each the item that it was; MessageError with the place. Nothing is decoded or fetched."""

from __future__ import annotations

from typing import Any

from ..streams.requests.messages import described
from .errors import MessageError
from .openai_messages import check_known

_ITEMS = "message, function_call, function_call_output"
# What items and parts may have beside what they say; it changes nothing.
_BESIDE = {"type", "id", "status", "object", "detail", "annotations", "logprobs", "phase", "created_by"}
_VALUES = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_VALUES |= {"input_image": "image_url", "input_audio": "input_audio", "input_video": "video_url"}
_PARTS = "input_text, output_text, refusal, input_image, input_audio, input_video"


def conversation_of(given: str | list[Any], instructions: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """The messages, and the place of each in the request."""
    messages: list[dict[str, Any]] = []
    places: list[str] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
        places.append("instructions")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}], [*places, "input"]
    for number, item in enumerate(given):
        place = f"input[{number}]"
        made = _message(place, item)
        if "tool_calls" in made and messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).extend(made["tool_calls"])  # one turn of the model
        else:
            messages.append(made)
            places.append(place)
    return messages, places


def tools_of(given: list[Any]) -> list[Any]:
    """The tools in the form of chats."""
    tools = []
    for number, tool in enumerate(given):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            place = f"tools[{number}].type"
            raise MessageError(f"{place}: expected 'function', got {described(kind)}: this server runs no tools", place)
        function = {name: value for name, value in tool.items() if name not in ("type", "strict") and value is not None}
        tools.append({"type": "function", "function": function})
    return tools


def _message(place: str, item: Any) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise MessageError(f"{place}: expected an item ({_ITEMS}), got {described(item)}", place)
    match item.get("type", "message"):
        case "message":
            check_known(place, item, _BESIDE | {"role", "content"})
            content = item.get("content")
            if isinstance(content, list):
                content = [_part(f"{place}.content[{number}]", part) for number, part in enumerate(content)]
            return {"role": item.get("role"), "content": content}
        case "function_call":
            check_known(place, item, _BESIDE | {"name", "arguments", "call_id"})
            function = {"name": item.get("name"), "arguments": item.get("arguments", "")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            return {"role": "assistant", "content": "", "tool_calls": [call]}
        case "function_call_output":
            check_known(place, item, _BESIDE | {"call_id", "output"})
            output = item.get("output")
            if isinstance(output, list):
                output = [_part(f"{place}.output[{number}]", part) for number, part in enumerate(output)]
            return {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}
        case other:
            raise MessageError(f"{place}.type: expected {_ITEMS}, got {described(other)}", f"{place}.type")


def _part(place: str, part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind in _VALUES:
        check_known(place, part, _BESIDE | {_VALUES[kind], "file_id"})
    match kind:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text")}
        case "refusal":
            return {"type": "text", "text": part.get("refusal")}
        case "input_image":
            if part.get("file_id") is not None:
                at = f"{place}.file_id"
                raise MessageError(f"{at}: expected image_url, got a file: this server keeps no files", at)
            return {"type": "image_url", "image_url": part.get("image_url")}
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.get("input_audio")}
        case "input_video":
            return {"type": "video_url", "video_url": part.get("video_url")}
    raise MessageError(f"{place}.type: expected {_PARTS}, got {described(kind)}", f"{place}.type")
