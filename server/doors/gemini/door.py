"""The door `BidiGenerateContent`: what a client says, to the conversation; the session's answers, to the server's
messages. It knows neither sockets nor the engine.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ....streams.event import Closed, Dropped, Error
from ... import commands as c
from ...answer import adapter_names
from ...config import ServerConfig
from .conversation import GeminiConversation, ToldGemini
from .inputs import Senses, content_of, media_of, responses_of
from .resuming import UNKNOWN, GeminiPlace, place_of
from .setup import GeminiSetup, PictureSize, setup_of
from .wire import FAILED, INVALID, POLICY, GeminiFault, decode, encode, expected, fields, flag_of, list_of, text_of

if TYPE_CHECKING:
    from ....actors.info import EngineInfo

_MESSAGES = ("setup", "clientContent", "realtimeInput", "toolResponse")
_REALTIME = "activityStart mediaChunks audio video text audioStreamEnd activityEnd".split()
_FULL = "the context is full: a piece of media has more tokens than this session may keep, or the prompt leaves no room"


class GeminiDoor:
    """One connection. What cannot be done ends it, with a reason that names the field. A client that names another
    model is served by the one that is there."""

    subprotocol = None

    def __init__(self, info: EngineInfo, config: ServerConfig, query: Mapping[str, str] | None = None) -> None:
        self._senses = Senses("image" in info.modalities, "audio" in info.modalities)
        self._pictures = PictureSize(info.picture_rows, info.row_pixels)
        self._adapters = adapter_names(info)
        self._drain_seconds = config.drain_seconds
        self._goes_down = False
        self._talks: GeminiConversation | None = None
        self._setup = GeminiSetup()
        self._place = GeminiPlace()

    def greet(self) -> Iterable[bytes]:
        """The client speaks first."""
        return ()

    # ---- from the client ----
    def hear(self, message: str | bytes) -> Iterator[ToldGemini | c.Moving]:
        """The answer to a message of the client, and commands. GeminiFault for what cannot be done."""
        yield from self._counted(self._hear(message))

    def _counted(self, parts: Iterable[Any]) -> Iterator[Any]:
        for part in parts:
            self._place.count(part)
            yield part
        update = None if self._talks is None else self._place.update(self._talks.ends)
        if update is not None:
            yield update

    def _hear(self, message: str | bytes) -> Iterator[ToldGemini | c.Moving]:
        said = fields(decode(message), "message", _MESSAGES)
        if len(said) != 1:
            raise expected("message", f"one of {', '.join(_MESSAGES)}", [*said])
        ((kind, value),) = said.items()
        if (self._talks is None) != (kind == "setup"):
            raise expected("message", "setup first, and once", kind)
        if self._talks is None:
            yield from self._set_up(value)
            return
        match kind:
            case "clientContent":
                given = fields(value, kind, ("turns", "turnComplete"))
                turns = list_of(given.get("turns", []), f"{kind}.turns")
                entries = [content_of(turn, f"{kind}.turns[{n}]", self._senses) for n, turn in enumerate(turns)]
                complete = flag_of(given.get("turnComplete", False), f"{kind}.turnComplete")
                yield from self._talks.say([entry for turn in entries for entry in turn], complete)
            case "realtimeInput":
                given = fields(value, kind, _REALTIME)
                if not given:
                    raise expected(kind, f"one of {', '.join(_REALTIME)}", value)
                for name in _REALTIME:
                    if name in given:
                        yield from self._realtime(self._talks, name, given[name], f"{kind}.{name}")
            case _:
                yield from self._talks.returned(responses_of(value, kind))

    def _set_up(self, said: Any) -> Iterator[ToldGemini | c.Moving]:
        self._setup = setup = setup_of(said, self._pictures, self._adapters)
        if setup.handle:
            token, received = place_of(setup.handle)
            yield c.ResumeConnection(token=token, received=received, terms=setup)
            return
        self._talks = GeminiConversation(setup)
        yield _complete()
        if setup.resumption:
            yield c.KeepConnection(closed=True)

    def _realtime(self, talks: GeminiConversation, name: str, value: Any, place: str) -> Iterator[ToldGemini]:
        match name:
            case "activityStart" | "activityEnd":
                fields(value, place, ())
                yield from talks.start_activity() if name == "activityStart" else talks.end_activity()
            case "audioStreamEnd":
                if flag_of(value, place):
                    yield from talks.end_sound()
            case "text":
                yield from talks.write(text_of(value, place))
            case _:
                blobs = list_of(value, place) if name == "mediaChunks" else [value]
                for blob in blobs:
                    entry = media_of(blob, place, self._senses)
                    if name != "mediaChunks" and (name == "audio") != (entry.kind == "audio"):
                        raise expected(f"{place}.mimeType", "sound" if name == "audio" else "a picture", entry.kind)
                    yield from talks.hear(entry) if entry.rate else talks.show(entry)

    # ---- from the session ----
    def tell(self, answer: c.Answer) -> Iterator[ToldGemini]:
        """The server's messages for an answer of the session, and the commands that follow from it."""
        match answer:
            case c.ConnectionKept(token=token):
                yield self._place.keep(token)
            case c.ConnectionResumed(terms=terms):  # what it tells is not counted
                self._setup.check_again(terms)
                yield _complete()
            case _:
                yield from self._counted(self._tell(answer))

    def _tell(self, answer: c.Answer) -> Iterator[ToldGemini]:
        talks = self._talks
        match answer:
            case c.GoingDown():
                self._goes_down = True
                yield encode(goAway={"timeLeft": f"{self._drain_seconds:g}s"})
            case c.Refused(code="draining") if talks is not None:
                talks.not_asked()
            case c.Refused(code="resume"):
                raise GeminiFault(UNKNOWN, POLICY)
            case c.Refused(stream=name) if name is None or talks is None or name == talks.talk.name:
                place = f"{answer.ref}: " if isinstance(answer.ref, str) else ""
                raise GeminiFault(f"{place}{answer.message}", _code(answer.code))
            case c.StreamEvent(stream=name, event=event) if talks is not None and name == talks.talk.name:
                match event:
                    case Error(code=code, message=message):
                        raise GeminiFault(f"{code}: {message}", _code(code))
                    case Closed(reason=reason) if not self._goes_down:
                        raise GeminiFault(f"the stream has ended: {reason}", FAILED)
                    case Dropped(reason="full"):
                        raise GeminiFault(_FULL, POLICY)
                yield from talks.event(event)


def _complete() -> bytes:
    return encode(setupComplete={"sessionId": secrets.token_hex(8)})


def _code(code: str) -> int:
    """With which close code an error ends the connection."""
    if code == "internal":
        return FAILED
    return INVALID if code.startswith(("input", "media")) else POLICY
