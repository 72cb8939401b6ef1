"""Text-only decoders: causal language models of `transformers` whose attention can be replaced.

Nothing in here is about one architecture. Llama, Qwen2 and Qwen3 are tested; any other is tried, and refused where
what it computes here is not what it computes in the library (probe.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.requests.prompt import Content
from ...streams.segment import AudioSegment, MediaSpec, RowSpec, Segment, VideoSegment
from ..embeddings import EncodedPrompt, EncodedSpan, Features
from ..family import Family, FamilyData, Loaded, TimeTaken
from ..runner.attention import NAME
from ..runner.library import transformers
from ..runner.probe import check_against_stock
from ..runner.shapes import KINDS, stateful
from ..span import Rows, Span
from ..words.spelling import spelling_of
from ..words.template import begins, learn
from .opened import decoder_of, open_model
from .parts import wanted
from .prompt import check_ids, conversation, rendered
from .ready_rows import ReadyMarks
from .tekken import tokenizer_of


class NoTowers:
    """A text model: takes no media."""

    times_inside = False

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.blocks: list[Any] = []

    def rows(self, segment: Segment) -> int:
        raise InputError(f"expected text, got {type(segment).__name__}: this model takes no media")

    def knows(self, segment: Segment) -> bool:
        """There is nothing to find out."""
        return True

    def takes(self, piece: VideoSegment | AudioSegment) -> TimeTaken:
        """Nothing takes time."""
        return TimeTaken()

    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        if batch:
            raise InputError(f"expected text, got {len(batch)} pieces of media: this model takes none")
        return []

    def taken(self) -> RowSpec:
        """Rows for words alone."""
        return RowSpec(0, {})

    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """The chat template's ids, the text's, or those given; positions count from 0."""
        if content.media:
            raise InputError(f"expected text, got {len(content.media)} pieces of media: this model takes none")
        marks = ReadyMarks(content, self.tokenizer, {})
        ids = self._ids(content, marks)
        positions = np.broadcast_to(np.arange(len(ids), dtype=np.int64), (3, len(ids)))
        return EncodedPrompt([Rows(np.asarray(ids, dtype=np.int64), positions)], [None], ready=marks.found(ids)[0])

    def _ids(self, content: Content, marks: ReadyMarks) -> list[int]:
        if content.ids is not None:
            return marks.in_ids(check_ids(content, len(self.tokenizer)), {})
        if content.messages is None:
            text = content.text or ""
            return self.tokenizer(text, add_special_tokens=not begins(self.tokenizer, text))["input_ids"]
        spelling = spelling_of(self.tokenizer, self.tokenizer)
        messages = [_joined(message, content) for message in conversation(content, spelling, parts=False)]
        for message in messages:
            if not isinstance(message["content"], str):
                raise InputError(f"messages: expected text as content, got {type(message['content']).__name__}")
        text = rendered(self.tokenizer, messages, content, spelling)
        return spelling.ids(marks.in_text(text, {}))

    def timed(self, span: Span) -> Span:
        """Nothing has a time."""
        return span

    def fork(self, stream: int, twin: int) -> None:
        """Nothing is kept per stream."""

    def loudest(self, stream: int) -> float | None:
        """Nothing is kept per stream."""

    def heard(self, stream: int, loudest: float) -> None:
        """Nothing is kept per stream."""

    def forget(self, stream: int) -> None:
        """Nothing is kept per stream."""


def _joined(message: dict[str, Any], content: Content) -> dict[str, Any]:
    """A message as a text, where some of its parts are rows made elsewhere."""
    parts = message["content"]
    if not content.ready or isinstance(parts, str):
        return message
    return {**message, "content": "".join(part.get("text", "") for part in parts)}


_OTHERWISE = {
    "cross_attention_layers": "layers that see rows of the cache alone",
    "cross_layer_interval": "layers that see rows of the cache alone",
    "rel_extent": "scores of queries and keys alone, with none for how far apart two rows are",
}


def check_text(config: Any) -> None:
    """Raise ModelError where the configuration of a decoder names what cannot be served."""
    longest = getattr(config, "max_position_embeddings", None)
    if longest is None:
        raise ModelError("expected max_position_embeddings in its configuration, got none")
    others = set(getattr(config, "layer_types", None) or ()) - KINDS
    if others:
        raise ModelError(f"expected layers of full or sliding attention, got {', '.join(sorted(others))}")
    for name, what in _OTHERWISE.items():
        if getattr(config, name, None):
            raise ModelError(f"expected {what}, got {name} {getattr(config, name)}")


def load(path: Path, dtype: torch.dtype, device: torch.device, make: Any = None) -> Loaded:
    """A text model from `path`, in `dtype` on `device`, its attention replaced. `make`: the library's class for it;
    None: the one for text. ModelError where it cannot be."""
    config = transformers.AutoConfig.from_pretrained(path)
    check_text(config)
    if wanted() == "towers":
        raise ModelError(f"expected a model that takes media, got {config.model_type}, which takes text only")
    tokenizer = tokenizer_of(path)
    try:
        model = open_model(make or transformers.AutoModelForCausalLM, path, dtype, device, NAME)
    except ValueError as error:
        raise ModelError(f"its attention cannot be replaced: {error}") from error
    data = FamilyData(
        name=config.model_type,
        model=str(path),
        spec=MediaSpec(),
        **learn(tokenizer, tokenizer, model.generation_config),
        classes={},
        per_second=0.0,
        axes=1,
        max_positions=config.max_position_embeddings,
        vocabulary=config.vocab_size,
        stateful=stateful(config),
    )
    family = Family(data, tokenizer)
    loaded = Loaded(family, NoTowers(tokenizer), decoder_of(model), model.get_output_embeddings(), config)
    if device.type != "meta":
        return loaded._replace(drawn=check_against_stock(loaded, model))
    return loaded
