"""Options of a model's processor: checked against what the model has, and carried into the sizes of a stream. In:
values by name and a `MediaSpec`. Out: the spec by which frames and pictures are sized. It knows no processor.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import InputError
from ..segment import MediaSpec, Option, SizeRule
from .request import Request

SIZES = ("min_pixels", "max_pixels")


def with_defaults(request: Request, defaults: dict[str, Any], spec: MediaSpec) -> Request:
    """The request with the engine's options below its own, its `video_fps` among them. InputError where one does not
    fit the model.
    """
    options = {**defaults, **request.processor}
    check_options(options, spec)
    fps = options.pop("fps", None)
    return msgspec.structs.replace(request, processor=options, video_fps=request.video_fps or fps)


def check_options(options: dict[str, Any], spec: MediaSpec) -> None:
    """Raise InputError for an option that the model's processor does not have, and for a value out of its range."""
    for name, value in options.items():
        option = spec.options.get(name)
        if option is None:
            allowed = ", ".join(sorted(spec.options)) or "none"
            raise InputError(f"processor option {name!r}: expected one of those that this model has ({allowed})")
        if not _fits(option, value):
            raise InputError(f"processor option {name!r}: expected {_range(option)}, got {value!r}")
    least, most = (options.get(name) for name in SIZES)
    if "max_pixels" in spec.by_piece:
        if least is not None and most is not None and least > most:
            raise InputError(f"processor option 'min_pixels': expected at most max_pixels, {most}, got {least}")
        return
    for rule in (spec.image, spec.video if _frames_are_bounded(spec) else None):
        if rule is not None and (least is not None or most is not None):
            sized = _rule(rule, least, most)
            if sized.min_pixels > sized.max_pixels:
                raise InputError(
                    f"processor option 'min_pixels': expected at most max_pixels, {sized.max_pixels}, "
                    f"got {sized.min_pixels}"
                )


def sized(spec: MediaSpec, options: dict[str, Any]) -> MediaSpec:
    """The spec with the sizes that `options` ask for, and with what goes with each piece to the processor."""
    asked = {name: options[name] for name in spec.by_piece if name in options}
    if asked:
        spec = msgspec.structs.replace(spec, asked=asked)
    least, most = (None if name in spec.by_piece else options.get(name) for name in SIZES)
    if least is None and most is None:
        return spec
    image = None if spec.image is None else _rule(spec.image, least, most)
    video = _rule(spec.video, least, most) if _frames_are_bounded(spec) and spec.video else spec.video
    return msgspec.structs.replace(spec, image=image, video=video)


def sizes_pieces(spec: MediaSpec) -> bool:
    """Whether pictures and frames may be asked for with another number of pixels, before the model's processor."""
    return "max_pixels" in spec.options and "max_pixels" not in spec.by_piece


def _frames_are_bounded(spec: MediaSpec) -> bool:
    """Bounds on pixels hold for frames too, unless a video has one budget for all of its frames."""
    return not spec.video_budget[1]


def _rule(rule: SizeRule, least: int | None, most: int | None) -> SizeRule:
    return msgspec.structs.replace(rule, min_pixels=least or rule.min_pixels, max_pixels=most or rule.max_pixels)


def _fits(option: Option, value: Any) -> bool:
    if option.kind == "switch":
        return isinstance(value, bool)
    kinds = int if option.kind == "whole" else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and option.least <= value <= option.most


def _range(option: Option) -> str:
    if option.kind == "switch":
        return "true or false"
    what = "a whole number" if option.kind == "whole" else "a number"
    return f"{what} in [{option.least:.12g}, {option.most:.12g}]"
