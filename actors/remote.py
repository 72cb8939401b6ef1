"""An encoder in another process, as the towers of this engine: segments and prompts go to it over a WebSocket, spans
and features come back. In: its address. Out: what the towers here would have given, or EncoderAwayError.

One thread calls it (`WorkThread`), but for `close`. What is kept of a stream is kept here, so that an encoder that was
started again knows all that it needs (engine/remote.py). It knows no actors: who waits for an encoder that is away, and
for how long, is decided in encode.py.
"""

from __future__ import annotations

import logging
import ssl
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from ..engine.config import EngineConfig
from ..engine.embeddings import EncodedPrompt, EncodedSpan, Features
from ..engine.encoding import encode
from ..engine.families.absent import AbsentTowers
from ..engine.families.findings import TrialFindings
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
from .lines import EncoderLines, EncoderPort

log = logging.getLogger("penstock.actors")

PATH = "/v1/encode"
_OPEN_SECONDS = 5.0
# An encoder that does not answer a ping within this time is taken for lost; the thread that encodes does not answer it.
_PING_SECONDS = 10.0
# Between two tries at the start.
_PAUSE_SECONDS = 0.2


class EncoderLine:
    """The connection to one encoder, which has to be as `expected`; made when it is needed, and made again."""

    def __init__(self, url: str, key: str | None, expected: Hello) -> None:
        """Raises ModelError where `url` is no address of a WebSocket."""
        if not url.startswith(("ws://", "wss://")):
            raise ModelError(f"encoder: expected an address, ws://host:port or wss://host:port, got {url!r}")
        self.url = url
        self._address = url if url.count("/") > 2 else url + PATH
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._expected = expected
        self._socket: ClientConnection | None = None
        self._ends = ExitStack()  # of that connection
        self._closed = False
        self.hello = expected  # of the encoder that is there
        self.lost = 0  # how often a connection has ended

    @property
    def here(self) -> bool:
        """Whether the encoder was reached when it was asked last."""
        return self._socket is not None

    def ask(self, question: RemoteQuestion) -> RemoteAnswer:
        """Its answer. EncoderAwayError where it cannot be reached; another PenstockError where it refuses."""
        data = encode(question)
        try:
            if self._socket is None:
                self._socket = self._opened()
            if len(data) > self.hello.most_bytes:
                raise LimitError(f"encoder {self.url}: expected at most {self.hello.most_bytes} bytes, got {len(data)}")
            self._socket.send(data)
            found = ANSWERS.decode(self._received())
        except ConnectionClosed as error:
            self._drop()
            raise EncoderAwayError(f"encoder {self.url}: the connection has ended ({error})") from None
        if isinstance(found, RefusedWork):
            raise error_of(found.code, found.message)
        return found

    def check(self, until: float) -> None:
        """See that it is there and as expected, and try again until `until` (`time.monotonic`). EncoderAwayError."""
        while True:
            try:
                self._socket = self._socket or self._opened()
                return
            except EncoderAwayError:
                if time.monotonic() >= until or self._closed:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        """End the connection, also under a call that waits; there will be no other."""
        self._closed = True
        self._ends.close()

    def _opened(self) -> ClientConnection:
        if self._closed:
            raise EncoderAwayError(f"encoder {self.url}: the engine is stopped")
        try:
            socket = self._ends.enter_context(
                connect(
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
            )
        except InvalidStatus as error:
            body = " ".join((error.response.body or b"").decode(errors="replace").split())
            raise EncoderAwayError(f"encoder {self.url}: refused with {error.response.status_code}: {body}") from None
        except InvalidURI as error:
            raise ModelError(f"encoder: expected an address, ws://host:port, got {self.url!r} ({error})") from None
        except ssl.SSLCertVerificationError as error:
            trusted = "that this machine trusts, or that SSL_CERT_FILE names"
            raise EncoderAwayError(
                f"encoder {self.url}: expected a certificate {trusted}, got another ({error.verify_message})"
            ) from None
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
            why = str(error) or type(error).__name__
            raise EncoderAwayError(f"encoder {self.url}: cannot be reached ({why})") from None
        try:
            hello = ANSWERS.decode(_bytes(socket.recv(timeout=_OPEN_SECONDS)))
            self._check(hello)
            assert isinstance(hello, Hello)
            self.hello = hello
        except (ConnectionClosed, TimeoutError, TypeError, ValueError) as error:
            self._ends.close()
            why = str(error) or type(error).__name__
            raise EncoderAwayError(f"encoder {self.url}: expected an encoder to say what it has, got {why}") from None
        except EncoderAwayError:
            self._ends.close()
            raise
        return socket

    def _check(self, hello: RemoteAnswer) -> None:
        """EncoderAwayError, with both, where another encoder is there than the one that is expected; what is empty may
        be anything."""
        for name, what in (
            ("version", "Penstock"),
            ("fingerprint", "towers with the fingerprint"),
            ("dtype", "towers in"),
        ):
            wanted, got = getattr(self._expected, name), getattr(hello, name, None)
            if got != wanted and (wanted or got is None):
                model = getattr(hello, "model", "no model")
                raise EncoderAwayError(f"encoder {self.url}: expected {what} {wanted}, got {got} ({model})")

    def _received(self) -> bytes:
        assert self._socket is not None
        return _bytes(self._socket.recv())

    def _drop(self) -> None:
        self.lost += 1
        self._socket = None
        self._ends.close()


class RemoteTowers(AbsentTowers):
    """The towers of an engine whose encoder is elsewhere. `worked`: seconds that it has worked for this engine."""

    def __init__(self, absent: AbsentTowers, line: EncoderPort, device: torch.device) -> None:
        super().__init__(absent.family_towers, device)
        self.line = line
        self.worked = 0.0
        self._device = device
        self._loudest: dict[int, float] = {}

    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """Spans of (stream, segment) pairs. EncoderAwayError, and whatever the encoder refuses them with."""
        if not batch:
            return []
        pieces = [RemotePiece(stream, segment, self._loudest.get(stream)) for stream, segment in batch]
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

    def fork(self, stream: int, twin: int) -> None:
        if stream in self._loudest:
            self._loudest[twin] = self._loudest[stream]

    def loudest(self, stream: int) -> float | None:
        return self._loudest.get(stream)

    def heard(self, stream: int, loudest: float) -> None:
        self._loudest[stream] = loudest

    def forget(self, stream: int) -> None:
        self._loudest.pop(stream, None)


def findings_there(config: EngineConfig) -> TrialFindings | None:
    """What the trial has found where the encoder is that `config` names; None: it has tried nothing. ModelError where
    it cannot be asked within `encoder_seconds`. It blocks."""
    line = _met(config, Hello(own_version(), "", "", ""))
    line.close()
    return line.hello.findings


def with_encoder(loaded: Loaded, config: EngineConfig) -> Loaded:
    """The same with towers that ask the encoder which `config` names, once that was reached and found to be the right
    one. ModelError where it is not, within `encoder_seconds`. It blocks."""
    assert isinstance(loaded.towers, AbsentTowers)
    dtype = str(loaded.dtype).removeprefix("torch.")
    expected = Hello(own_version(), loaded.family.data.model, dtype, loaded.towers.fingerprint)
    line = _met(config, expected)
    return loaded._replace(towers=RemoteTowers(loaded.towers, line, loaded.device))


def _met(config: EngineConfig, expected: Hello) -> EncoderPort:
    """The connection to the encoder, or to several. ModelError where none is there that is as expected, within
    `encoder_seconds`."""
    assert config.encoder is not None
    key = _key(config.encoder_key_file)
    lines = [EncoderLine(url.strip(), key, expected) for url in config.encoder.split(",")]
    line = lines[0] if len(lines) == 1 else EncoderLines(lines)
    try:
        line.check(time.monotonic() + config.encoder_seconds)
    except EncoderAwayError as error:
        raise ModelError(str(error)) from error
    return line


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
