"""The output of one response of `/v1/responses`, item by item: a message for words, an item for each call of a tool.
In: parts of a reply. Out: the events that tell of them, and `items`. Sans I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .tool_calls import ReplyPart, TextDelta, ToolCallArguments, ToolCallStarted


class ResponseOutput:
    """`items`: those that are complete, and the one that is open as it is so far."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.items: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None

    def take(self, part: ReplyPart) -> Iterator[dict[str, Any]]:
        """The next part of the reply."""
        match part:
            case TextDelta(text):
                if self._open is None or self._open["type"] != "message":
                    yield from self._close("completed")
                    yield from self._message()
                self._text["text"] += text
                yield {**self._place, "type": "response.output_text.delta", "delta": text, "logprobs": []}
            case ToolCallStarted(_, id, name):
                yield from self._close("completed")
                item = {"type": "function_call", "id": f"fc_{id}", "call_id": id, "name": name, "arguments": ""}
                yield self._add({**item, "status": "in_progress"})
            case ToolCallArguments(_, text):
                self._item["arguments"] += text
                yield {**self._where, "type": "response.function_call_arguments.delta", "delta": text}

    def end(self, complete: bool) -> Iterator[dict[str, Any]]:
        """The reply has ended; one that said nothing is an empty message."""
        if not self.items:
            yield from self._message()
        yield from self._close("completed" if complete else "incomplete")

    @property
    def _item(self) -> dict[str, Any]:
        assert self._open is not None
        return self._open

    @property
    def _text(self) -> dict[str, Any]:
        return self._item["content"][0]

    @property
    def _where(self) -> dict[str, Any]:
        """The place of the open item."""
        return {"item_id": self._item["id"], "output_index": len(self.items) - 1}

    @property
    def _place(self) -> dict[str, Any]:
        """The place of its text."""
        return {**self._where, "content_index": 0}

    def _add(self, item: dict[str, Any]) -> dict[str, Any]:
        self._open = item
        self.items.append(item)
        added = {**item, "content": []} if item["type"] == "message" else dict(item)
        return {"type": "response.output_item.added", "output_index": len(self.items) - 1, "item": added}

    def _message(self) -> Iterator[dict[str, Any]]:
        text = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        id = f"msg_{self._mark}{len(self.items):02d}"
        yield self._add({"type": "message", "id": id, "role": "assistant", "status": "in_progress", "content": [text]})
        yield {**self._place, "type": "response.content_part.added", "part": dict(text)}

    def _close(self, status: str) -> Iterator[dict[str, Any]]:
        """The open item, if there is one, is complete."""
        if self._open is None:
            return
        item = self._open
        item["status"] = status
        if item["type"] == "message":
            text = self._text["text"]
            yield {**self._place, "type": "response.output_text.done", "text": text, "logprobs": []}
            yield {**self._place, "type": "response.content_part.done", "part": dict(self._text)}
        else:
            said = {"name": item["name"], "arguments": item["arguments"]}
            yield {**self._where, "type": "response.function_call_arguments.done", **said}
        yield {"type": "response.output_item.done", "output_index": len(self.items) - 1, "item": item}
        self._open = None
