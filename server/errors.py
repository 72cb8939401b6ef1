"""The errors that belong to the wire and to the server, below `PenstockError`; each has a stable code for the wire.

Knows neither sockets nor the engine. `error_from_code` turns a code that came over the wire back into its class.
"""

from __future__ import annotations

from ..errors import PenstockError, error_of


class HangUp(Exception):
    """Ends a connection: the close code and the reason that its client is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class ConfigError(PenstockError):
    """A server configuration that is refused before anything starts."""

    code = "config"


class MessageError(PenstockError):
    """A message that does not follow the wire.

    `path` is the place in the message's JSON ("$.pts_us"), None where the framing itself is wrong; `stream` and `ref`
    are what could still be read of it.
    """

    code = "message"

    def __init__(
        self, message: str, path: str | None = None, stream: str | None = None, ref: str | None = None
    ) -> None:
        super().__init__(message)
        self.path = path
        self.stream = stream
        self.ref = ref


class ModelNameError(MessageError):
    """A request for another model than the one that is served."""

    code = "model_not_found"


class UnknownStreamError(PenstockError):
    """A message for a stream that is not open on this connection."""

    code = "unknown_stream"


class StreamNameError(PenstockError):
    """A stream name that is already taken on this connection."""

    code = "stream_name"


class ServerLimitError(PenstockError):
    """Over one of the server's limits; says the limit and what came."""

    code = "server_limit"


class RateLimitError(PenstockError):
    """More at a time than the limits of a key allow; says the limit and what came."""

    code = "rate_limit"


class QuotaError(PenstockError):
    """The tokens of a key are used up for today."""

    code = "quota"


class DrainingError(PenstockError):
    """The server is going down and takes nothing new."""

    code = "draining"


class ResumeError(PenstockError):
    """A connection that cannot be gone on with: it is not known, or what was sent on it is no longer kept."""

    code = "resume"


class EngineFailedError(PenstockError):
    """The engine of a server has failed, and the server has ended; the `__cause__` is what ended the engine."""

    code = "engine_failed"


class ConnectionLostError(PenstockError):
    """The WebSocket could not be opened or has closed; says the status or the close code and the reason.

    `status` is that of HTTP where a server answered and refused, else None.
    """

    code = "connection"

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def error_from_code(code: str, message: str, path: str | None = None) -> PenstockError:
    """The error that `code` names, ready to raise; `path` as `MessageError` has it."""
    return MessageError(message, path) if code == MessageError.code else error_of(code, message)
