"""Whether the layers of a quantised checkpoint run here: their kernels take some shapes only, and say so when they are
called. In: a loaded checkpoint. Out: nothing; or ModelError with what they say. Nothing is compared.
"""

from __future__ import annotations

import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.segment import AudioSegment, ImageSegment, Segment, SizeRule, VideoSegment
from ...streams.size import fit
from ..families.absent import AbsentTowers
from ..family import Loaded
from ..runner.language import LanguageModel
from ..runner.out_of_memory import is_out_of_memory
from .worst import first_step

_ROWS = 12
# The side of a picture before it is made as large as the model takes at least.
_SIDE = 64


def check_runs(loaded: Loaded) -> None:
    """Run a few rows, where the decoder has its weights, and one small piece of each kind of media, where the towers
    have theirs."""
    if loaded.device.type == "cpu" and loaded.dtype == torch.float16:
        raise ModelError(
            "expected float32 or bfloat16 on a CPU, got float16, which its quantisation makes of the model"
        )
    try:
        if not loaded.text.get_input_embeddings().weight.is_meta:
            LanguageModel(loaded, 1, _ROWS, slots=1).run(first_step(1, _ROWS, _ROWS))
        if not isinstance(loaded.towers, AbsentTowers):
            with torch.inference_mode():
                _encode(loaded)
    except Exception as error:  # whatever a kernel raises over shapes that it does not take
        if is_out_of_memory(error):
            raise
        why = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"expected quantised layers that run here, got: {why}") from error


def _encode(loaded: Loaded) -> None:
    """A small piece of each kind of media that comes in by pieces."""
    spec, classes = loaded.family.spec, loaded.family.data.classes
    pieces: list[Segment] = []
    if spec.image is not None:
        pieces.append(ImageSegment(1, 0, np.zeros((*_small(spec.image), 3), dtype=np.uint8)))
    if spec.video is not None:
        shape = (spec.temporal_patch, *_small(spec.video), 3)
        pieces.append(VideoSegment(1, 0, np.zeros(shape, dtype=np.uint8), 0, 0))
    if spec.audio_rate and classes.get("audio") != "F":
        samples = np.zeros(spec.block_samples + spec.look_ahead_samples, dtype=np.float32)
        pieces.append(AudioSegment(1, 0, samples, 0, spec.block_samples // spec.hop_samples, 1, 0, 0))
    for piece in pieces:
        try:
            loaded.towers.encode([(0, piece)])
        except InputError:  # one that clients may not send either
            continue
    loaded.towers.forget(0)


def _small(rule: SizeRule) -> tuple[int, int]:
    return fit(rule, _SIDE, _SIDE) if rule.factor > 1 else (_SIDE, _SIDE)
