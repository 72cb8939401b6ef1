"""The door `/v1/stream`: messages of the wire to commands of a session, and its answers and events to messages.

In come text and binary messages of one client; out go `Command`s and encoded text messages. Knows neither sockets nor
the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from .. import commands as c
from .. import wire
from ..answer import model_name
from ..config import ServerConfig

if TYPE_CHECKING:
    from ...actors.info import EngineInfo


class StreamDoor:
    """The wire of one connection. `hear` raises MessageError for what does not follow it."""

    subprotocol = wire.SUBPROTOCOL

    def __init__(self, info: EngineInfo, config: ServerConfig, query: Mapping[str, str] | None = None) -> None:
        self._info = info
        self._config = config

    def greet(self) -> Iterator[bytes | c.Command]:
        """The `welcome`."""
        info, config = self._info, self._config
        yield wire.encode_answer(
            wire.Welcome(
                version=wire.VERSION,
                model=model_name(info.model),
                family=info.family,
                modalities=info.modalities,
                formats=info.formats,
                live_trained=info.live_trained,
                limits={
                    "streams": config.max_streams,
                    "message_bytes": config.max_message_bytes,
                    "text_bytes": config.max_text_bytes,
                    "waiting_bytes": config.waiting_bytes,
                    "unread_bytes": config.unread_bytes,
                    "unread_seconds": config.unread_seconds,
                    "idle_seconds": config.idle_seconds,
                    "resume_seconds": config.resume_seconds,
                    "positions": info.max_positions,
                    "kv_tokens": info.kv_tokens,
                },
            )
        )

    def hear(self, message: str | bytes) -> Iterator[bytes | c.Command | c.Moving]:
        """What a message asks of the session or of the connection; a `ping` is answered here."""
        heard = wire.decode_text(message) if isinstance(message, str) else wire.decode_binary(message)
        match heard:
            case wire.Ping():
                yield wire.encode_answer(wire.Pong(ref=heard.ref))
            case wire.Keep():
                yield c.KeepConnection()
            case wire.Resume():
                yield c.ResumeConnection(token=heard.token, received=heard.received)
            case _:
                yield _command(heard, len(message))

    def tell(self, answer: c.Answer) -> Iterator[bytes]:
        """The message that tells the client of an answer. What was accepted is told where somebody can know what is
        meant: by a `ref`, or by a reply.
        """
        match answer:
            case c.StreamEvent():
                yield wire.encode_event(answer.stream, answer.event)
            case c.StreamOpened(stream=stream, ref=ref, facts=facts, source=None):
                opened = wire.Opened(stream=stream, ref=ref, **_fields(facts))
                yield wire.encode_answer(opened)
            case c.StreamOpened(stream=stream, ref=ref, facts=facts, source=str(source)):
                forked = wire.Forked(stream=stream, source=source, ref=ref, **_fields(facts))
                yield wire.encode_answer(forked)
            case c.CarriedOut(stream=stream, ref=ref, seq=seq, reply=reply):
                if ref is not None or reply is not None:
                    yield wire.encode_answer(wire.Accepted(stream=stream, seq=seq, reply=reply, ref=ref))
            case c.ConnectionKept(token=token, seconds=seconds):
                yield wire.encode_answer(wire.KeptMessage(token=token, seconds=seconds))
            case c.ConnectionResumed(received=received):
                yield wire.encode_answer(wire.ResumedMessage(received=received))
            case c.Refused():
                refused = {name: getattr(answer, name) for name in answer.__struct_fields__}
                yield wire.encode_answer(wire.WireError(**refused))


def _fields(facts: c.StreamFacts) -> dict:
    return {name: getattr(facts, name) for name in facts.__struct_fields__}


def _command(heard: wire.Command, size: int) -> c.Command:
    """The command of a message of `size` bytes. A prompt is not counted with the messages that wait."""
    assert not isinstance(heard, wire.Ping | wire.Keep | wire.Resume)
    address = {"stream": heard.stream, "ref": heard.ref, "size": size}
    match heard:
        case wire.OpenMessage():
            return c.OpenStream(request=heard.request(), **address)
        case wire.ForkMessage():
            again = heard.again and wire.plain_params(heard.again)
            back = {"back_to": heard.back_to, "back_to_us": heard.back_to_us}
            return c.ForkStream(copy=heard.as_, again=again, **back, **address)
        case wire.Input():
            return c.AppendItem(item=heard.item, **address)
        case wire.Ask():
            return c.AskQuestion(
                question=heard.question,
                params=heard.params and wire.plain_params(heard.params),
                wait_ms=heard.wait_ms,
                hold=heard.hold,
                ignore_failed=heard.ignore_failed,
                lookback=heard.lookback,
                **address,
            )
        case wire.InterruptMessage():
            return c.InterruptReply(at=heard.at, **address)
        case wire.ListenMessage():
            return c.Listen(turn_detection=heard.turn_detection, **address)
        case wire.End():
            return c.EndMedia(**address)
        case wire.SnapshotMessage():
            return c.SnapshotStream(name=heard.name, **address)
        case wire.RestoreMessage():
            return c.RestoreStream(name=heard.name, **address)
        case wire.CloseMessage():
            return c.CloseStream(**address)
