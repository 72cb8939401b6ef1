"""One piece of media as a processor lays it where it stands alone, and small things that are done to a processor's
output. It knows no families."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ...codecs.resample import resample
from ...errors import ModelError


class Alone(NamedTuple):
    """What a processor lays for one piece of media between the marks of its block: `ids` `(n,)`, at which of them
    features stand, where each stands `(3, n)`, counted from the first, and how far on what follows stands."""

    inputs: Any
    ids: np.ndarray
    media: np.ndarray
    places: np.ndarray | None
    behind: int

    @property
    def offsets(self) -> np.ndarray:
        """Where its rows stand, `(3, n)`; one after the other where no rule says."""
        return np.arange(len(self.ids))[None].repeat(3, 0) if self.places is None else self.places

    @property
    def ends(self) -> tuple[int, int]:
        """The first and the last place of a row of media."""
        where = np.flatnonzero(self.media)
        if not len(where):
            raise ModelError("its processor lays no row for a piece of media")
        return int(where[0]), int(where[-1])

    @property
    def own(self) -> tuple[int, int]:
        """The same, with the marks before and after that do not stand where words would."""
        (first, last), count = self.ends, len(self.ids)
        if self.places is None:
            return first, last
        words = np.arange(count)
        before = np.flatnonzero((self.places[:, :first] != words[:first]).any(0))
        words += self.behind - count
        after = np.flatnonzero((self.places[:, last + 1 :] != words[last + 1 :]).any(0))
        return int(before[0]) if len(before) else first, last + 1 + int(after[-1]) if len(after) else last


def longest_run(media: np.ndarray) -> int:
    """How many rows of media stand side by side at most, `media` `(n,)` bool."""
    edges = np.flatnonzero(np.diff(media.astype(np.int8), prepend=0, append=0))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def flat(rows: Any) -> torch.Tensor:
    """Rows of several pieces as one `(n, hidden)`."""
    parts = [rows] if isinstance(rows, torch.Tensor) else list(rows)
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def longer(inputs: Any, ids: torch.Tensor) -> dict[str, Any]:
    """A processor's output with these ids more, as text."""
    shape = inputs["input_ids"].shape
    made = dict(inputs)
    for name, value in made.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            more = ids if name == "input_ids" else torch.full_like(ids, name == "attention_mask")
            made[name] = torch.cat([value, more[None].to(value)], 1)
    return made


def typed(inputs: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """A processor's output with real numbers of this type."""
    made = dict(inputs)
    for name, value in made.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            made[name] = value.to(dtype)
    return made


def at_rate(samples: np.ndarray, rate: int, wanted: int, device: torch.device) -> np.ndarray:
    """A sound at the wanted rate; `rate` 0: it has that."""
    if rate in (0, wanted):
        return samples
    return resample(torch.as_tensor(samples, device=device), rate, wanted).cpu().numpy()
