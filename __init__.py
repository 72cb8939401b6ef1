"""Penstock: media appended to the KV cache of the request that is running, between two of its decode steps.

    engine = await penstock.Engine.load()              # in this process; loads torch
    connection = await penstock.connect("ws://...")    # a server elsewhere; loads neither torch nor transformers

Items, events, requests and errors are plain data. `import penstock` itself loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .codecs.limits import MediaLimits
from .engine.config import EngineConfig
from .errors import (
    ContextOverflowError,
    DamagedError,
    EncoderAwayError,
    FormatError,
    InputError,
    LimitError,
    MediaError,
    ModelError,
    NotFiniteError,
    OutOfMemoryError,
    OverloadError,
    PenstockError,
    StreamClosedError,
    WorkerError,
)
from .streams.event import (
    Appended,
    Closed,
    Credit,
    Dropped,
    Error,
    Event,
    Evicted,
    Held,
    MediaDecoded,
    ReplyDone,
    ReplyStarted,
    Resting,
    Seen,
    SpeechStarted,
    SpeechStopped,
    Token,
    Usage,
)
from .streams.item import AudioBytes, AudioChunk, Embedding, Image, Item, Text, VideoBytes, VideoFrame
from .streams.requests.request import Request, Sampling, SamplingParams
from .streams.requests.structured import Structured
from .streams.requests.turns import TurnDetection
from .streams.requests.window import Window

if TYPE_CHECKING:
    from .actors.engine import Engine
    from .actors.stream import Reply, Stream
    from .server.client import connect

try:
    __version__ = version("penstock")
except PackageNotFoundError:  # used from a checkout that is not installed
    __version__ = "0"

_LAZY = {
    "Engine": ".actors.engine",
    "Stream": ".actors.stream",
    "Reply": ".actors.stream",
    "connect": ".server.client",
}

__all__ = (
    "Appended",
    "AudioBytes",
    "AudioChunk",
    "Closed",
    "ContextOverflowError",
    "Credit",
    "DamagedError",
    "Dropped",
    "Embedding",
    "EncoderAwayError",
    "Engine",
    "EngineConfig",
    "Error",
    "Event",
    "Evicted",
    "FormatError",
    "Held",
    "MediaDecoded",
    "Image",
    "InputError",
    "Item",
    "LimitError",
    "MediaError",
    "MediaLimits",
    "ModelError",
    "NotFiniteError",
    "OutOfMemoryError",
    "OverloadError",
    "PenstockError",
    "Reply",
    "ReplyDone",
    "ReplyStarted",
    "Request",
    "Resting",
    "Sampling",
    "SamplingParams",
    "Seen",
    "SpeechStarted",
    "SpeechStopped",
    "Stream",
    "StreamClosedError",
    "Structured",
    "Text",
    "Token",
    "TurnDetection",
    "Usage",
    "VideoBytes",
    "VideoFrame",
    "Window",
    "WorkerError",
    "__version__",
    "connect",
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
