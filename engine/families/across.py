"""Whole prompts of models whose words read media by cross-attention: media as rows before all words. It knows no
families; a family says what words see of it (`Look`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.event import Seen
from ...streams.requests.prompt import Content
from ...streams.segment import MediaSpec, RowSpec, Segment
from ..embeddings import Embeddings, EncodedPrompt, EncodedSpan
from ..span import Look, Rows
from .parts import wanted
from .text import NoTowers


class LargestPrompt(NamedTuple):
    """The one that takes most of the towers: `rows` pass through them at once."""

    content: Content
    rows: int


@runtime_checkable
class WholePrompts(Protocol):
    """Towers whose media comes in whole prompts alone."""

    @property
    def largest_prompt(self) -> LargestPrompt: ...


class PromptTowers(NoTowers):
    """Towers whose media comes in whole prompts alone (class F)."""

    def spec(self) -> MediaSpec:
        """No media goes into a stream."""
        return MediaSpec()

    def rows(self, segment: Segment) -> int:
        raise InputError(f"expected media in a whole prompt, got {type(segment).__name__} in a stream")

    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        if batch:
            raise InputError(f"expected media in a whole prompt, got {len(batch)} pieces in a stream")
        return []

    def taken(self) -> RowSpec:
        """None are taken: where they would stand only the processor says."""
        return RowSpec(0, {})


def laid_across(
    media: torch.Tensor | None, id: int, words: np.ndarray, looks: Sequence[Look], pieces: int, packed: int = 1
) -> EncodedPrompt:
    """A prompt of `words` `(n,)` int64, whose positions count from 0, behind `pieces` pieces of media `(m, hidden)`, of
    which a row of the cache holds `packed` rows. Those have the id `id` and no positions. `looks` count words from 0.
    """
    said = Rows(words, np.broadcast_to(np.arange(len(words), dtype=np.int64), (3, len(words))))
    if media is None:
        return EncodedPrompt([said], [None])
    missing = -len(media) % packed
    media = torch.nn.functional.pad(media, (0, 0, 0, missing)).unflatten(0, (-1, packed)).flatten(1)
    count = len(media)
    looks = tuple(msgspec.structs.replace(look, first=count + look.first) for look in looks)
    ids, nowhere = np.full(count, id, dtype=np.int64), np.zeros((3, count), dtype=np.int64)
    shown = Rows(ids, nowhere, None, Seen(1, "prompt", None, None))
    owners = tuple((piece, count) for piece in range(pieces))
    return EncodedPrompt([shown, said], [Embeddings(media), None], [owners, ()], looks=looks)


def check_whole(name: str) -> None:
    """Raise ModelError where one side of a model is to be loaded alone."""
    if (side := wanted()) is not None:
        lacking = "towers" if side == "language" else "decoder"
        raise ModelError(f"expected all of {name}, whose media is read by its decoder's own layers, got no {lacking}")


def by_pages(decoder: Any, attention: str, change: Callable[[Any], Any]) -> Any:
    """Have a decoder attend by `attention`, with a configuration of its own, as `change` makes it of the one that it
    shares with an encoder. Returns that."""
    config = change(decoder.config)
    config._attn_implementation = attention
    for part in decoder.modules():
        if hasattr(part, "config"):
            part.config = config
    return config
