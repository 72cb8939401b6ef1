"""Turn detection as clients configure it: what a `turn_detection` of the wire makes of the one that is in force.

In: what a client says. Out: the whole of it in force, or `Fault`. It knows neither sound nor streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ....errors import InputError
from ....streams.listening.detectors import check_installed
from ....streams.requests.turns import TurnDetection
from .wire import Fault

if TYPE_CHECKING:
    from ....actors.info import EngineInfo

FIRST: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
_SHARED = ("create_response", "interrupt_response")
_FIRST_OF = {
    "server_vad": FIRST,
    "semantic_vad": {"type": "semantic_vad", "eagerness": "auto", **{name: FIRST[name] for name in _SHARED}},
}
# How long nobody speaks before a turn has ended, where a client asks for semantic_vad and nothing is installed that
# hears whether somebody has finished.
_EAGERNESS_MS = {"low": 2000, "medium": 1000, "auto": 1000, "high": 500}
_PLACE = "session.audio.input.turn_detection"


def merged_detection(known: dict[str, Any] | None, said: Any, info: EngineInfo) -> dict[str, Any] | None:
    """The turn detection in force after an update: fields that are not said stay. Where nothing is installed that hears
    whether somebody has finished, a `semantic_vad` is in force as the `server_vad` that waits as long as its eagerness
    says; so the client is told what it has."""
    if said is None:
        return None
    if not isinstance(said, dict):
        raise Fault(f"{_PLACE}: expected an object or null, got another value", param=_PLACE)
    known = FIRST if known is None else known
    kind = said.get("type") or known["type"]
    if not isinstance(kind, str) or kind not in _FIRST_OF:
        expected = f"{_PLACE}.type: expected {' or '.join(_FIRST_OF)}, got {kind!r:.40}"
        raise Fault(expected, param=f"{_PLACE}.type")
    stays = known if known["type"] == kind else {name: known[name] for name in _SHARED}
    merged = {**_FIRST_OF[kind], **stays, **_checked(kind, said)}
    if kind == "server_vad" or hears_ends(info):
        return merged
    shared = {name: merged[name] for name in _SHARED}
    return {**FIRST, **shared, "silence_duration_ms": _EAGERNESS_MS[merged["eagerness"]]}


def hears_ends(info: EngineInfo) -> bool:
    """Whether there is what hears whether somebody has finished."""
    try:
        check_installed(TurnDetection(semantic="auto"), info.turn_model)
    except InputError:
        return False
    return True


def _checked(kind: str, said: dict[str, Any]) -> dict[str, Any]:
    """What a client says of it. Fault where a value does not fit, or another kind has the field."""
    fields = _FIRST_OF[kind]
    given: dict[str, Any] = {}
    for name, value in said.items():
        where = f"{_PLACE}.{name[:40]}"
        if name not in FIRST and name not in _FITS:
            raise Fault(f"{_PLACE}: expected {', '.join(fields)}, got {name[:40]!r}", "unknown_parameter", where)
        if value is None and name != "idle_timeout_ms":
            continue
        if name not in fields:
            if value is None:
                continue
            raise Fault(f"{_PLACE}: a {kind} has {', '.join(fields)}, got {name!r}", param=where)
        if name != "type":
            if not _FITS[name](value):
                raise Fault(f"{where}: expected a value in its range, got {value!r:.40}", param=where)
            given[name] = value
    return given


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FITS: dict[str, Callable[[Any], bool]] = {
    "threshold": lambda value: _number(value) and 0 <= value <= 1,
    "prefix_padding_ms": lambda value: _number(value) and 0 <= value <= 60_000,
    "silence_duration_ms": lambda value: _number(value) and 0 < value <= 60_000,
    "idle_timeout_ms": lambda value: value is None or (_number(value) and 0 < value <= 3_600_000),
    "create_response": lambda value: isinstance(value, bool),
    "interrupt_response": lambda value: isinstance(value, bool),
    "eagerness": lambda value: isinstance(value, str) and value in _EAGERNESS_MS,
}
