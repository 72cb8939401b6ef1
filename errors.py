"""The errors that Penstock raises, in one tree.

    PenstockError                  everything below; carries a stable `code` for the wire
    ├── MediaError                 bytes from a client that cannot be used
    │   ├── FormatError            not one of the formats that are opened
    │   ├── LimitError             over a limit; says the limit and what came
    │   ├── DamagedError           the right format, but broken or cut short
    │   └── WorkerError            the process that decoded it died or ran out of time
    ├── InputError                 an input that this stream or model cannot take
    ├── ContextOverflowError       more rows or positions than the model or the cache has
    ├── StreamClosedError          the stream has ended; says why
    ├── OverloadError              a live stream that the machine would not keep up with
    ├── OutOfMemoryError           memory ran out for an input or a stream
    ├── EncoderAwayError           the encoder in another process cannot be reached; says why
    ├── NotFiniteError             a model that gave NaN or infinity
    └── ModelError                 a model that cannot be loaded or served; says why

Each message says what was expected and what came.
"""

from __future__ import annotations


class PenstockError(Exception):
    """Base of all errors that Penstock raises on purpose. `code` is stable and goes over the wire."""

    code = "internal"


def code_of(error: BaseException) -> str:
    """The code that `error` has on the wire: that of any that is not ours is "internal"."""
    return error.code if isinstance(error, PenstockError) else PenstockError.code


class MediaError(PenstockError):
    """Media bytes that cannot be used."""

    code = "media"


class FormatError(MediaError):
    """The bytes are not in a format that Penstock opens."""

    code = "media_format"


class LimitError(MediaError):
    """The media is larger than a limit allows."""

    code = "media_limit"


class DamagedError(MediaError):
    """The media is broken or cut short."""

    code = "media_damaged"


class WorkerError(MediaError):
    """The process that decoded this media died or took longer than it may."""

    code = "media_worker"


class InputError(PenstockError):
    """An input that this stream or this model cannot take."""

    code = "input"


class ContextOverflowError(PenstockError):
    """An input would need more rows or positions than there are."""

    code = "context_overflow"


class StreamClosedError(PenstockError):
    """The stream has ended."""

    code = "stream_closed"


class OverloadError(PenstockError):
    """There is no room for one more stream now: as many are open as may be, or the machine would not keep up with the
    frames that it declares. Says what is needed and what is left."""

    code = "overload"


class OutOfMemoryError(PenstockError):
    """Memory ran out while this input was encoded or this stream was fed."""

    code = "out_of_memory"


class EncoderAwayError(PenstockError):
    """The encoder that runs in another process cannot be reached, or is not the one that was expected."""

    code = "encoder_away"


class NotFiniteError(PenstockError):
    """A tower or the language model gave NaN or infinity for this input or this stream."""

    code = "not_finite"


class ModelError(PenstockError):
    """A model that cannot be loaded or served."""

    code = "model"


def error_of(code: str, message: str) -> PenstockError:
    """The error that `code` names, ready to raise. A code that is not known gives a `PenstockError` that carries it."""
    error = _codes(PenstockError).get(code, PenstockError)(message)
    error.code = code
    return error


def _codes(root: type[PenstockError]) -> dict[str, type[PenstockError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= _codes(child)
    return found
