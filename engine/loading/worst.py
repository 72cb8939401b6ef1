"""The memory that the largest step and the largest turn of the encoder take beside weights and cache. In: a loaded
checkpoint. Out: bytes: on CUDA measured, by running both; elsewhere estimated from sizes, since running them on a CPU
takes long. It knows no streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch

from ...streams.requests.options import sized
from ...streams.segment import AudioSegment, ImageSegment, MediaSpec, Segment, SizeRule, VideoSegment
from ...streams.size import fit
from ..config import EngineConfig
from ..families.absent import AbsentTowers
from ..families.across import LargestPrompt, WholePrompts
from ..family import Loaded
from ..plan import Draw, Feed, Plan, TableEdit
from ..runner.attention import Backend
from ..runner.language import LanguageModel
from ..runner.out_of_memory import NoRoom, is_out_of_memory
from ..runner.sampler import at_once
from ..span import Rows

# Tensors alive at once in a decoder layer: so many as wide as its widest linear layer, and as its hidden size.
_WIDE, _NARROW = 4, 8
# Copies of the logits in float32 that drawing tokens makes of those that it works on at once: weighed, their shares,
# in order, summed, masks.
_DRAWN = 8
# Patches of a tower that become one row.
_MERGED = 4
# Numbers of a picture that become one row, at most. A picture that is not sized before its processor has it is larger.
_PIXELS = 64 * 64 * 3
# Bytes for each number of one picture or sound while its processor works on it.
_RESIZED = 20
# Streams of the step that is run, where each has states.
_STATEFUL = 4
# The side of such a picture that is taken for a large one; and how often it may be as high as it is wide, since a
# processor may cut more tiles of a long one.
_UNSIZED = 2048
_RATIOS = (1.0, 4 / 3, 3 / 4, 2.0, 1 / 2, 4.0, 1 / 4)


def worst_case(loaded: Loaded, config: EngineConfig, backend: Backend) -> tuple[int, int]:
    """Bytes of the largest step, and of the largest turn of the encoder. NoRoom where they do not fit. Without weights
    (on "meta") they are estimated, for whatever device."""
    if loaded.device.type != "cuda":
        return _estimated_step(loaded, config), _estimated_turn(loaded, config)
    try:
        return measured(loaded, config, backend, lambda work: _peak(loaded.device, work))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise NoRoom(
            f"needs more memory than is free on {loaded.device} for a step of {config.step_rows} rows or for "
            f"{config.encoder_tokens} rows of the encoder"
        ) from error


def measured(
    loaded: Loaded, config: EngineConfig, backend: Backend, peak: Callable[[Callable[[], object]], int]
) -> tuple[int, int]:
    """Both by running them; `peak` tells how many bytes more than before a call had at once."""
    most = _STATEFUL if loaded.family.data.stateful else _draws(config)  # memory.py counts the states of more
    feeds = min(most, config.step_rows)
    plan = _step(feeds, config.step_rows // feeds, backend.page_tokens)
    language = LanguageModel(loaded, len(plan.edits[0].pages), backend.page_tokens, feeds, backend)
    step = peak(partial(language.run, plan))
    del language  # with its pages, before the encoder is measured
    turns = [peak(partial(loaded.towers.encode, turn)) for turn in largest_turns(loaded, config)]
    if (largest := largest_prompt(loaded)) is not None:
        turns.append(peak(partial(loaded.towers.prompt, largest.content)))
    loaded.towers.forget(0)
    return step, max(turns, default=0)


def largest_turns(loaded: Loaded, config: EngineConfig) -> list[list[tuple[int, Segment]]]:
    """What the encoder may be granted at once, of each modality: the largest pieces, as many as fit its budget and at
    least one."""
    if isinstance(loaded.towers, AbsentTowers):
        return []
    turns = []
    whole = loaded.family.data.classes.get("audio") == "F"  # in a stream it is listened to at most
    for pieces in _pieces(sized(loaded.family.spec, config.processor), not whole):
        piece, rows = _largest_of(pieces, loaded)
        turns.append([(0, piece)] * max(1, config.encoder_tokens // rows))
    return turns


def largest_prompt(loaded: Loaded) -> LargestPrompt | None:
    """What takes most of towers that encode whole prompts alone; None where they take pieces, too."""
    return loaded.towers.largest_prompt if isinstance(loaded.towers, WholePrompts) else None


def linear_layers(modules: Iterable[Any]) -> list[Any]:
    """All layers below `modules` that go from one width to another."""
    return [layer for module in modules for layer in module.modules() if hasattr(layer, "out_features")]


def _peak(device: torch.device, work: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def _step(feeds: int, rows: int, page_tokens: int) -> Plan:
    """A first step of so many streams with so many rows each, all of which draw. They share their pages: what these
    hold does not matter."""
    pages = -(-rows // page_tokens)
    ids, places = np.zeros(rows, dtype=np.int64), np.broadcast_to(np.arange(rows, dtype=np.int64), (3, rows))
    draw = Draw(temperature=1.0, top_k=50, top_p=0.9)
    edits = [TableEdit(slot, 0, list(range(pages))) for slot in range(feeds)]
    return Plan(0, [], [], edits, [], [], [Feed(slot, slot, 0, [Rows(ids, places)], draw) for slot in range(feeds)])


def _pieces(spec: MediaSpec, hears: bool) -> list[list[Segment]]:
    """Of each modality the pieces of which one is the largest."""
    pieces: list[list[Segment]] = []
    if spec.image is not None:
        side = math.isqrt(spec.image.largest)
        shapes = [*_large(spec.image), *([] if spec.image.factor > 1 else [(side, side)])]
        pieces.append([ImageSegment(1, 0, np.zeros((*shape, 3), dtype=np.uint8)) for shape in shapes])
    if spec.video is not None:
        shapes = [(spec.temporal_patch, *shape, 3) for shape in _large(spec.video)]
        pieces.append([VideoSegment(1, 0, np.zeros(shape, dtype=np.uint8), 0, 0) for shape in shapes])
    if spec.audio_rate and hears:
        samples = np.zeros(spec.block_samples + spec.look_ahead_samples, dtype=np.float32)
        pieces.append([AudioSegment(1, 0, samples, 0, spec.block_samples // spec.hop_samples, 1, 0, 0)])
    return pieces


def _large(rule: SizeRule) -> list[tuple[int, int]]:
    """Heights and widths of large pictures: of one where the rule says it, of several where only a processor knows."""
    side = max(1, math.isqrt(rule.largest))
    if rule.factor > 1:
        return [fit(rule, side, side)]
    side = min(side, _UNSIZED)
    return [(max(1, round(side * ratio**0.5)), max(1, round(side / ratio**0.5))) for ratio in _RATIOS]


def _largest_of(pieces: list[Segment], loaded: Loaded) -> tuple[Segment, int]:
    """The piece with the most rows, and how many."""
    first, *others = pieces
    found, most = first, max(1, loaded.towers.rows(first))
    for piece in others:
        try:
            rows = loaded.towers.rows(piece)
        except Exception:  # whatever a processor raises that does not take this shape, of clients neither
            continue
        if rows > most:
            found, most = piece, rows
    return found, most


def _draws(config: EngineConfig) -> int:
    """From how many rows a step draws at most: the newest of each stream, and those of guesses."""
    guesses = 0 if config.speculative is None else config.speculative_tokens
    return min(config.slots * (1 + guesses), config.step_rows)


def _estimated_step(loaded: Loaded, config: EngineConfig) -> int:
    weight = loaded.text.get_input_embeddings().weight
    widest = max((layer.out_features for layer in linear_layers([loaded.text])), default=0)
    layers = config.step_rows * (_WIDE * widest + _NARROW * weight.shape[1]) * weight.element_size()
    vocabulary = loaded.family.data.vocabulary
    logits = _draws(config) * vocabulary
    return layers + 4 * (logits + _DRAWN * min(logits, max(vocabulary, at_once(loaded.device))))


def _estimated_turn(loaded: Loaded, config: EngineConfig) -> int:
    size = loaded.dtype.itemsize
    widths = [max(layer.in_features, layer.out_features) for layer in linear_layers(loaded.towers.blocks)]
    turns = [0]
    for turn in largest_turns(loaded, config):
        piece = turn[0][1]
        rows = loaded.towers.rows(piece)
        raw = np.size(getattr(piece, "pixels", getattr(piece, "samples", 0)))
        passed = rows * _MERGED * (_WIDE + _NARROW) * max(widths, default=0) * size
        turns.append(len(turn) * (passed + min(raw, rows * _PIXELS) * (8 + size)) + raw * _RESIZED)
    if (largest := largest_prompt(loaded)) is not None:
        raw = sum(np.size(piece.data) for pieces in largest.content.by_kind().values() for piece in pieces)
        turns.append(largest.rows * (_WIDE + _NARROW) * max(widths, default=0) * size + raw * _RESIZED)
    return max(turns)
