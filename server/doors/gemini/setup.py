"""The `setup` of a Gemini Live connection. In: the client's first message. Out: what holds for the connection, or
`GeminiFault` with the field that this server does not serve. Nothing that would change an answer is left out silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ....errors import InputError
from ....streams.requests.request import SamplingParams
from ....streams.requests.turns import TurnDetection
from ....streams.requests.window import Window
from .schema import tools_of
from .wire import POLICY, GeminiFault, choice_of, expected, fields, flag_of, list_of, number_of, text_of, whole_of

# The most tokens of a reply where the client names no number.
MOST_TOKENS = 4096
_SETUP = """model generationConfig systemInstruction tools sessionResumption contextWindowCompression
realtimeInputConfig historyConfig labels""".split()
_GENERATION = """temperature topP topK maxOutputTokens seed stopSequences presencePenalty frequencyPenalty
responseModalities candidateCount mediaResolution speechConfig""".split()
# The most tokens of a picture, as Google's; None: as many as the model takes.
_RESOLUTIONS = {
    "MEDIA_RESOLUTION_UNSPECIFIED": None,
    "MEDIA_RESOLUTION_LOW": 64,
    "MEDIA_RESOLUTION_MEDIUM": 256,
    "MEDIA_RESOLUTION_HIGH": None,
}
_LOW_START = 0.7  # from which likelihood on sound is speech where a client wants few starts
_SILENCE_MS, _LOW_END_MS = 500, 1000


_KEPT_FIELDS = {
    "system": "systemInstruction",
    "tools": "tools",
    "params": "generationConfig",
    "processor": "generationConfig.mediaResolution",
    "window": "contextWindowCompression",
    "detection": "realtimeInputConfig",
    "interrupts": "realtimeInputConfig",
    "all_sound": "realtimeInputConfig",
    "history_first": "historyConfig",
    "adapter": "model",
}


class GeminiSetup(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for a connection.

    system: the system prompt. tools: functions, in OpenAI's form. params: how replies are drawn. window: what the
    stream keeps of its past.
    detection: how speech is heard; None: the client says when it begins and ends.
    interrupts: the begin of speech or of an activity cuts the running turn.
    all_sound: without detection, sound outside of activities goes in too.
    history_first: the first turns of the client are its history, which is not answered.
    adapter: the one that the client names as its model; None: it names none.
    processor: options of the model's processor, where the client wants pictures of another size.
    resumption: the client wants to be told how it may come back. handle: by which it comes back now; empty: it begins.
    """

    system: str | None = None
    tools: list[dict[str, Any]] = []
    params: SamplingParams = SamplingParams(max_tokens=MOST_TOKENS)
    window: Window = Window()
    detection: TurnDetection | None = TurnDetection()
    interrupts: bool = True
    all_sound: bool = False
    history_first: bool = False
    processor: dict[str, bool | int | float] = {}
    resumption: bool = False
    handle: str = ""
    adapter: str | None = None

    @property
    def functions(self) -> list[str]:
        """The names of the functions."""
        return [tool["function"]["name"] for tool in self.tools]

    def check_again(self, said: GeminiSetup) -> None:
        """GeminiFault where a client that comes back says something else. What it leaves out is as it was."""
        plain = GeminiSetup()
        for name, written in _KEPT_FIELDS.items():
            if getattr(said, name) not in (getattr(plain, name), getattr(self, name)):
                raise GeminiFault(f"setup.{written}: expected what this session has: begin a new one", POLICY)


class PictureSize(NamedTuple):
    """The most rows of a picture, and its pixels for each of them; 0: all pictures have one size."""

    rows: int
    row_pixels: int


def setup_of(said: Any, pictures: PictureSize, adapters: Sequence[str] = ()) -> GeminiSetup:
    """The setup that a client describes, for a model of such pictures, with these adapters."""
    given = fields(said, "setup", _SETUP)
    model = text_of(given.get("model", ""), "setup.model").removeprefix("models/")
    made: dict[str, Any] = {"adapter": model} if model in adapters else {}
    if "generationConfig" in given:
        generation = fields(given["generationConfig"], "setup.generationConfig", _GENERATION)
        made["params"] = _params(generation, "setup.generationConfig")
        if "mediaResolution" in generation:
            place = "setup.generationConfig.mediaResolution"
            made["processor"] = _resolution(generation["mediaResolution"], place, pictures)
    if "systemInstruction" in given:
        made["system"] = words_of(given["systemInstruction"], "setup.systemInstruction") or None
    if "tools" in given:
        made["tools"] = tools_of(given["tools"], "setup.tools")
    if "realtimeInputConfig" in given:
        made |= _realtime(given["realtimeInputConfig"], "setup.realtimeInputConfig")
    if "contextWindowCompression" in given:
        made["window"] = _window(given["contextWindowCompression"], "setup.contextWindowCompression")
    if "historyConfig" in given:
        name = "initialHistoryInClientContent"
        first = fields(given["historyConfig"], "setup.historyConfig", (name,)).get(name, False)
        made["history_first"] = flag_of(first, f"setup.historyConfig.{name}")
    if "sessionResumption" in given:
        wanted = fields(given["sessionResumption"], "setup.sessionResumption", ("handle",))
        made |= {"resumption": True, "handle": text_of(wanted.get("handle", ""), "setup.sessionResumption.handle")}
    return GeminiSetup(**made)


def words_of(said: Any, place: str) -> str:
    """The words of a content that has nothing else."""
    if isinstance(said, str):
        return said
    parts = fields(said, place, ("parts", "role")).get("parts", [])
    parts = parts if isinstance(parts, list) else [parts]
    texts = [fields(part, f"{place}.parts[{n}]", ("text",)).get("text", "") for n, part in enumerate(parts)]
    return "\n\n".join(text_of(text, f"{place}.parts.text") for text in texts)


def _resolution(said: Any, place: str, pictures: PictureSize) -> dict[str, bool | int | float]:
    most = _RESOLUTIONS[choice_of(said, place, _RESOLUTIONS)]
    if most is not None and not pictures.row_pixels:
        raise expected(place, "none, since all pictures of this model have one size", said)
    return {} if most is None or most >= pictures.rows else {"max_pixels": most * pictures.row_pixels}


def _params(given: dict[str, Any], place: str) -> SamplingParams:
    modalities = list_of(given.get("responseModalities", ["TEXT"]), f"{place}.responseModalities")
    if modalities != ["TEXT"]:
        raise expected(f"{place}.responseModalities", "['TEXT'], since this server answers in text", modalities)
    if given.get("candidateCount", 1) != 1:
        raise expected(f"{place}.candidateCount", "1", given["candidateCount"])
    made: dict[str, Any] = {"max_tokens": MOST_TOKENS}
    for name, ours in (
        ("temperature", "temperature"),
        ("topP", "top_p"),
        ("presencePenalty", "presence_penalty"),
        ("frequencyPenalty", "frequency_penalty"),
    ):
        if name in given:
            made[ours] = float(number_of(given[name], f"{place}.{name}"))
    for name, ours, least in (("topK", "top_k", 0), ("maxOutputTokens", "max_tokens", 1), ("seed", "seed", 0)):
        if name in given:
            made[ours] = whole_of(given[name], f"{place}.{name}", least)
    stops = list_of(given.get("stopSequences", []), f"{place}.stopSequences")
    made["stop"] = tuple(text_of(stop, f"{place}.stopSequences") for stop in stops)
    return _checked(SamplingParams(**made), place)


def _checked(made: Any, place: str) -> Any:
    try:
        made.check()
    except InputError as error:
        raise GeminiFault(f"{place}: {error}") from None
    return made


def _window(said: Any, place: str) -> Window:
    """A sliding window lets go of the oldest media as new comes, down to no target but what is needed."""
    given = fields(said, place, ("triggerTokens", "slidingWindow"))
    inner = fields(given.get("slidingWindow", {}), f"{place}.slidingWindow", ("targetTokens",))
    rows = None
    if "triggerTokens" in given:
        rows = whole_of(given["triggerTokens"], f"{place}.triggerTokens", 64)
    if "targetTokens" in inner:
        whole_of(inner["targetTokens"], f"{place}.slidingWindow.targetTokens", 0)
    return _checked(Window(rows=rows), place)


_COVERAGE = ("TURN_COVERAGE_UNSPECIFIED", "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO")
_ALL_INPUT = "TURN_INCLUDES_ALL_INPUT"
_HANDLING = ("ACTIVITY_HANDLING_UNSPECIFIED", "START_OF_ACTIVITY_INTERRUPTS", "NO_INTERRUPTION")


def _realtime(said: Any, place: str) -> dict[str, Any]:
    given = fields(said, place, ("automaticActivityDetection", "activityHandling", "turnCoverage"))
    detection = _detection(given.get("automaticActivityDetection", {}), f"{place}.automaticActivityDetection")
    handling = choice_of(given.get("activityHandling", _HANDLING[0]), f"{place}.activityHandling", _HANDLING)
    covered = _COVERAGE if detection is not None else (*_COVERAGE, _ALL_INPUT)
    coverage = choice_of(given.get("turnCoverage", _COVERAGE[0]), f"{place}.turnCoverage", covered)
    return {
        "detection": detection,
        "interrupts": handling != "NO_INTERRUPTION",
        "all_sound": coverage == _ALL_INPUT,
    }


def _detection(said: Any, place: str) -> TurnDetection | None:
    names = "disabled startOfSpeechSensitivity endOfSpeechSensitivity prefixPaddingMs silenceDurationMs".split()
    given = fields(said, place, names)
    if flag_of(given.get("disabled", False), f"{place}.disabled"):
        return None
    made: dict[str, Any] = {"silence_ms": _SILENCE_MS}
    for name, low, way in (
        ("startOfSpeechSensitivity", "START_SENSITIVITY", {"threshold": _LOW_START}),
        ("endOfSpeechSensitivity", "END_SENSITIVITY", {"silence_ms": _LOW_END_MS}),
    ):
        known = tuple(f"{low}_{word}" for word in ("UNSPECIFIED", "HIGH", "LOW"))
        if choice_of(given.get(name, known[0]), f"{place}.{name}", known) == known[2]:
            made |= way
    if "silenceDurationMs" in given:
        made["silence_ms"] = max(100, whole_of(given["silenceDurationMs"], f"{place}.silenceDurationMs", 0))
    if "prefixPaddingMs" in given:  # the least speech that counts as a start, for all its name
        least = max(32, whole_of(given["prefixPaddingMs"], f"{place}.prefixPaddingMs", 0))
        made |= {"speech_ms": least, "interrupt_ms": least}
    return _checked(TurnDetection(**made), place)
