"""Media that clients have sent under a name of their own (`uuid`), so that they may name it without sending it again.

In: the messages of a request, and the name of the client's key. Out: the same with the media in them, or InputError
that names the place. What is held is bounded; clients of one key find nothing of another's.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from ..errors import InputError
from ..streams.requests.messages import described, parts, replaced, value_of

MOST_BYTES = 128 << 20  # of all media together, as they came
LONGEST = 256  # characters of a name
_SCHEME = "uuid:"


def named() -> dict[str, str]:
    """The value of a part that brings no media but its name."""
    return {"url": _SCHEME}


def checked_name(uuid: Any, place: str) -> str:
    """InputError for what is no name."""
    if not isinstance(uuid, str) or not 1 <= len(uuid) <= LONGEST:
        got = f"{len(uuid)} characters" if isinstance(uuid, str) else described(uuid)
        raise InputError(f"{place}.uuid: expected text of 1 to {LONGEST} characters, got {got}")
    return uuid


class KeptMedia:
    """The media of one server; of too much the one goes that was named longest ago."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._parts: OrderedDict[tuple[str, str], tuple[dict[str, Any], int]] = OrderedDict()
        self._bytes = 0

    def fill(self, messages: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        """The messages, in which no part is only named any more. InputError for a name under which nothing is held."""
        found: dict[str, dict[str, Any]] = {}
        for place, part in parts(messages):
            if part["type"] == "text" or value_of(place, part).found != _SCHEME:
                continue
            uuid = checked_name(part.get("uuid"), place)
            kept = self._parts.get((key, uuid))
            if kept is None or kept[0]["type"] != part["type"]:
                kind = "nothing" if kept is None else kept[0]["type"]
                raise InputError(
                    f"{place}.uuid: expected one under which this server still holds a part of the type "
                    f"{part['type']!r}, got {uuid[:40]!a}, which has {kind}: send the media again"
                )
            self._parts.move_to_end((key, uuid))
            found[place] = kept[0]
        return replaced(messages, found)

    def keep(self, asked: list[dict[str, Any]], messages: list[dict[str, Any]], key: str) -> None:
        """Hold what has come: `asked` has the names, `messages` the same parts with their media."""
        for (_, named), (place, part) in zip(parts(asked), parts(messages), strict=True):
            uuid = named.get("uuid")
            if part["type"] == "text" or uuid is None:
                continue
            size = len(value_of(place, part).found)
            _, old = self._parts.pop((key, uuid), ({}, 0))
            self._bytes -= old
            if size <= self._most:
                self._parts[key, uuid] = part, size
                self._bytes += size
            while self._bytes > self._most:
                _, (_, gone) = self._parts.popitem(last=False)
                self._bytes -= gone
