"""The items of a Realtime conversation: what a client said, as items for a stream, as messages for a prompt, and as
the wire shows them again. It knows no stream and no session.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from ....errors import InputError
from ....streams.item import Image, Item, Text
from ....streams.requests.data_url import from_data_url, is_data_url
from .sound import SoundFormat
from .wire import CallSaid, ContentSaid, Fault, ItemSaid, MessageSaid, OutputSaid, new_id

# The most bytes of media that a conversation keeps, to be shown to the model again where its past is changed.
KEPT_BYTES = 64 * 2**20
ITEM_ID_CHARACTERS = 128
LEAST_MS = 30  # of the sound of an item: models do not hear less


class ContentPart(NamedTuple):
    """One content part: words, or media as the client sent it. `form`: how its sound is written."""

    kind: str  # "text", "image" or "audio"
    text: str = ""
    data: bytes = b""
    form: SoundFormat | None = None
    transcript: str | None = None

    def item(self) -> Item:
        """It, for a stream."""
        match self.kind:
            case "image":
                return Image(self.data)
            case "audio":
                assert self.form is not None
                return self.form.chunk(self.data)
        return Text(self.text)

    def part(self) -> dict[str, Any]:
        """It, for a message of a prompt."""
        return (
            {"type": "text", "text": self.text} if self.kind == "text" else {"type": self.kind, self.kind: self.item()}
        )

    def shown(self, role: str, whole: bool) -> dict[str, Any]:
        """It, on the wire. Media are left out, but for the sound of a retrieved item (`whole`)."""
        match self.kind:
            case "image":
                return {"type": "input_image"}
            case "audio":
                told = {"type": "input_audio", "transcript": self.transcript}
                return {**told, "audio": base64.b64encode(self.data).decode()} if whole else told
        return {"type": "output_text" if role == "assistant" else "input_text", "text": self.text}


class RealtimeItem:
    """One item. `kind`: "message", "function_call" or "function_call_output"; `status`: as on the wire."""

    def __init__(self, id: str, kind: str, role: str = "", pieces: Sequence[ContentPart] = (), **call: str) -> None:
        self.id = id
        self.kind = kind
        self.role = role
        self.pieces = list(pieces)
        self.call = call  # `call_id` with `name` and `arguments`, or with `output`
        self.event_id: str | None = None  # of the client's event that created it
        self.status = "completed"
        self.failed = False  # its media came to nothing: the model does not see it
        self.forgotten = False  # its media is no longer kept

    @property
    def appends(self) -> bool:
        """Whether an open stream takes it as it is: what the user says and shows."""
        return self.kind == "message" and self.role == "user"

    @property
    def media_bytes(self) -> int:
        return sum(len(piece.data) for piece in self.pieces)

    @property
    def text(self) -> str:
        """All its words."""
        return "".join(piece.text or piece.transcript or "" for piece in self.pieces)

    def shown(self, whole: bool = False) -> dict[str, Any]:
        """It, on the wire; `whole`: with its sound."""
        head = {"id": self.id, "object": "realtime.item", "type": self.kind, "status": self.status}
        if self.kind != "message":
            return {**head, **self.call}
        return {**head, "role": self.role, "content": [piece.shown(self.role, whole) for piece in self.pieces]}


def item_of(said: ItemSaid, form: SoundFormat) -> RealtimeItem:
    """The item that a client describes. Fault where it cannot be one; nothing is decoded yet but base64."""
    id = said.id or new_id("item")
    if len(id) > ITEM_ID_CHARACTERS:
        raise Fault(f"item.id: expected at most {ITEM_ID_CHARACTERS} characters, got {len(id)}", param="item.id")
    match said:
        case MessageSaid(role=role, content=content):
            pieces = [_piece(role, part, form, f"item.content[{place}]") for place, part in enumerate(content)]
            return RealtimeItem(id, "message", role, pieces)
        case CallSaid():
            call_id = said.call_id or new_id("call")
            return RealtimeItem(id, "function_call", call_id=call_id, name=said.name, arguments=said.arguments)
        case OutputSaid():
            return RealtimeItem(id, "function_call_output", call_id=said.call_id, output=said.output)


_TEXTS = {
    "user": ("input_text",),
    "system": ("input_text",),
    "assistant": ("output_text", "text", "output_audio", "input_text"),
}


def _piece(role: str, part: ContentSaid, form: SoundFormat, place: str) -> ContentPart:
    if part.type in _TEXTS[role]:
        text = part.transcript if part.type == "output_audio" else part.text
        return ContentPart("text", _needed(text, f"{place}.text"))
    if role == "user" and part.type == "input_audio":
        data = _needed(part.audio, f"{place}.audio")
        check_sound(data, form, f"{place}.audio", LEAST_MS)
        return ContentPart("audio", data=data, form=form, transcript=part.transcript)
    if role == "user" and part.type == "input_image":
        where = f"{place}.image_url"
        url = _needed(part.image_url, where)
        if not is_data_url(url):
            raise Fault(f"{where}: expected a data: URL, got {url[:20]!r}: this server fetches nothing", param=where)
        try:
            return ContentPart("image", data=from_data_url(url))
        except InputError as error:
            raise Fault(f"{where}: {error}", param=where) from None
    allowed = (*_TEXTS[role], "input_image", "input_audio") if role == "user" else _TEXTS[role]
    where = f"{place}.type"
    raise Fault(f"{where}: a {role} item has {', '.join(allowed)}, got {part.type[:40]!r}", param=where)


def _needed(value: Any, place: str) -> Any:
    if value is None:
        raise Fault(f"{place}: expected a value, got none", "missing_required_parameter", place)
    return value


def check_sound(data: bytes, form: SoundFormat, place: str, least_ms: int = 0) -> None:
    """Fault where these are no whole samples, or last less than so many milliseconds."""
    if len(data) % form.width:
        raise Fault(f"{place}: expected whole samples of {form.width} bytes, got {len(data)} bytes", param=place)
    ms = len(data) * 1000 / (form.width * form.rate)
    if ms < least_ms:
        raise Fault(f"{place}: expected at least {least_ms} ms of sound, got {ms:.2f} ms", param=place)


class _Place:
    """Where an item stands: between which."""

    __slots__ = ("after", "before", "item")

    def __init__(self, item: RealtimeItem) -> None:
        self.item = item
        self.before: _Place | None = None
        self.after: _Place | None = None


class RealtimeConversation:
    """The items, in order. Media is kept up to `KEPT_BYTES`; of what has come longer ago, its words. No call but those
    that go through it takes longer in a long conversation.

    revision: changes with the past: with all but new items at the end.
    """

    def __init__(self) -> None:
        self.revision = 0
        self._places: dict[str, _Place] = {}
        self._first: _Place | None = None
        self._last: _Place | None = None
        self._media: deque[RealtimeItem] = deque()  # those that have some, as they came
        self._kept = 0  # bytes of it
        self._brought = 0  # items that only a prompt can hold

    def __iter__(self) -> Iterator[RealtimeItem]:
        place = self._first
        while place is not None:
            yield place.item
            place = place.after

    def __reversed__(self) -> Iterator[RealtimeItem]:
        place = self._last
        while place is not None:
            yield place.item
            place = place.before

    def __len__(self) -> int:
        return len(self._places)

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return None if self._last is None else self._last.item.id

    @property
    def plain(self) -> bool:
        """Whether it has nothing but what the user and the system have said."""
        return not self._brought

    def newest(self, count: int) -> list[RealtimeItem]:
        """The last so many items, in order."""
        return list(islice(reversed(self), count))[::-1]

    def find(self, id: str) -> RealtimeItem | None:
        place = self._places.get(id)
        return None if place is None else place.item

    def needed(self, id: str, code: str, place: str = "item_id") -> RealtimeItem:
        """The item of this id. Fault where there is none."""
        item = self.find(id)
        if item is None:
            raise Fault(f"{place}: expected an item of the conversation, got {id[:80]!r}", code, place)
        return item

    def before(self, item: RealtimeItem) -> str | None:
        """The id of the item before it."""
        before = self._places[item.id].before
        return None if before is None else before.item.id

    def add(self, item: RealtimeItem, after: str | None = None) -> None:
        """Put an item after another ("root": first; None: last). Fault where that is not there or its id is taken."""
        if item.id in self._places:
            raise Fault(
                f"item.id: expected an id that is free, got {item.id!r}", "item_create_invalid_item_id", "item.id"
            )
        if after not in (None, "root"):
            self.needed(after, "item_create_invalid_previous_item_id", "previous_item_id")
        before = self._last if after is None else self._places.get(after)
        self._put(_Place(item), before)
        self._brought += not item.appends and item.role != "system"
        if item.media_bytes:
            self._media.append(item)
            self._kept += item.media_bytes
            self._forget_oldest()

    def remove(self, item: RealtimeItem) -> None:
        self.revision += 1
        place = self._places.pop(item.id)
        self._join(place.before, place.after)
        self._brought -= not item.appends and item.role != "system"
        if item.media_bytes:
            self._media.remove(item)
            self._kept -= item.media_bytes

    def fail(self, item: RealtimeItem) -> None:
        """The media of an item came to nothing: the model does not see it."""
        self.revision += 1
        item.failed = True

    def _put(self, place: _Place, before: _Place | None) -> None:
        after = self._first if before is None else before.after
        self.revision += after is not None
        self._places[place.item.id] = place
        self._join(before, place)
        self._join(place, after)

    def _join(self, before: _Place | None, after: _Place | None) -> None:
        if before is None:
            self._first = after
        else:
            before.after = after
        if after is None:
            self._last = before
        else:
            after.before = before

    def _forget_oldest(self) -> None:
        while self._kept > KEPT_BYTES:
            item = self._media.popleft()
            self._kept -= item.media_bytes
            item.pieces = [piece._replace(data=b"") for piece in item.pieces]
            item.forgotten = True


def _as_object(arguments: str) -> Any:
    """The arguments of a call, as chat templates expect them; as they are where they are no JSON."""
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments


# ---- for a prompt ----------------------------------------------------------------------------------------------------
def opening(instructions: str, items: Iterable[RealtimeItem]) -> tuple[str | None, list[RealtimeItem]]:
    """The system prompt of a conversation, which has the system items that it begins with, and the other items."""
    said, rest = [instructions] if instructions else [], list(items)
    while rest and rest[0].role == "system":
        said.append(rest.pop(0).text)
    return "\n\n".join(said) or None, rest


def messages_of(items: Iterable[RealtimeItem]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The items as messages for a chat template, and by the places of their content parts
    (`messages[0].content[1]`) the ids of the items. What a user says item by item is one turn, as in a stream; so are
    the words and the calls of one response. Fault where media is needed that is no longer kept."""
    messages: list[dict[str, Any]] = []
    places: dict[str, str] = {}
    for item in items:
        if item.failed or item.status == "in_progress":
            continue
        if item.forgotten:
            raise Fault(
                f"item {item.id}: its media is needed again, since the conversation before it was changed, and is no "
                f"longer kept: expected at most {KEPT_BYTES} bytes of newer media. Delete it, or begin a new session",
                "conversation_not_kept",
            )
        last: dict[str, Any] = messages[-1] if messages else {"role": ""}
        match item.kind:
            case "message" if item.role == "user":
                if last["role"] != "user":
                    last = {"role": "user", "content": []}
                    messages.append(last)
                for piece in item.pieces:
                    places[f"messages[{len(messages) - 1}].content[{len(last['content'])}]"] = item.id
                    last["content"].append(piece.part())
            case "message":
                messages.append({"role": item.role, "content": item.text})
            case "function_call":
                if last["role"] != "assistant":
                    last = {"role": "assistant", "content": ""}
                    messages.append(last)
                call = {"name": item.call["name"], "arguments": _as_object(item.call["arguments"])}
                called = {"id": item.call["call_id"], "type": "function", "function": call}
                last["tool_calls"] = [*last.get("tool_calls", []), called]
            case _:
                message = {"role": "tool", "tool_call_id": item.call["call_id"], "content": item.call["output"]}
                messages.append(message)
    return messages, places
