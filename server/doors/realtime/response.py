"""One response: the server's events from `response.created` to `response.done`, in their order, once each.

In: what its reply says and how it ends. Out: encoded events. It knows neither the stream nor the session. The words of
a reply and its function calls come to it apart (`words`, `called`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ....streams.event import Seen
from .items import ContentPart, RealtimeConversation, RealtimeItem
from .wire import encode, new_id

CancelReason = Literal["client_cancelled", "turn_detected"]


class RealtimeResponse:
    """A response that runs. `conversation`: where its items go; None: it is out of band. `place`: the item after which
    they go, which is the newest when it was asked for."""

    def __init__(
        self,
        conversation: RealtimeConversation | None,
        conversation_id: str,
        most: int | str,
        metadata: dict[str, str] | None,
        tells_seen: bool,
    ) -> None:
        self.id = new_id("resp")
        self.cancelled: CancelReason = "turn_detected"  # why, if it is cut
        self.items: list[RealtimeItem] = []
        self._conversation = conversation
        self._place = None if conversation is None else conversation.last_id or "root"
        self._head = {
            "id": self.id,
            "object": "realtime.response",
            "conversation_id": None if conversation is None else conversation_id,
            "output_modalities": ["text"],
            "max_output_tokens": most,
            "metadata": metadata,
        }
        self._tells_seen = tells_seen
        self._open: RealtimeItem | None = None  # the item that is being written
        self._texts: list[str] = []  # of the message that is being written, one for each token

    @property
    def in_conversation(self) -> bool:
        return self._conversation is not None

    @property
    def at_work_on(self) -> RealtimeItem | None:
        """The item that it is writing."""
        return self._open

    def created(self) -> Iterator[bytes]:
        yield encode("response.created", response=self._shown("in_progress"))

    def words(self, text: str, seen: Seen | None) -> Iterator[bytes]:
        """The next words of its message."""
        if self._open is None:
            yield from self._begin(RealtimeItem(new_id("item"), "message", "assistant", [ContentPart("text")]))
        self._texts.append(text)
        if text and self._open is not None:
            told = {"penstock": {"seen": seen}} if self._tells_seen else {}
            yield encode("response.output_text.delta", **self._at(), content_index=0, delta=text, **told)

    def called(self, call_id: str, name: str) -> Iterator[bytes]:
        """A function call begins."""
        yield from self.end_item()
        call = RealtimeItem(new_id("item"), "function_call", call_id=call_id, name=name, arguments="")
        yield from self._begin(call)

    def arguments(self, text: str) -> Iterator[bytes]:
        """The next part of the arguments of the call that is being written."""
        assert self._open is not None
        self._open.call["arguments"] += text
        told = {"call_id": self._open.call["call_id"], "delta": text}
        yield encode("response.function_call_arguments.delta", **self._at(), **told)

    def cut(self, tokens: int) -> None:
        """Of the words of its message those of the first `tokens` tokens stay."""
        del self._texts[tokens:]

    def end_item(self, status: str = "completed") -> Iterator[bytes]:
        """What is being written ends."""
        item, self._open = self._open, None
        if item is None:
            return
        item.status = status
        at = {"response_id": self.id, "item_id": item.id, "output_index": self.items.index(item)}
        if item.kind == "message":
            text = "".join(self._texts)
            item.pieces = [ContentPart("text", text)]
            part = {"type": "text", "text": text}
            yield encode("response.output_text.done", **at, content_index=0, text=text)
            yield encode("response.content_part.done", **at, content_index=0, part=part)
        else:
            yield encode("response.function_call_arguments.done", **at, **item.call)
        del at["item_id"]
        yield encode("response.output_item.done", **at, item=item.shown())
        if self._conversation is not None:
            yield encode("conversation.item.done", item=item.shown(), previous_item_id=self._before(item))

    def done(self, status: str, details: dict[str, Any] | None, usage: dict[str, Any] | None) -> Iterator[bytes]:
        """It has ended."""
        yield encode("response.done", response=self._shown(status, details, usage))

    def _begin(self, item: RealtimeItem) -> Iterator[bytes]:
        item.status = "in_progress"
        self._open, self._texts = item, []
        self.items.append(item)
        place = self.items.index(item)
        if self._conversation is not None:
            self._conversation.add(item, self._where())
        told = {**item.shown(), "content": []} if item.kind == "message" else item.shown()
        yield encode("response.output_item.added", response_id=self.id, output_index=place, item=told)
        if self._conversation is not None:
            yield encode("conversation.item.added", item=told, previous_item_id=self._before(item))
        if item.kind == "message":
            yield encode(
                "response.content_part.added", **self._at(), content_index=0, part={"type": "text", "text": ""}
            )

    def _where(self) -> str | None:
        """After which item the next one of it goes: its own newest, or what was newest when it was asked for."""
        assert self._conversation is not None
        known = [item.id for item in reversed(self.items) if self._conversation.find(item.id) is not None]
        if known or self._place == "root" or self._conversation.find(self._place or "") is None:
            return known[0] if known else "root" if self._place == "root" else None
        return self._place

    def _before(self, item: RealtimeItem) -> str | None:
        conversation = self._conversation
        there = conversation is not None and conversation.find(item.id) is not None
        return conversation.before(item) if conversation is not None and there else None

    def _at(self) -> dict[str, Any]:
        assert self._open is not None
        return {"response_id": self.id, "item_id": self._open.id, "output_index": self.items.index(self._open)}

    def _shown(
        self, status: str, details: dict[str, Any] | None = None, usage: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        output = [item.shown() for item in self.items]
        return {**self._head, "status": status, "status_details": details, "output": output, "usage": usage}
