"""A stream that is frozen: all that another engine needs to go on with it. Plain data, and tensors in host memory."""

from __future__ import annotations

from typing import Any

import msgspec

from ..streams.event import Error
from ..streams.requests.request import Request
from ..streams.requests.structured import Structured


class Frozen(msgspec.Struct, frozen=True):
    """What a stream is, without its rows in the cache.

    format, why: the format in force, and why it was chosen. seq: the number of its newest input. shown: media has been
    appended; ended: no more will come. media: what decode holds for it. loudest: the loudest sound so far, where towers
    ask for it. state: its conversation and what its rows are, as `conversation/freezing.py` writes them. entries: the
    embeddings that its rows still name. pages: how many pages its rows take, of `page_tokens` rows each.
    structured: the grammars that its reply and its questions ask for. adapter: the fingerprint of the one that it
    wears; empty where it wears none.
    """

    request: Request
    seq: int = 0
    shown: bool = False
    ended: bool = False
    format: str = ""
    why: str = ""
    media: bytes = b""
    loudest: float | None = None
    state: bytes = b""
    entries: list[int] = []
    pages: int = 0
    page_tokens: int = 0
    structured: list[Structured] = []
    adapter: str = ""


class Snapshot(msgspec.Struct, frozen=True, eq=False, tag="snapshot"):
    """A frozen stream with its rows, as tensors: the keys and the values of each layer that has pages of its own,
    `(pages, page_tokens, kv_heads, ...)` each, and the embeddings of its entries by number, as `Embeddings` has them.
    `stream` and `twin` as in `Freeze`. `states`: those of its layers that keep one of all rows, the current one last:
    by layer, tensors by kind and number. `lost`: why the stream could not be copied."""

    stream: int
    twin: int
    frozen: Frozen
    layers: list[tuple[Any, Any]] = []
    embeds: dict[int, tuple[Any, Any]] = {}
    lost: Error | None = None
    states: list[dict[int, dict[tuple[str, int], Any]]] = []
