"""The configuration of a Realtime session: what it is at first, what a `session.update` makes of it, what is in force.

In: the `session` of a client. Out: the whole configuration in force, or `Fault` and nothing changed. What this server
does not do (voices, tracing, transcription beside the reply) is taken without an error and is not in what is in force.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ....errors import InputError
from ....streams.requests.request import SamplingParams
from ....streams.requests.structured import Structured
from ...answer import adapter_names, model_name
from ...tool_calls import call_schema
from .detection import FIRST, merged_detection
from .sound import FORMATS, PCM, SoundFormat
from .wire import Fault

if TYPE_CHECKING:
    from ....actors.info import EngineInfo

# The most tokens of a response that names no number ("inf").
MOST_TOKENS = 4096
_SESSION = (
    *(
        "type",
        "object",
        "id",
        "model",
        "output_modalities",
        "instructions",
        "tools",
        "tool_choice",
        "max_output_tokens",
    ),
    *(
        "audio",
        "truncation",
        "prompt",
        "tracing",
        "include",
        "reasoning",
        "parallel_tool_calls",
        "expires_at",
        "penstock",
    ),
)
EXTENSIONS = {"format": "auto or a format of the model", "seen": "true or false", "rest": "true or false"}


def first_sound(hears: bool) -> dict[str, Any]:
    """How sound comes in a session that nobody has changed."""
    detection = dict(FIRST) if hears else None
    return {
        "format": PCM.described,
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": detection,
    }


def _first(session_id: str, model: str, hears: bool) -> dict[str, Any]:
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["text"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "audio": {"input": first_sound(hears), "output": {"format": PCM.described}},
        "truncation": "auto",
        "prompt": None,
        "tracing": None,
        "include": None,
    }


class RealtimeSettings:
    """What is in force. `config` is what `session.created` and `session.updated` say."""

    def __init__(self, session_id: str, info: EngineInfo, asked: str | None = None) -> None:
        """`asked`: the model that the client has named in its URL."""
        self._info = info
        self.adapter = asked if asked in adapter_names(info) else None
        self._own: SamplingParams | None = None
        self._own_of: dict[str, Any] | None = None  # the configuration of which `_own` is made
        self.config = _first(session_id, self.adapter or model_name(info.model), "audio" in info.modalities)

    # ---- what the other modules read ----
    @property
    def instructions(self) -> str:
        return self.config["instructions"]

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The functions that a model may call; none where the choice is none."""
        return [] if self.config["tool_choice"] == "none" else self.config["tools"]

    @property
    def sound(self) -> SoundFormat:
        return FORMATS[self.config["audio"]["input"]["format"]["type"]]

    @property
    def turn_detection(self) -> dict[str, Any] | None:
        return self.config["audio"]["input"]["turn_detection"]

    @property
    def format(self) -> str:
        """The engine's format: turns unless the client has opted in to another."""
        return self._extension("format", "turns")

    @property
    def model_decides(self) -> bool:
        """The model itself decides when it speaks, for all that its format shows it."""
        live = self.format == "auto" and self._info.live_trained
        return live or self.format in ("live", "per-frame", "units")

    @property
    def tells_seen(self) -> bool:
        return self._extension("seen", False)

    @property
    def holds(self) -> bool:
        """Responses are held open, and their rests are told."""
        return self._extension("rest", False)

    @property
    def whole(self) -> bool:
        """The oldest media may not leave the stream."""
        return self.config["truncation"] == "disabled"

    def params(self, most: int | str) -> SamplingParams:
        """How a reply is drawn; `most`: its `max_output_tokens`."""
        most = checked_most(most, "response.max_output_tokens")
        return SamplingParams(max_tokens=MOST_TOKENS if isinstance(most, str) else most, hold=self.holds)

    @property
    def own_params(self) -> SamplingParams | None:
        """How a reply is drawn that a stream begins by itself; None: the `tool_choice` cannot be met."""
        if self._own_of is not self.config:
            self._own_of = self.config
            try:
                forced = forced_call(self.tools, self.config["tool_choice"])
                plain = self.params(self.config["max_output_tokens"])
                self._own = msgspec.structs.replace(plain, structured=forced)
            except Fault:
                self._own = None
        return self._own

    def _extension(self, name: str, otherwise: Any) -> Any:
        return self.config.get("penstock", {}).get(name, otherwise)

    # ---- what a client changes ----
    def update(self, said: Mapping[str, Any]) -> None:
        """Change what is said, and only that. Fault: nothing has changed."""
        config = copy.deepcopy(self.config)
        check_fields(said, _SESSION, "session")
        if said.get("type", "realtime") != "realtime":
            raise Fault(
                f"session.type: expected 'realtime', got {said['type']!r}: connect with ?intent=transcription for one",
                "invalid_value",
                "session.type",
            )
        if said.get("instructions") is not None:
            config["instructions"] = checked_text(said["instructions"], "session.instructions")
        if said.get("max_output_tokens") is not None:
            config["max_output_tokens"] = checked_most(said["max_output_tokens"], "session.max_output_tokens")
        if said.get("tools") is not None:
            config["tools"] = checked_tools(said["tools"], "session.tools")
        if said.get("tool_choice") is not None:
            config["tool_choice"] = checked_choice(said["tool_choice"], "session.tool_choice")
        if said.get("output_modalities") is not None:
            check_modalities(said["output_modalities"], "session.output_modalities")
        if said.get("truncation") is not None:
            config["truncation"] = checked_truncation(said["truncation"])
        check_prompt(said.get("prompt"), "session.prompt")
        if "penstock" in said:
            config["penstock"] = self._extended(config.get("penstock", {}), said["penstock"])
        update_sound(config["audio"]["input"], sound_of(said), self._info)
        self.config = config

    def _extended(self, known: dict[str, Any], said: Any) -> dict[str, Any]:
        if not isinstance(said, dict):
            raise Fault("session.penstock: expected an object, got another value", param="session.penstock")
        for name, value in said.items():
            place = f"session.penstock.{name}"
            if name not in EXTENSIONS:
                raise Fault(f"{place}: expected one of {', '.join(EXTENSIONS)}, got {name[:40]!r}", param=place)
            allowed: tuple[Any, ...] = ("auto", *self._info.formats) if name == "format" else (True, False)
            if value not in allowed or isinstance(value, bool) == (name == "format"):
                raise Fault(f"{place}: expected {' or '.join(map(str, allowed))}, got {value!r:.40}", param=place)
        return {**known, **said}


def inside(said: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
    """An object in what a client says; empty where it is not there."""
    found = said.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Fault(f"{place}.{name}: expected an object, got another value", param=f"{place}.{name}")
    return found


def check_fields(said: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    """Fault where a client says a field that this API does not have."""
    for name in said:
        if name not in known:
            expected = f"{place}: expected {', '.join(known)}, got {name[:40]!r}"
            raise Fault(expected, "unknown_parameter", f"{place}.{name[:40]}")


def sound_of(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a client says of the sound that comes in. Fault for what this API does not have."""
    audio = inside(said, "audio", "session")
    check_fields(audio, ("input", "output"), "session.audio")
    check_fields(inside(audio, "output", "session.audio"), ("format", "voice", "speed"), "session.audio.output")
    heard = inside(audio, "input", "session.audio")
    known = ("format", "transcription", "noise_reduction", "turn_detection")
    check_fields(heard, known, "session.audio.input")
    return heard


def update_sound(config: dict[str, Any], said: Mapping[str, Any], info: EngineInfo) -> None:
    """Change format and turn detection as a client says. Fault where they cannot be so."""
    place = "session.audio.input"
    form = inside(said, "format", place)
    if form:
        name, rate = form.get("type"), form.get("rate")
        if not isinstance(name, str) or name not in FORMATS or rate not in (None, FORMATS[name].rate):
            got = f"{name!r:.40} at {rate!r:.20}"
            expected = ", ".join(f"{known.name} at {known.rate}" for known in FORMATS.values())
            raise Fault(f"{place}.format: expected {expected}, got {got}", param=f"{place}.format")
        config["format"] = FORMATS[name].described
    if "turn_detection" in said:
        if said["turn_detection"] is not None and "audio" not in info.modalities:
            where = f"{place}.turn_detection"
            raise Fault(f"{where}: expected null, since this model hears nothing, got an object", param=where)
        config["turn_detection"] = merged_detection(config["turn_detection"], said["turn_detection"], info)


# ---- what a session and a response say in the same way ----
def check_prompt(value: Any, place: str) -> None:
    """`prompt`, which names words that OpenAI keeps for a client."""
    if value is not None:
        raise Fault(f"{place}: expected null, since this server keeps no prompts, got a value", param=place)


def checked_truncation(value: Any) -> str:
    """`truncation`: what is in force of it."""
    place = "session.truncation"
    if value in ("auto", "disabled"):
        return value
    if isinstance(value, dict) and value.get("type") == "retention_ratio":
        return "auto"
    raise Fault(f"{place}: expected auto, disabled or a retention_ratio, got {value!r:.40}", param=place)


def checked_text(value: Any, place: str) -> str:
    """Words."""
    if not isinstance(value, str):
        raise Fault(f"{place}: expected text, got another value", param=place)
    return value


def checked_most(value: Any, place: str) -> int | str:
    """`max_output_tokens`."""
    if value == "inf" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise Fault(f"{place}: expected a whole number of at least 1 or 'inf', got {value!r:.40}", param=place)


def check_modalities(value: Any, place: str) -> None:
    """`output_modalities`; this server answers in text, whichever of them is asked for."""
    if value not in (["text"], ["audio"]):
        raise Fault(f"{place}: expected ['text'] or ['audio'], got {value!r:.40}", param=place)


def checked_choice(value: Any, place: str) -> Any:
    """`tool_choice`: a word, or a function by its name."""
    if value in ("auto", "none", "required"):
        return value
    if isinstance(value, dict) and value.get("type") == "function" and isinstance(value.get("name"), str):
        return {"type": "function", "name": value["name"]}
    raise Fault(f"{place}: expected auto, none, required or a function, got {value!r:.40}", param=place)


def forced_call(tools: list[dict[str, Any]], choice: Any) -> Structured | None:
    """What a reply has to be so that it is a call that `choice` wants; None: it wants none. Fault where it wants one
    that is not among `tools`."""
    if choice in ("auto", "none"):
        return None
    functions = {tool["name"]: tool.get("parameters") or {} for tool in tools}
    if choice != "required":
        functions = {name: given for name, given in functions.items() if name == choice["name"]}
    if not functions:
        raise Fault("tool_choice: expected one of the tools, got none of them", param="tool_choice")
    try:
        form = Structured(json_schema=call_schema(functions))
        form.check()
    except (ValueError, InputError) as error:
        raise Fault(f"tools: {error}", param="tools") from None
    return form


def checked_tools(value: Any, place: str) -> list[dict[str, Any]]:
    """The functions that a model may call."""
    if not isinstance(value, list):
        raise Fault(f"{place}: expected a list, got another value", param=place)
    for number, tool in enumerate(value):
        where = f"{place}[{number}]"
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("name"), str):
            raise Fault(f"{where}: expected a function with a name, got another value", param=where)
        if not isinstance(tool.get("description"), str | None):
            raise Fault(f"{where}.description: expected text, got another value", param=f"{where}.description")
        if not isinstance(tool.get("parameters"), dict | None):
            raise Fault(f"{where}.parameters: expected a schema, got another value", param=f"{where}.parameters")
    known = ("type", "name", "description", "parameters")
    return [{name: tool[name] for name in known if tool.get(name) is not None} for tool in value]
