"""Positions on three axes (time, height, width). In: how many tokens or which grid. Out: `(3, n)` integer tensors.

With the rule "max" everything goes on behind the largest position so far. With "transformers" it goes on as the
library's own code does. Qwen2.5-Omni: behind the chunk that was laid last; after audio-in-video that chunk may end
before the video does; a sampled token goes where text would go. Qwen2-VL and Qwen2.5-VL (`sides`): as many positions
behind a picture's or video's start as its longer side has tokens; a sampled token goes behind the largest position.
"""

from __future__ import annotations

from collections.abc import Sequence as Row
from typing import Any, Literal, NamedTuple

import torch

Rule = Literal["max", "transformers"]


class Pace(NamedTuple):
    """How a model that hears counts: positions a second, those of a unit of sound inside video, mel frames of a block
    of sound; `twins`: the marks before and behind such a unit share a position."""

    per_second: int
    unit: int
    block_frames: int
    twins: bool


QWEN2_5_OMNI, QWEN3_OMNI = Pace(25, 50, 200, True), Pace(13, 13, 100, False)


def pace_of(config: Any) -> Pace:
    return QWEN3_OMNI if config.model_type == "qwen3_omni_moe_thinker" else QWEN2_5_OMNI


def video_times(grids: int, second_per_grid: float, per_second: int) -> torch.Tensor:
    """The time position of each grid from its block's start; the product is rounded in float32, then cut."""
    seconds = torch.arange(grids) * torch.tensor(second_per_grid, dtype=torch.float32)
    return (seconds * per_second).long()


def times_of(config: Any, grids: int, second_per_grid: float) -> torch.Tensor:
    """The same for the model of `config`: Qwen2-VL counts grids, Qwen2.5-VL rounds the interval first."""
    if config.model_type == "qwen2_vl":
        return torch.arange(grids)
    if config.model_type == "qwen2_5_vl":
        return (torch.arange(grids) * (config.vision_config.tokens_per_second * second_per_grid)).long()
    return video_times(grids, second_per_grid, pace_of(config).per_second)


def unit_grids(times: torch.Tensor, unit: int) -> list[tuple[int, int]]:
    """Which grids `[start, stop)` belong to each unit of so many positions: a new one begins when the time reaches the
    next multiple."""
    starts = [0]
    for grid, time in enumerate(times.tolist()):
        if time >= len(starts) * unit:
            starts.append(grid)
    return list(zip(starts, [*starts[1:], len(times)], strict=True)) if len(times) else []


def grid_places(times: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`(3, len(times) * height * width)` positions of grids of `height` by `width` tokens, from 0."""
    t, h, w = torch.meshgrid(times, torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([t.flatten(), h.flatten(), w.flatten()])


class Places:
    """Hands out positions in the order in which pieces are laid."""

    def __init__(self, rule: Rule = "max", sides: bool = False) -> None:
        self.rule = rule
        self.sides = sides and rule == "transformers"
        self.next = 0
        self.largest = -1

    def text(self, count: int) -> torch.Tensor:
        """`count` tokens of text or audio, sampled tokens, or a wrapper: one position each."""
        return self._lay([torch.arange(count).expand(3, -1)])

    def grids(self, times: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """A picture (one grid, time 0) or a block of video."""
        start = self.next
        laid = self._lay([grid_places(times, height, width)])
        if self.sides:
            self.next = start + max(height, width)
        return laid

    def sampled(self, count: int) -> torch.Tensor:
        """`count` sampled tokens."""
        if self.sides and count:
            self.next = self.largest + 1
        return self.text(count)

    def twins(self) -> torch.Tensor:
        """Two wrapper tokens at one position: around audio-in-video both starts share one, and both ends."""
        return self._lay([torch.zeros(3, 2, dtype=torch.long)])

    def interleaved(self, chunks: Row[torch.Tensor]) -> torch.Tensor:
        """Chunks of audio-in-video; each holds its positions from the start of the whole."""
        return self._lay(list(chunks))

    def _lay(self, chunks: list[torch.Tensor]) -> torch.Tensor:
        laid = torch.cat(chunks, dim=1) + self.next
        if laid.shape[1] == 0:
            return laid
        self.largest = max(self.largest, int(laid.max()))
        last = int(chunks[-1].max()) + self.next
        self.next = (self.largest if self.rule == "max" else last) + 1
        return laid
