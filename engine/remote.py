"""What an engine and an encoder in another process say to each other, as plain data, and how that encoder answers.

The encoder keeps nothing of a stream: a piece of sound comes with the loudest sound before it, and the answer says how
loud it has become. So any engine may ask it, and one that was started again goes on where the one before it ended.
"""

from __future__ import annotations

import logging
import time
from importlib import metadata
from itertools import count

import msgspec

from ..errors import InputError, OutOfMemoryError, PenstockError
from ..streams.requests.prompt import Content
from ..streams.segment import Segment
from .embeddings import EncodedSpan, Features
from .encoding import decoder
from .families.findings import TrialFindings
from .family import Towers
from .runner.out_of_memory import is_out_of_memory

log = logging.getLogger("penstock.engine")


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """What an encoder is, its first message. `fingerprint`: of its towers' weights and of what its processor does.
    `version`: of Penstock, whose messages these are. `most_bytes`: of one question. `findings`: of a model that is
    tried, what its trial has found; None: its family has a name."""

    version: str
    model: str
    dtype: str
    fingerprint: str
    most_bytes: int = 0
    findings: TrialFindings | None = None


class RemotePiece(msgspec.Struct, frozen=True, eq=False):
    """A segment of a stream, which the engine numbers; with the loudest sound that it has had, None: there was none."""

    stream: int
    segment: Segment
    loudest: float | None = None


class EncodePieces(msgspec.Struct, frozen=True, eq=False, tag="pieces"):
    """Encode these at once, the sound of a stream in order."""

    pieces: list[RemotePiece]


class EncodeContent(msgspec.Struct, frozen=True, eq=False, tag="content"):
    """Encode the media of a whole prompt, which is decoded."""

    content: Content


class MadeSpans(msgspec.Struct, frozen=True, eq=False, tag="spans"):
    """The spans of pieces, in their order, and how loud each stream has become. `seconds`: how long the towers
    worked."""

    spans: list[EncodedSpan]
    loudest: dict[int, float]
    seconds: float


class MadeFeatures(msgspec.Struct, frozen=True, eq=False, tag="features"):
    """The features of a prompt's media."""

    features: Features
    seconds: float


class RefusedWork(msgspec.Struct, frozen=True, tag="refused"):
    """Why nothing was made: a code of `errors` and its words."""

    code: str
    message: str


RemoteQuestion = EncodePieces | EncodeContent
RemoteAnswer = Hello | MadeSpans | MadeFeatures | RefusedWork
QUESTIONS = decoder(RemoteQuestion)
ANSWERS = decoder(RemoteAnswer)


def own_version() -> str:
    """Of the package that is installed."""
    try:
        return metadata.version("penstock")
    except metadata.PackageNotFoundError:
        return "(not installed)"


_numbers = count(1)  # of the streams of one question, for towers


def answer(towers: Towers, question: RemoteQuestion) -> RemoteAnswer:
    """What these towers make of it. One thread calls this."""
    begun = time.perf_counter()
    try:
        if isinstance(question, EncodeContent):
            features = towers.prompt(question.content).features or []
            return MadeFeatures(features, time.perf_counter() - begun)
        spans, loudest = _encoded(towers, question.pieces)
        return MadeSpans(spans, loudest, time.perf_counter() - begun)
    except PenstockError as error:
        return RefusedWork(error.code, str(error))
    except Exception as error:  # whatever a tower or a processor raises over what was sent
        if is_out_of_memory(error):
            return RefusedWork(OutOfMemoryError.code, "memory ran out in the encoder's process: send less at once")
        log.exception("encoding failed")
        return RefusedWork(InputError.code, f"{type(error).__name__}: {error}")


def _encoded(towers: Towers, pieces: list[RemotePiece]) -> tuple[list[EncodedSpan], dict[int, float]]:
    own = {piece.stream: next(_numbers) for piece in pieces}
    try:
        for piece in pieces:
            if piece.loudest is not None:
                towers.heard(own[piece.stream], piece.loudest)
        spans = towers.encode([(own[piece.stream], piece.segment) for piece in pieces])
        loudest = {stream: towers.loudest(number) for stream, number in own.items()}
        return spans, {stream: level for stream, level in loudest.items() if level is not None}
    finally:
        for number in own.values():
            towers.forget(number)
