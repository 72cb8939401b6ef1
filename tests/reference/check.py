"""Is a fixture model able to see? In: a model and its processor. Out: what each change of its input does to its reply.

A test that compares two sequences proves nothing with a model that ignores its media. A fixture is accepted only if its
greedy reply varies, is far from ties, and changes with each of the mutations here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from . import pieces as p
from .dense import Sequence, build, greedy
from .media import frames, picture, sound

REPLY = 24


@dataclass(frozen=True)
class Sight:
    """What was found. `changed` has one entry per mutation: did the greedy reply change?"""

    ids: tuple[int, ...]
    smallest_margin: float
    changed: dict[str, bool]

    @property
    def distinct(self) -> int:
        return len(set(self.ids))

    @property
    def accepted(self) -> bool:
        return self.distinct >= 8 and self.smallest_margin > 1e-2 and all(self.changed.values())


def smallest_margin(logits: torch.Tensor) -> float:
    """The smallest distance between the best and the second logit over all rows."""
    best = logits.topk(2).values
    return float((best[:, 0] - best[:, 1]).min())


def scene(seed: int = 1, hears: bool = True) -> list[p.Piece]:
    """A question after a block of video, two blocks of sound (or words, for a model that hears nothing) and a
    picture."""
    return [
        p.System(),
        p.UserStart(),
        p.VideoPiece(frames(seed, 6)),
        p.AudioPiece(sound(seed, 4.0)) if hears else p.Text("Look."),
        p.ImagePiece(picture(seed)),
        p.Text("What do you see?"),
        p.UserEnd(),
        p.AssistantStart(),
    ]


def sees(model: Any, processor: Any, seed: int = 1) -> Sight:
    """Run the scene as it is and with each mutation."""
    hears = hasattr(model.config, "audio_config")
    pieces = scene(seed, hears)
    plain = build(model, processor, pieces)
    ids, logits = greedy(model, plain, REPLY)
    mutations = {name: mutate for name, mutate in _OF_MEDIA.items() if hears or "sound" not in name}
    mutants = {name: build(model, processor, mutate(pieces)) for name, mutate in mutations.items()}
    mutants |= {name: replace(plain, positions=move(plain)) for name, move in _OF_POSITIONS.items()}
    if model.config.model_type != "qwen2_vl":  # which counts grids, whatever their time
        mutants["wrong second_per_grid"] = build(model, processor, pieces, fps=1.0)
    changed = {name: greedy(model, mutant, REPLY)[0] != ids for name, mutant in mutants.items()}
    return Sight(tuple(ids), smallest_margin(logits), changed)


def sees_pictures(model: Any, processor: Any, seed: int = 1) -> Sight:
    """The same for a model whose rows stand on one axis of positions."""
    first, second = p.ImagePiece(picture(seed)), p.ImagePiece(picture(seed + 50))

    def built(*pictures: p.Piece) -> Sequence:
        turn = [p.System(), p.UserStart(), *pictures, p.Text("What do you see?"), p.UserEnd(), p.AssistantStart()]
        return build(model, processor, turn)

    plain = built(first, second)
    film_ids: list[int] = []
    ids, logits = greedy(model, plain, REPLY)
    mutants = {
        "picture replaced": built(p.ImagePiece(picture(77)), second),
        "pictures swapped": built(second, first),
        "picture dropped": built(first),
        "cursor off by one": replace(plain, positions=_late(plain)),
    }
    if hasattr(processor, "video_processor"):
        clip = frames(seed, 4)
        plain_film = built(first, p.VideoPiece(clip))
        mutants |= {"frame replaced": built(first, p.VideoPiece(np.concatenate([clip[:2], frames(77, 2)])))}
        mutants |= {"frames swapped": built(first, p.VideoPiece(clip[[0, 2, 1, 3]]))}
        film_ids = greedy(model, plain_film, REPLY)[0]
    if plain.mutual:
        mutants["rows do not see one another"] = replace(plain, mutual=())
    changed = {
        name: greedy(model, mutant, REPLY)[0] != (film_ids if "frame" in name else ids)
        for name, mutant in mutants.items()
    }
    return Sight(tuple(ids), smallest_margin(logits), changed)


def _frame_replaced(pieces: list[p.Piece]) -> list[p.Piece]:
    return _with_frames(pieces, lambda clip: np.concatenate([clip[:3], picture(77, *clip.shape[1:3])[None], clip[4:]]))


def _frames_swapped(pieces: list[p.Piece]) -> list[p.Piece]:
    return _with_frames(pieces, lambda clip: clip[[0, 4, 2, 3, 1, 5]])


def _with_frames(pieces: list[p.Piece], change: Callable[[np.ndarray], np.ndarray]) -> list[p.Piece]:
    return [p.VideoPiece(change(x.frames)) if isinstance(x, p.VideoPiece) else x for x in pieces]


def _block_silenced(pieces: list[p.Piece]) -> list[p.Piece]:
    def silenced(samples: np.ndarray) -> np.ndarray:
        quiet = samples.copy()
        quiet[32_000:] = 0.0
        return quiet

    return [p.AudioPiece(silenced(x.samples)) if isinstance(x, p.AudioPiece) else x for x in pieces]


def _image_dropped(pieces: list[p.Piece]) -> list[p.Piece]:
    return [x for x in pieces if not isinstance(x, p.ImagePiece)]


def _shifted(axis: int) -> Callable[[Sequence], torch.Tensor]:
    def move(sequence: Sequence) -> torch.Tensor:
        positions = sequence.positions.clone()
        start, stop = sequence.marks[2]
        positions[axis, start:stop] += 1
        return positions

    return move


def _swapped(sequence: Sequence) -> torch.Tensor:
    return sequence.positions[[0, 2, 1]]


def _late(sequence: Sequence) -> torch.Tensor:
    positions = sequence.positions.clone()
    positions[:, sequence.marks[3][0] :] += 1
    return positions


_OF_MEDIA: dict[str, Callable[[list[p.Piece]], list[p.Piece]]] = {
    "frame replaced": _frame_replaced,
    "frames swapped": _frames_swapped,
    "sound block silenced": _block_silenced,
    "picture dropped": _image_dropped,
}
_OF_POSITIONS: dict[str, Callable[[Sequence], torch.Tensor]] = {
    "time shifted": _shifted(0),
    "height shifted": _shifted(1),
    "width shifted": _shifted(2),
    "height and width swapped": _swapped,
    "cursor off by one": _late,
}
