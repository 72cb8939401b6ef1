"""An encoder in another process, as the towers of this engine: segments and prompts go to it over a WebSocket, spans
and features come back. In: its address. Out: what the towers here would have given, or EncoderAwayError.

One thread calls it (`WorkThread`), but for `close`. What is kept of a stream is kept here, so that an encoder that was
started again knows all that it needs (engine/remote.py). It knows no actors: who waits for an encoder that is away, and
for how long, is decided in encode.py.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event, Thread, Timer
from typing import NamedTuple

import torch
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from ..engine.config import EngineConfig
from ..engine.embeddings import EncodedPrompt, EncodedSpan, Features
from ..engine.encoding import encode
from ..engine.families.absent import AbsentTowers
from ..engine.families.loudness import Loudness
from ..engine.family import Loaded
from ..engine.remote import (
    ANSWERS,
    EncodeContent,
    EncodePieces,
    Hello,
    MadeFeatures,
    MadeSpans,
    RefusedWork,
    RemoteAnswer,
    RemotePiece,
    RemoteQuestion,
    own_version,
)
from ..errors import EncoderAwayError, InputError, LimitError, ModelError, error_of
from ..streams.requests.prompt import Content
from ..streams.segment import Segment

PATH = "/v1/encode"
_OPEN_SECONDS = 5.0
# An encoder that does not answer a ping within this time is taken for lost; the thread that encodes does not answer it.
_PING_SECONDS = 10.0
# So long who asks waits for a connection; what takes longer is not there yet, and others are not held up by it.
_SOON_SECONDS = 0.1
# An encoder that has not answered a question by then is taken for lost, though it answers pings. It may have much to do
# for other engines, and be no faster than a CPU.
_ANSWER_SECONDS = 120.0
# Between two tries at the start.
_PAUSE_SECONDS = 0.2


class _Connection(NamedTuple):
    """One connection, what ends it, how many bytes the encoder takes at once, and whether its answer is too late."""

    socket: ClientConnection
    ends: ExitStack
    most_bytes: int
    late: Event

    def give_up(self) -> None:
        self.late.set()
        self.cut()

    def cut(self) -> None:
        """End it under a call that sends or waits."""
        with suppress(OSError):
            socket.socket.shutdown(self.socket.socket, socket.SHUT_RDWR)


class EncoderLine:
    """The connection to one encoder, which has to be as `expected`; made when it is needed, and made again. Who asks
    does not wait for it: an address that does not answer holds nobody up."""

    def __init__(self, url: str, key: str | None, expected: Hello) -> None:
        """Raises ModelError where `url` is no address of a WebSocket."""
        if not url.startswith(("ws://", "wss://")):
            raise ModelError(f"encoder: expected an address, ws://host:port or wss://host:port, got {url!r}")
        self.url = url
        self._address = url if url.count("/") > 2 else url + PATH
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._expected = expected
        self._made: _Connection | None = None
        self._opening: Future[_Connection] | None = None
        self._closed = self._asks = False
        self._why = f"encoder {url}: has not answered yet"  # it was away, when it was last
        self.lost = 0  # how often a connection has ended

    @property
    def here(self) -> bool:
        """Whether the encoder was reached when it was asked last."""
        return self._made is not None

    def ask(self, question: RemoteQuestion) -> RemoteAnswer:
        """Its answer. EncoderAwayError where it cannot be reached; another PenstockError where it refuses."""
        data = encode(question)
        made = self._made = self._made or self._reached()
        if len(data) > made.most_bytes:
            raise LimitError(f"encoder {self.url}: expected at most {made.most_bytes} bytes, got {len(data)}")
        try:
            found = ANSWERS.decode(self._answered(made, data))
        except ConnectionClosed as error:
            self.lost += 1
            self._made = None
            made.ends.close()
            why = f"no answer in {_ANSWER_SECONDS:g} s" if made.late.is_set() else f"the connection has ended ({error})"
            self._why = f"encoder {self.url}: {why}"
            raise EncoderAwayError(self._why) from None
        if isinstance(found, RefusedWork):
            raise error_of(found.code, found.message)
        return found

    def check(self, until: float) -> None:
        """See that it is there and as expected, and try again until `until` (`time.monotonic`). EncoderAwayError."""
        while True:
            try:
                self._made = self._made or self._opened()
                return
            except EncoderAwayError:
                if time.monotonic() >= until or self._closed:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        """End the connection, also under a call that waits; there will be no other."""
        self._closed = True
        if (opening := self._opening) is not None:
            opening.add_done_callback(lambda done: done.exception() or done.result().ends.close())
        if (made := self._made) is not None:
            if self._asks:
                made.cut()
            made.ends.close()

    def _answered(self, made: _Connection, data: bytes) -> bytes:
        self._asks, timer = True, Timer(_ANSWER_SECONDS, made.give_up)
        timer.daemon = True
        timer.start()
        try:
            made.socket.send(data)
            return _bytes(made.socket.recv())
        finally:
            timer.cancel()
            self._asks = False

    def _reached(self) -> _Connection:
        """The connection, which a thread of its own makes. EncoderAwayError while there is none."""
        soon = 0.0
        if self._opening is None:
            self._opening, soon = Future(), _SOON_SECONDS
            Thread(target=self._open, args=(self._opening,), name="penstock-encoder-line", daemon=True).start()
        if not wait([self._opening], soon).done:
            raise EncoderAwayError(self._why)
        opening, self._opening = self._opening, None
        try:
            return opening.result()
        except EncoderAwayError as error:
            self._why = str(error)
            raise

    def _open(self, opening: Future[_Connection]) -> None:
        try:
            opening.set_result(self._opened())
        except Exception as error:  # it is raised where the connection is wanted
            opening.set_exception(error)

    def _opened(self) -> _Connection:
        if self._closed:
            raise EncoderAwayError(f"encoder {self.url}: the engine is stopped")
        with ExitStack() as ends:
            line = ends.enter_context(self._connected())
            try:
                hello = ANSWERS.decode(_bytes(line.recv(timeout=_OPEN_SECONDS)))
            except (ConnectionClosed, TimeoutError, TypeError, ValueError) as error:
                why = str(error) or type(error).__name__
                raise EncoderAwayError(
                    f"encoder {self.url}: expected an encoder to say what it has, got {why}"
                ) from None
            self._check(hello)
            assert isinstance(hello, Hello)
            return _Connection(line, ends.pop_all(), hello.most_bytes, Event())

    def _connected(self) -> ClientConnection:
        try:
            return connect(
                self._address,
                additional_headers=self._headers,
                open_timeout=_OPEN_SECONDS,
                close_timeout=_OPEN_SECONDS,
                ping_interval=_PING_SECONDS,
                ping_timeout=_PING_SECONDS,
                compression=None,
                max_size=None,
                proxy=None,
            )
        except InvalidStatus as error:
            body = " ".join((error.response.body or b"").decode(errors="replace").split())
            raise EncoderAwayError(f"encoder {self.url}: refused with {error.response.status_code}: {body}") from None
        except InvalidURI as error:
            raise ModelError(f"encoder: expected an address, ws://host:port, got {self.url!r} ({error})") from None
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
            why = str(error) or type(error).__name__
            raise EncoderAwayError(f"encoder {self.url}: cannot be reached ({why})") from None

    def _check(self, hello: RemoteAnswer) -> None:
        """EncoderAwayError, with both, where another encoder is there than the one that is expected."""
        for name, what in (
            ("version", "Penstock"),
            ("fingerprint", "towers with the fingerprint"),
            ("dtype", "towers in"),
        ):
            wanted, got = getattr(self._expected, name), getattr(hello, name, None)
            if got != wanted:
                model = getattr(hello, "model", "no model")
                raise EncoderAwayError(f"encoder {self.url}: expected {what} {wanted}, got {got} ({model})")


class RemoteTowers(Loudness, AbsentTowers):
    """The towers of an engine whose encoder is elsewhere. `worked`: seconds that it has worked for this engine."""

    def __init__(self, absent: AbsentTowers, line: EncoderLine, device: torch.device) -> None:
        Loudness.__init__(self)
        AbsentTowers.__init__(self, absent.family_towers, device)
        self.line = line
        self.worked = 0.0
        self._device = device

    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """Spans of (stream, segment) pairs. EncoderAwayError, and whatever the encoder refuses them with."""
        if not batch:
            return []
        pieces = [RemotePiece(stream, segment, self.loudest(stream)) for stream, segment in batch]
        made = self.line.ask(EncodePieces(pieces))
        assert isinstance(made, MadeSpans)
        if len(made.spans) != len(batch):
            raise InputError(f"encoder {self.line.url}: expected {len(batch)} spans, got {len(made.spans)}")
        self._loudest |= made.loudest
        self.worked += made.seconds
        return [EncodedSpan(span, embeds.to(self._device)) for span, embeds in made.spans]

    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """A whole prompt, laid here, with the encoder's features of its media."""
        if known is None and content.media:
            made = self.line.ask(EncodeContent(content))
            assert isinstance(made, MadeFeatures)
            self.worked += made.seconds
            known = [(kind, token, [part.to(self._device) for part in parts]) for kind, token, parts in made.features]
        return super().prompt(content, known)

    def statistics(self) -> dict[str, object]:
        """Where the encoder is, whether it was there when it was asked last, how often it was lost."""
        return {"url": self.line.url, "here": self.line.here, "lost": self.line.lost, "seconds": self.worked}


def with_encoder(loaded: Loaded, config: EngineConfig) -> Loaded:
    """The same with towers that ask the encoder which `config` names, once that was reached and found to be the right
    one. ModelError where it is not, within `encoder_seconds`. It blocks."""
    assert config.encoder is not None and isinstance(loaded.towers, AbsentTowers)
    dtype = str(loaded.dtype).removeprefix("torch.")
    expected = Hello(own_version(), loaded.family.data.model, dtype, loaded.towers.fingerprint)
    line = EncoderLine(config.encoder, _key(config.encoder_key_file), expected)
    try:
        line.check(time.monotonic() + config.encoder_seconds)
    except EncoderAwayError as error:
        raise ModelError(str(error)) from error
    return loaded._replace(towers=RemoteTowers(loaded.towers, line, loaded.device))


def _key(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"encoder_key_file: expected a file with a key, got {file}: {error}") from None
    if not lines or not lines[0].strip():
        raise ModelError(f"encoder_key_file: expected a key in the first line of {file}, got none")
    return lines[0].strip()


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data
