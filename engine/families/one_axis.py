"""What vision towers share whose rows stand on one axis of positions, one after the other: LLaVA, Gemma 3, SmolVLM.

Every picture is the same number of rows, so pictures come in as they are and the processor makes them the tower's
size. A whole prompt goes through the processor, which may cut pictures into tiles; in a stream, where more pictures may
follow, each is one tile, as the makers have it for several. It does not know which models there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch

from ...streams.requests.prompt import Content
from ...streams.segment import AudioSegment, ImageSegment, MediaSpec, RowSpec, Segment, SizeRule, VideoSegment
from ...streams.size import check_sides
from ..embeddings import Embeddings, EncodedPrompt, EncodedSpan, Features
from ..family import Family, FamilyData, Loaded, TimeTaken
from ..runner.gate import tower_pass
from ..span import Span
from ..words.template import learn
from .composed import check_composed
from .towers import Pictures, PictureTowers, as_files, open_sight

AS_IT_CAME = SizeRule(1, 1, 4096 * 4096)  # a picture is kept as it came until the processor has it
NO_GRID = (0, 0, 0)


class OneAxisTowers(PictureTowers):
    """A vision tower that gives every picture so many rows.

    A family says how many (`image_rows`, `frame_rows`), and how pictures are encoded; one that takes video, how clips
    are.
    """

    kinds: tuple[str, ...] = ("text", "image")
    nested: tuple[str, ...] = ("image", "video")
    classes: ClassVar[dict[str, str]] = {"image": "A"}
    image_rows = 0
    frame_rows = 0

    def spec(self) -> MediaSpec:
        return MediaSpec(image=AS_IT_CAME)

    def takes(self, piece: VideoSegment | AudioSegment) -> TimeTaken:
        """Positions count rows."""
        return TimeTaken() if self.tells_times else TimeTaken(rows=self.rows(piece))

    def taken(self) -> RowSpec:
        return msgspec.structs.replace(super().taken(), grids=False)

    def endings(self) -> dict[str, torch.Tensor]:
        """Rows `(n, hidden)` that close a block, before the template's closing ids."""
        return {}

    def encode_pictures(self, pixels: list[np.ndarray]) -> list[torch.Tensor]:
        """Rows `(image_rows, hidden)` of each picture, `(h, w, 3)` uint8."""
        inputs = self.processor.image_processor(as_files(pixels), return_tensors="pt")
        return self._encoded(inputs)

    def encode_prompt(self, inputs: Any) -> Features:
        """Features of all media of a whole prompt, in the order of their placeholders."""
        if "pixel_values" not in inputs:
            return []
        return [("image", self.config.image_token_id, list(map(Embeddings, self._encoded(inputs))))]

    def media_options(self, media: dict[str, list[Any]], content: Content) -> dict[str, Any]:
        """Options of the processor for the media of a whole prompt."""
        return {**content.options, **({"videos_kwargs": self.video_options(content)} if media["video"] else {})}

    def prompt_positions(self, inputs: Any, content: Content) -> torch.Tensor:
        """Positions that count from 0."""
        return torch.arange(inputs["input_ids"].shape[1]).expand(3, -1)

    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """As the other towers have it; rows of one picture that see one another stay together."""
        shown = content.by_kind()
        for piece in (*shown["image"], *shown["video"]):
            check_sides(*piece.data.shape[-3:-1])
        prompt = super().prompt(content, known)
        if "D" not in self.classes.values():
            return prompt
        rows = [msgspec.structs.replace(run, atomic=run.seen is not None) for run in prompt.rows]
        return prompt._replace(rows=rows)

    def _picture_rows(self, segment: Any) -> int:
        return self.image_rows if isinstance(segment, ImageSegment) else self.frame_rows * len(segment.pixels)

    def _images(self, pixels: list[np.ndarray]) -> list[Pictures]:
        return [(Embeddings(rows), NO_GRID) for rows in self.encode_pictures(pixels)] if pixels else []

    def _clip_inputs(self, clips: list[np.ndarray]) -> Any:
        """What the processor makes of clips `(n, h, w, 3)` uint8 of one length."""
        videos = [torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in clips]
        return self.processor.video_processor(videos, do_sample_frames=False, return_tensors="pt")

    def _seen(self, segment: Segment, modality: str, pictures: Pictures) -> EncodedSpan:
        """Rows whose positions count on one by one, as those of sound do."""
        embeds, grid = pictures
        count = len(embeds.rows)
        ids = np.full(count, self.token_id(modality), dtype=np.int64)
        place, times = (segment.seq, segment.index, modality), (segment.start_us, segment.stop_us)
        return EncodedSpan(Span(*place, ids, grid, count, 0, *times), embeds)

    def token_id(self, modality: str) -> int:
        """The placeholder of one row."""
        return self.config.image_token_id

    def _encoded(self, inputs: Any) -> list[torch.Tensor]:
        pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
        return list(tower_pass(self.model.get_image_features, pixels, return_dict=True).pooler_output)


def blocks_of(tower: Any) -> Iterable[Any]:
    """The layers of a vision tower of CLIP's or SigLIP's kind."""
    return getattr(tower, "vision_model", tower).encoder.layers


def load_one_axis(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    towers: type[OneAxisTowers],
    names: tuple[str, str],
    blocks: Callable[[Any], Iterable[Any]] = blocks_of,
) -> Loaded:
    """A model of this kind from `path`, in `dtype` on `device`; only the attention of its language model is replaced.

    `names`: what the library calls the vision tower and the language model. `blocks`: the layers of that tower, between
    which a step may run.
    """
    processor, model = open_sight(path, dtype, device)
    config, tokenizer = model.config, processor.tokenizer
    sight, decoder = (getattr(model.model, name) for name in names)
    tower = towers(model.model, processor, blocks(sight))
    learnt = learn(processor, tokenizer, model.generation_config, tower.placeholders())
    learnt["blocks"] |= tower.own_blocks()
    endings = tower.endings()
    data = FamilyData(
        name=config.model_type,
        model=str(path),
        spec=tower.spec(),
        **learnt,
        classes=tower.classes,
        per_second=0.0,
        axes=1,
        max_positions=config.text_config.max_position_embeddings,
        vocabulary=config.text_config.vocab_size,
        frame_rows=0 if tower.tells_times else tower.frame_rows,
        ending_ids={kind: [tower.token_id(kind)] * len(rows) for kind, rows in endings.items()},
    )
    family = Family(data, tokenizer, endings)
    return check_composed(Loaded(family, tower, decoder, model.lm_head, config.text_config), model)
