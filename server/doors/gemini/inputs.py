"""What a Gemini Live client says and shows, as entries of the history. In: fields of its messages. Out: entries, or
`GeminiFault` with the place of what this server does not take.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from .history import GeminiEntry
from .wire import GeminiFault, blob_of, choice_of, expected, fields, list_of, text_of

PICTURES = ("image/jpeg", "image/png", "image/webp", "image/gif")
RATE = 16_000  # of sound that names none
_RATES = range(1_000, 384_001)


class Senses(NamedTuple):
    """What the model takes in beside words."""

    sees: bool
    hears: bool


class FunctionReturned(NamedTuple):
    """What a function has returned; `text`: JSON."""

    id: str
    text: str


def content_of(said: Any, place: str, senses: Senses) -> list[GeminiEntry]:
    """The entries of one turn that a client brings."""
    given = fields(said, place, ("role", "parts"))
    role = choice_of(given.get("role") or "user", f"{place}.role", ("user", "model"))
    entries: list[GeminiEntry] = []
    for number, part in enumerate(list_of(given.get("parts", []), f"{place}.parts")):
        where = f"{place}.parts[{number}]"
        found = fields(part, where, ("text", "inlineData"))
        if role == "model" and "inlineData" in found:
            raise GeminiFault(f"{where}.inlineData: a turn of the model has words only")
        if "inlineData" in found:
            entries.append(media_of(found["inlineData"], f"{where}.inlineData", senses))
        elif "text" in found:
            entries.append(GeminiEntry(role, text_of(found["text"], f"{where}.text")))
    if role == "model" and len(entries) > 1:
        return [GeminiEntry("model", "".join(entry.text for entry in entries))]
    return entries


def media_of(said: Any, place: str, senses: Senses) -> GeminiEntry:
    """A picture, or sound."""
    kind, more, data = blob_of(said, place)
    if kind == "audio/pcm":
        if not senses.hears:
            raise expected(place, "no sound, since this model hears nothing", kind)
        return GeminiEntry("user", media=data, rate=_rate(more, len(data), place))
    if kind not in PICTURES:
        raise expected(f"{place}.mimeType", ", ".join((*PICTURES, "audio/pcm")), kind)
    if not senses.sees:
        raise expected(place, "no picture, since this model sees nothing", kind)
    return GeminiEntry("user", media=data)


def _rate(more: str, size: int, place: str) -> int:
    if size % 2:
        raise GeminiFault(f"{place}.data: expected whole samples of 2 bytes, got {size} bytes")
    rate = RATE
    for option in filter(None, (word.strip() for word in more.split(";"))):
        name, _, number = option.partition("=")
        if name != "rate" or not number.isdecimal() or len(number) > 6 or int(number) not in _RATES:
            raise expected(f"{place}.mimeType", f"rate= of {_RATES[0]} to {_RATES[-1]}", option)
        rate = int(number)
    return rate


def responses_of(said: Any, place: str) -> list[FunctionReturned]:
    """What functions have returned."""
    listed = fields(said, place, ("functionResponses",)).get("functionResponses", [])
    found: list[FunctionReturned] = []
    for number, one in enumerate(list_of(listed, f"{place}.functionResponses")):
        where = f"{place}.functionResponses[{number}]"
        given = fields(one, where, ("id", "name", "response", "scheduling"))
        known = ("SCHEDULING_UNSPECIFIED", "WHEN_IDLE")
        choice_of(given.get("scheduling", known[0]), f"{where}.scheduling", known)
        text = msgspec.json.encode(given.get("response", {})).decode()
        found.append(FunctionReturned(text_of(given.get("id"), f"{where}.id"), text))
    return found
