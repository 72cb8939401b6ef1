"""Towers whose weights are not in this process. They say how many rows a medium has, lay prompts whose features come
from elsewhere, and make none themselves. In: the towers of a family that was loaded without weights for them.
"""

from __future__ import annotations

from typing import Any

import torch

from ...errors import InputError
from ...streams.requests.prompt import Content
from ...streams.segment import AudioSegment, RowSpec, Segment, VideoSegment
from ..embeddings import EncodedPrompt, EncodedSpan, Features
from ..family import TimeTaken, Towers
from ..span import Span

ELSEWHERE = "no tower is loaded (language_only): what an encoder elsewhere made of it comes in as Embedding"


class AbsentTowers:
    """What a family says of media, without its encoders. Prompts are laid on `device`, the decoder's."""

    def __init__(self, towers: Towers, device: torch.device) -> None:
        self.family_towers: Any = towers
        self.family_towers.device = device
        self.blocks: list[Any] = []
        self.times_inside: bool = towers.times_inside
        self.fingerprint = ""  # of the towers that the checkpoint has; empty where nobody has asked

    def rows(self, segment: Segment) -> int:
        return self.family_towers.rows(segment)

    def knows(self, segment: Segment) -> bool:
        return self.family_towers.knows(segment)

    def takes(self, piece: VideoSegment | AudioSegment) -> TimeTaken:
        return self.family_towers.takes(piece)

    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """InputError for media."""
        if batch:
            raise InputError(f"expected text or Embedding, got {type(batch[0][1]).__name__}: {ELSEWHERE}")
        return []

    def timed(self, span: Span) -> Span:
        return self.family_towers.timed(span)

    def taken(self) -> RowSpec:
        return self.family_towers.taken()

    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """A whole prompt; InputError for media without its features."""
        if known is None and content.media:
            raise InputError(f"expected text, got {len(content.media)} pieces of media: {ELSEWHERE}")
        return self.family_towers.prompt(content, known)

    def fork(self, stream: int, twin: int) -> None:
        """Nothing is kept per stream."""

    def loudest(self, stream: int) -> float | None:
        """Nothing is kept per stream."""

    def heard(self, stream: int, loudest: float) -> None:
        """Nothing is kept per stream."""

    def forget(self, stream: int) -> None:
        """Nothing is kept per stream."""
