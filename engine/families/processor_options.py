"""Which options the processor of a model has that nobody named, found by calling it: what changes the tensors of a
picture is an option of the model. In: a processor, and what calls it with a picture. Out: `Option` by name, and what a
call has to be given for the values that a client asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ...streams.segment import Option
from .sizes import VIDEO_FPS

# A height and a width of which a quarter and four times the area differ from it by whole patches in every processor.
_SIDES = (112, 168)
_AREA = _SIDES[0] * _SIDES[1]
_MOST_PIXELS, _LONGEST, _MOST_TILES = 1 << 30, 1 << 14, 64
_TILES = "crop_to_patches"
_SWITCHES = (_TILES, "do_image_splitting", "do_pan_and_scan")

EXPECTED = "expected_frames"

Values = Mapping[str, bool | int | float]


class _Try(NamedTuple):
    """An option, a value that has to change something, and the values beside which it does."""

    name: str
    option: Option
    value: bool | int
    beside: dict[str, bool | int] = {}


class ProcessorOptions:
    """The options of one processor. `found` are those that change something, and `fps`, to which streams keep."""

    def __init__(self, processor: Any) -> None:
        self._images: Any = getattr(processor, "image_processor", None)
        self._videos = getattr(processor, "video_processor", None)
        self.found: dict[str, Option] = {}
        self.by_length = False  # as in `MediaSpec`

    def find(self, call: Callable[[np.ndarray, Values], Mapping[str, Any]], video: bool) -> None:
        """Try each; `call` gives what the processor makes of a picture with these values."""
        pixels = np.random.default_rng(0).integers(0, 256, (*_SIDES, 3), dtype=np.uint8)
        for one in self._tries():
            if _differ(*(_called(call, pixels, {**one.beside, **more}) for more in ({}, {one.name: one.value}))):
                self.found[one.name] = one.option
        if video:
            self.found["fps"] = VIDEO_FPS

    def of_pictures(self, values: Values) -> dict[str, Any]:
        """What a call is given for its pictures."""
        given: dict[str, Any] = {}
        size: dict[str, bool | int | float] = {**_size(self._images)}
        for name, value in values.items():
            if name in _taken(self._images):
                given[name] = value
            elif name in ("min_pixels", "max_pixels", "longest_edge"):
                size["shortest_edge" if name == "min_pixels" else "longest_edge"] = value
                given["size"] = size
        return given

    def of_video(self, values: Mapping[str, Any], frames: int) -> dict[str, Any]:
        """What it is given for its video: what the library says that this part takes. A piece of so many frames, of a
        video of `expected_frames`, has its share of the budget."""
        given: dict[str, Any] = {name: value for name, value in values.items() if name in _taken(self._videos)}
        if EXPECTED in values:
            ends = zip(("shortest_edge", "longest_edge"), ("min_pixels", "max_pixels"), strict=True)
            size = _size(self._videos) | {edge: given.pop(name) for edge, name in ends if name in given}
            given["size"] = {edge: max(1, round(most * frames / values[EXPECTED])) for edge, most in size.items()}
        return given

    def find_share(self, count: Callable[[np.ndarray, Mapping[str, Any]], int], least: int) -> None:
        """Whether the frames of a video share a budget of pixels, so that those of a longer one are smaller; `count`
        gives the rows of frames. A piece of `least` frames with its share then has to be a part of the whole."""
        size = _size(self._videos)
        if size.keys() != {"shortest_edge", "longest_edge"} or not hasattr(self._videos, "merge_size"):
            return
        clip = np.random.default_rng(0).integers(0, 256, (4 * least, *_SIDES, 3), dtype=np.uint8)
        bound = {"shortest_edge": size["shortest_edge"], "longest_edge": max(2 * least * _AREA, size["shortest_edge"])}
        share = {edge: most // 4 for edge, most in bound.items()}
        try:
            whole, alone, part = count(clip, bound), count(clip[:least], bound), count(clip[:least], share)
        except Exception:  # whatever a processor raises for a size that it does not take
            return
        self.by_length = 4 * alone != whole and 4 * part == whole

    def _tries(self) -> list[_Try]:
        part = self._images
        taken, size = _taken(part), _size(part)
        tries = [_Try(name, Option("switch"), not getattr(part, name)) for name in _SWITCHES if name in taken]
        if {_TILES, "max_patches"} <= taken:
            tiles = Option("whole", 1, _MOST_TILES)
            tries.append(_Try("max_patches", tiles, 1, {_TILES: True}))
            tries.append(_Try("min_patches", tiles, 4, {_TILES: True, "max_patches": 4}))
        if size.keys() == {"shortest_edge", "longest_edge"} and hasattr(part, "merge_size"):
            least = (part.patch_size * part.merge_size) ** 2
            pixels = Option("whole", least, _MOST_PIXELS)
            tries.append(_Try("min_pixels", pixels, 4 * _AREA, {"max_pixels": 8 * _AREA}))
            tries.append(_Try("max_pixels", pixels, _AREA // 4, {"min_pixels": least}))
        elif size.keys() == {"longest_edge"}:
            edge = size["longest_edge"]
            tries.append(_Try("longest_edge", Option("whole", 1, _LONGEST), max(1, min(edge, min(_SIDES)) // 2)))
        return tries


def _taken(part: Any) -> frozenset[str]:
    """What a part of a processor may be called with, as far as the library says so."""
    said = getattr(part, "valid_kwargs", None)
    return frozenset(getattr(said, "__annotations__", ()))


def _size(part: Any) -> dict[str, int]:
    size = getattr(part, "size", None) or {}
    return {name: value for name, value in dict(size).items() if value is not None}


def _called(
    call: Callable[[np.ndarray, Values], Mapping[str, Any]], pixels: np.ndarray, values: Values
) -> Mapping[str, Any] | None:
    try:
        return call(pixels, values)
    except Exception:  # whatever a processor raises for a value that it does not take
        return None


def _differ(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    if one is None or other is None:
        return False
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            there = other.get(name)
            if there is None or there.shape != value.shape or not torch.equal(there, value):
                return True
    return False
