"""Any model of `transformers` that takes pictures through its `AutoProcessor`, tried at load: served where one prompt
with a picture gives over pages the logits that the library gives, else refused.

Nothing in here is about one architecture. In a stream every picture goes through the model's processor alone, so it is
the same rows wherever it stands: tiles, marks between them and all. Its rows are causal: class A. Frames of a video and
sound are not taken.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.requests.prompt import Content, Media
from ...streams.segment import ImageSegment, Segment
from ..embeddings import Embeddings, EncodedSpan, Features
from ..family import Family, FamilyData, Loaded
from ..runner.gate import tower_pass
from ..runner.probe import check_prompt
from ..span import Span
from ..words.template import learn
from .one_axis import NO_GRID, OneAxisTowers
from .prompt import process
from .text import check_text
from .towers import ATTENTION, as_files, open_sight

_LARGE = 2048  # pixels of a side
_PIXELS = {"pixel_values", "pixel_values_images"}  # what processors call them
_SAME = 0.02  # of the largest number: rounding in bf16 stays below a quarter of it


class TriedTowers(OneAxisTowers):
    """Whatever `get_image_features` runs, with the processor before it."""

    def __init__(self, model: Any, processor: Any, blocks: Any) -> None:
        super().__init__(model, processor, blocks)
        self._takes = inspect.signature(model.get_image_features).parameters.keys()
        self.image_rows = self._inputs(np.zeros((_LARGE, _LARGE, 3), dtype=np.uint8))["input_ids"].shape[1]

    def rows(self, segment: Segment) -> int:
        """As many as a large picture has, which is the most: how many it will be only the processor knows, and that
        takes long."""
        return self.image_rows

    @torch.inference_mode()
    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """Spans of (stream, segment) pairs, one picture at a time: some towers pad pictures to the largest."""
        return [self._span(segment) for _, segment in batch]

    def encode_prompt(self, inputs: Any) -> Features:
        if not _PIXELS & inputs.keys():
            return []
        return [("image", self.config.image_token_id, [Embeddings(self._features(inputs))])]

    def _inputs(self, pixels: np.ndarray) -> Any:
        given = {"text": [self.processor.image_token], "images": [as_files([pixels])]}
        return self.processor(**given, return_tensors="pt", add_special_tokens=False)

    def _span(self, segment: Segment) -> EncodedSpan:
        """All that the processor lays for one picture; words between tiles are embedded here."""
        if not isinstance(segment, ImageSegment):
            raise InputError(f"expected a picture, got {type(segment).__name__}")
        inputs = self._inputs(segment.pixels).to(self.device)
        ids = inputs["input_ids"][0]
        embeds = self.model.get_input_embeddings()(ids)
        embeds[ids == self.config.image_token_id] = self._features(inputs).to(embeds.dtype)
        place = (segment.seq, segment.index, "image")
        times = (segment.start_us, segment.stop_us)
        span = Span(*place, ids.cpu().numpy().astype(np.int64), NO_GRID, len(ids), 0, *times)
        return EncodedSpan(span, Embeddings(embeds))

    def _features(self, inputs: Any) -> torch.Tensor:
        given = {name: value for name, value in inputs.items() if name in self._takes}
        (name,) = _PIXELS & given.keys()
        given[name] = given[name].to(self.model.dtype)
        rows = tower_pass(self.model.get_image_features, **given, return_dict=True).pooler_output
        return torch.cat([row.reshape(-1, row.shape[-1]) for row in rows])


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A model that sees, from `path`, in `dtype` on `device`. ModelError that says why it cannot be served."""
    processor, model = open_sight(path, dtype, device)
    inner, decoder, config = model.model, model.get_decoder(), model.config.get_text_config()
    if any(hasattr(part, "get_rope_index") for part in (model, inner)):
        raise ModelError("its pictures stand on several axes of positions, by a rule of its own (get_rope_index)")
    for thing, name in ((processor, "image_token"), (model.config, "image_token_id"), (inner, "get_image_features")):
        if not hasattr(thing, name):
            raise ModelError(f"expected {name} on its {type(thing).__name__}, got none")
    words = decoder.get_input_embeddings().weight.shape[0]
    if model.config.image_token_id >= words:
        raise ModelError(f"expected a placeholder among its {words} words, got id {model.config.image_token_id}")
    check_text(config)
    towers = TriedTowers(inner, processor, _blocks(inner, decoder))
    data = FamilyData(
        name=model.config.model_type,
        model=str(path),
        spec=towers.spec(),
        **learn(processor, processor.tokenizer, model.generation_config, towers.placeholders()),
        classes=towers.classes,
        per_second=0.0,
        axes=1,
        max_positions=config.max_position_embeddings,
        vocabulary=config.vocab_size,
    )
    loaded = Loaded(Family(data, processor.tokenizer), towers, decoder, model.get_output_embeddings(), config)
    if device.type != "meta":
        try_picture(loaded, towers, model)
    return loaded


def _blocks(model: Any, decoder: Any) -> Any:
    """The layers of the vision tower: of those outside the decoder the longest list."""
    inside = set(decoder.modules())
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and part not in inside]
    return max(lists, key=len, default=())


def try_picture(loaded: Loaded, towers: TriedTowers, model: Any) -> None:
    """One prompt with one picture, over pages and by the library; and the picture alone, as a stream has it.
    ModelError where they are not the same."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    content = [{"type": "image", "image": "x"}, {"type": "text", "text": "What is it?"}]
    asked = Content([Media("image", pixels)], messages=[{"role": "user", "content": content}])
    inputs = process(towers, asked).to(loaded.device, dtype=loaded.dtype)
    prompt = towers.prompt(asked)
    rows = prompt.rows
    check_prompt(loaded, model, prompt, inputs, ATTENTION)
    ((span, embeds),) = towers.encode([(0, ImageSegment(1, 0, pixels))])
    ids = np.concatenate([run.ids for run in rows])
    places = [place for place in range(len(ids)) if np.array_equal(ids[place : place + len(span.ids)], span.ids)]
    if not places:
        raise ModelError("its processor lays a picture in a prompt otherwise than one that stands alone")
    seen = torch.cat([part.rows for part in prompt.embeds if part is not None])
    alone = embeds.rows[torch.from_numpy(span.ids == model.config.image_token_id)]
    if seen.shape != alone.shape or float((seen - alone).abs().max()) > _SAME * float(seen.abs().max()):
        raise ModelError("its tower makes other rows of a picture in a prompt than of one that stands alone")
