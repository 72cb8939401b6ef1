"""What the vision towers of the Qwen family share: pictures and frame pairs in, spans out; whole prompts by the model's
own processor.

Encoders are asked through `get_image_features` and `get_video_features`. Pair by pair equals the whole clip to the bit:
class A for images and video. It does not know sound.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...errors import InputError
from ...streams.event import Seen
from ...streams.requests.options import SIZES
from ...streams.requests.prompt import Content, kind_of
from ...streams.segment import AudioSegment, ImageSegment, RowSpec, Segment, SizeRule, VideoSegment
from ..embeddings import Embeddings, EncodedPrompt, EncodedSpan, Features, joined
from ..family import TimeTaken
from ..runner.attention import NAME
from ..runner.gate import tower_pass
from ..runner.library import transformers
from ..span import Rows, Span
from .opened import open_model
from .prompt import process_marked
from .sizes import picture_rules

Pictures = tuple[Embeddings, tuple[int, int, int]]  # rows, and the grid they lie on
SECOND_US = 1_000_000
# What attends in the parts of a model that sees: ours in the decoder, the library's in the tower.
ATTENTION = {"": "sdpa", "text_config": NAME, "vision_config": "sdpa"}


class PictureTowers:
    """A vision tower. Nothing is kept per stream."""

    kinds: tuple[str, ...] = ("text", "image", "video")  # parts that a message may have
    bounds_frames = True  # `min_pixels` and `max_pixels` hold for each frame of a video too
    nested: tuple[str, ...] = ()  # the kinds of media that the processor takes as a list for each prompt
    unwritten: frozenset[str] = frozenset()  # those that it sets before the text by itself
    tells_times = False  # the processor lays the time of each frame as words; else frames stand at one rate
    times_inside = False  # such words stand between rows of one piece

    def __init__(self, model: Any, processor: Any, blocks: Iterable[Any] | None = None) -> None:
        self.model = model
        self.config = model.config
        self.processor = processor
        # Of what has numbers: one side of the model may have none here (parts.py).
        self.device = next((each.device for each in model.parameters() if not each.is_meta), model.device)
        self.blocks: list[Any] = list(model.visual.blocks if blocks is None else blocks)

    @cached_property
    def rules(self) -> dict[str, Any]:
        """The fields of `MediaSpec` that say how pictures and frames are sized. ModelError where that is not known."""
        return picture_rules(self.processor, budget=not self.bounds_frames)

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        return self._picture_rows(segment)

    def knows(self, segment: Segment) -> bool:
        """They are counted without the processor."""
        return True

    def takes(self, piece: VideoSegment | AudioSegment) -> TimeTaken:
        """How much of a stream's positions a dropped piece takes."""
        if self.tells_times:
            return TimeTaken()
        return TimeTaken(patches=1) if isinstance(piece, VideoSegment) else TimeTaken(rows=self.rows(piece))

    @torch.inference_mode()
    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """Spans of (stream, segment) pairs: one pass over all images, one over all pairs of frames."""
        images = iter(self._images([one.pixels for _, one in batch if isinstance(one, ImageSegment)]))
        clips = iter(self._clips([one.pixels for _, one in batch if isinstance(one, VideoSegment)]))
        spans = []
        for _, segment in batch:
            match segment:
                case ImageSegment():
                    spans.append(self._seen(segment, "image", next(images)))
                case VideoSegment():
                    span, embeds = self._seen(segment, "video", next(clips))
                    spans.append(EncodedSpan(self.timed(span), embeds))
                case _:
                    raise InputError(f"expected a picture or frames, got {type(segment).__name__}")
        return spans

    def fork(self, stream: int, twin: int) -> None:
        """Nothing is kept per stream."""

    def loudest(self, stream: int) -> float | None:
        """Nothing is kept per stream."""

    def heard(self, stream: int, loudest: float) -> None:
        """Nothing is kept per stream."""

    def forget(self, stream: int) -> None:
        """Nothing is kept per stream."""

    def taken(self) -> RowSpec:
        """What rows that were made elsewhere have to be like."""
        ids = {kind: self.token_id(kind) for kind in self.kinds if kind != "text"}
        deep = getattr(getattr(self.config, "vision_config", None), "deepstack_visual_indexes", None) or ()
        return RowSpec(0, ids, len(deep), grids=True, timed=self.tells_times)

    def media_ids(self) -> list[int]:
        """The placeholders of all kinds of media."""
        return [self.token_id(kind) for kind in self.kinds if kind != "text"]

    def token_id(self, modality: str) -> int:
        """The placeholder of one row."""
        return getattr(self.config, f"{modality}_token_id")

    def placeholders(self) -> dict[str, str]:
        """What the chat template writes for each modality."""
        return {kind: getattr(self.processor, f"{kind}_token") for kind in self.kinds if kind != "text"}

    @torch.inference_mode()
    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """Template, processor, features and positions exactly as `transformers` has them for a whole prompt. `known`:
        the features, which another prompt with the same media had."""
        inputs, ready = process_marked(self, content)
        inputs = inputs.to(self.device)
        positions = self.prompt_positions(self._without_sides(inputs, ready, content), content)
        features = self.encode_prompt(inputs) if known is None else known
        return self._laid(inputs, positions, features, content)._replace(ready=ready)

    def _without_sides(self, inputs: Any, ready: list[int], content: Content) -> Any:
        """The inputs without the template's marks beside rows that were made elsewhere: the library's rule may take
        them for those of a medium."""
        if not ready:
            return inputs
        ids = inputs["input_ids"].clone()
        media = self.media_ids()
        for place in [place for place, one in zip(ready, content.ready, strict=True) if one.kind != "text"]:
            for side in (place - 1, place + 1):
                if 0 <= side < ids.shape[1] and int(ids[0, side]) not in media:
                    ids[0, side] = ids[0, place]
        return {**inputs, "input_ids": ids}

    def own_blocks(self) -> dict[str, tuple[str, str]]:
        """What the processor, not the template, sets around media."""
        return {}

    def values(self, content: Content) -> dict[str, list[Any]]:
        """The media of a whole prompt by kind, whose channels cannot be mistaken for a side of 1 or 3 pixels. A clip
        that is shorter than a temporal patch is made one."""
        values: dict[str, list[Any]] = {
            kind: [piece.data for piece in pieces] for kind, pieces in content.by_kind().items()
        }
        values["image"] = as_files(values["image"])
        if values["video"]:
            least = getattr(self.processor.video_processor, "temporal_patch_size", 1)
            clips = [np.repeat(clip, least, axis=0) if len(clip) < least else clip for clip in values["video"]]
            values["video"] = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in clips]
        return values

    def media_options(self, media: dict[str, list[Any]], content: Content) -> dict[str, Any]:
        """Options of the processor for the media of a whole prompt."""
        sizes = {name: content.options[name] for name in SIZES if name in content.options}
        video = self.video_options(content) if media["video"] else {}
        if not sizes:
            return {"videos_kwargs": video} if video else {}
        if self.bounds_frames:
            video["size"] = _size(self.rules["video"], sizes)
        return {"images_kwargs": {"size": _size(self.rules["image"], sizes)}, "videos_kwargs": video}

    def video_options(self, content: Content) -> dict[str, Any]:
        """What tells the processor that every frame is to be taken, and when it was."""
        known = clip_times(content, self.tells_times)
        return {"video_metadata": [known] if "video" in self.nested else known, "do_sample_frames": False}

    def prompt_positions(self, inputs: Any, content: Content) -> torch.Tensor:
        """Positions `(3, n)` of a whole prompt by the library's own rule."""
        grids = {name: inputs.get(name) for name in ("image_grid_thw", "video_grid_thw")}
        times = inputs.get("second_per_grid_ts")
        if times is not None:
            grids["second_per_grid_ts"] = torch.as_tensor(times)
        positions, _ = self.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            attention_mask=inputs["attention_mask"],
            **grids,
        )
        return positions[:, 0]

    def encode_prompt(self, inputs: Any) -> Features:
        """Features of all media of a whole prompt, in the order of their placeholders."""
        return self._picture_features(inputs)

    def media_mask(self, inputs: Any, kind: str, token: int) -> np.ndarray:
        """At which rows of a whole prompt, `(n,)` bool, features of this kind stand."""
        return (inputs["input_ids"][0] == token).cpu().numpy()

    def _laid(self, inputs: Any, positions: torch.Tensor, features: Features, content: Content) -> EncodedPrompt:
        """A whole prompt as rows: runs of text and of media in turn."""
        plain = inputs["input_ids"][0].cpu().numpy()
        order = np.full(len(plain), -1, dtype=np.int64)  # which row of all features stands here; -1: a word
        count = 0
        for name, token, parts in features:
            mask, rows = self.media_mask(inputs, name, token), sum(len(part.rows) for part in parts)
            if mask.sum() != rows:
                raise InputError(f"{name}: expected {mask.sum()} placeholder rows in the prompt, got {rows}")
            order[mask] = np.arange(count, count + rows)
            count += rows
        media = joined(part.to(self.model.dtype) for *_, parts in features for part in parts) if count else None
        owners = _owners(features, content)
        places = positions.cpu().numpy().astype(np.int64)
        laid, embeds, shown, start = [], [], [], 0
        for is_media, group in groupby((order >= 0).tolist()):
            stop = start + len(list(group))
            seen = Seen(1, "prompt", None, None) if is_media else None
            laid.append(Rows(plain[start:stop], places[:, start:stop], None, seen))
            which = torch.from_numpy(order[start:stop]).to(self.device)
            embeds.append(media.part(which) if is_media and media is not None else None)
            shown.append(_shown(owners, order[start:stop], len(content.media)) if is_media else ())
            start = stop
        return EncodedPrompt(laid, embeds, shown, features or None)

    def _picture_features(self, inputs: Any) -> Features:
        found: Features = []
        if "pixel_values" in inputs:
            pixels, grids = inputs["pixel_values"], inputs["image_grid_thw"]
            output = tower_pass(self.model.get_image_features, pixels, grids, return_dict=True)
            found.append(("image", self.config.image_token_id, self._pictures(output)))
        if "pixel_values_videos" in inputs:
            pixels, grids = inputs["pixel_values_videos"], inputs["video_grid_thw"]
            output = tower_pass(self.model.get_video_features, pixels, grids, return_dict=True)
            found.append(("video", self.config.video_token_id, self._pictures(output)))
        return found

    def _picture_rows(self, segment: Any) -> int:
        patch = self.processor.image_processor.patch_size * self.model.visual.spatial_merge_size
        *frames, height, width, _ = segment.pixels.shape
        patches = frames[0] // self.processor.video_processor.temporal_patch_size if frames else 1
        return patches * (height // patch) * (width // patch)

    def _images(self, pixels: list[np.ndarray]) -> list[Pictures]:
        if not pixels:
            return []
        inputs = self.processor.image_processor(pixels, do_resize=False, return_tensors="pt").to(self.device)
        grids = inputs["image_grid_thw"]
        output = tower_pass(self.model.get_image_features, inputs["pixel_values"], grids, return_dict=True)
        return self._merged(self._pictures(output), grids)

    def _clips(self, pixels: list[np.ndarray]) -> list[Pictures]:
        if not pixels:
            return []
        videos = [torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in pixels]
        inputs = self.processor.video_processor(
            videos, do_resize=False, do_sample_frames=False, return_tensors="pt"
        ).to(self.device)
        grids = inputs["video_grid_thw"]
        output = tower_pass(self.model.get_video_features, inputs["pixel_values_videos"], grids, return_dict=True)
        return self._merged(self._pictures(output), grids)

    def _pictures(self, output: Any) -> list[Embeddings]:
        """The rows of each picture, with what is added after the decoder's first layers."""
        deep = getattr(output, "deepstack_features", None) or []
        if not deep:
            return [Embeddings(rows) for rows in output.pooler_output]
        sizes = [len(rows) for rows in output.pooler_output]
        # Some versions of the library give these for all pictures in one.
        layers = [part.split(sizes) if isinstance(part, torch.Tensor) else part for part in deep]
        return [
            Embeddings(rows, torch.stack(parts)) for rows, *parts in zip(output.pooler_output, *layers, strict=True)
        ]

    def _merged(self, features: list[Embeddings], grids: torch.Tensor) -> list[Pictures]:
        merge = self.model.visual.spatial_merge_size
        return [(rows, (t, h // merge, w // merge)) for rows, (t, h, w) in zip(features, grids.tolist(), strict=True)]

    def _seen(self, segment: Segment, modality: str, pictures: Pictures) -> EncodedSpan:
        embeds, grid = pictures
        token = self.config.image_token_id if modality == "image" else self.config.video_token_id
        ids = np.full(len(embeds.rows), token, dtype=np.int64)
        times = (segment.start_us, segment.stop_us)
        return EncodedSpan(Span(segment.seq, segment.index, modality, ids, grid, 0, 0, *times), embeds)

    def timed(self, span: Span) -> Span:
        """The span of a pair of frames with the words for its time, where the model has such."""
        return span


def _owners(features: Features, content: Content) -> np.ndarray:
    """For each row of all features the piece of media that it is of, by its place in the content; -1 where that is not
    known, since the tower gives a piece in several parts, or several in one."""
    owners = [np.zeros(0, dtype=np.int64)]
    for name, _, parts in features:
        pieces = [place for place, piece in enumerate(content.media) if kind_of(piece) == name]
        own = pieces if len(pieces) == len(parts) else [-1] * len(parts)
        owners.append(np.repeat(np.array(own, dtype=np.int64), [len(part.rows) for part in parts]))
    return np.concatenate(owners)


def _shown(owners: np.ndarray, rows: np.ndarray, pieces: int) -> tuple[tuple[int, int], ...]:
    """The pieces of which these rows of all features are, each with how many rows it has; where that is not known, all
    `pieces`."""
    found = np.unique(owners[rows]).tolist()
    if -1 in found:
        return tuple((place, len(owners)) for place in range(pieces))
    return tuple((place, int((owners == place).sum())) for place in found)


def clip_times(content: Content, own: bool) -> list[Any]:
    """What `transformers` has to know of each clip of decoded content: that frames stand at the rate of the content
    or, where `own`, at the times that they came with."""
    assert content.video_fps is not None
    metadata = transformers.video_utils.VideoMetadata  # pyright: ignore[reportAttributeAccessIssue]
    found = []
    for piece in content.by_kind()["video"]:
        count = len(piece.data)
        if own and piece.times_us:
            seconds, places = piece.stop_us / SECOND_US, list(piece.times_us)
            found.append(metadata(max(piece.stop_us, 1), SECOND_US, duration=seconds, frames_indices=places))
        else:
            seconds, places = count / content.video_fps, list(range(count))
            found.append(metadata(count, content.video_fps, duration=seconds, frames_indices=places))
    return found


def as_files(pixels: list[np.ndarray]) -> list[Image.Image]:
    """Pictures as the library takes them without a doubt: of an array 3 pixels high it takes the height for colours."""
    return [Image.fromarray(picture) for picture in pixels]


def open_sight(path: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, Any]:
    """Processor and model that sees, from `path`; the attention of its language model is replaced, that of the tower
    left alone."""
    processor = transformers.AutoProcessor.from_pretrained(path)
    model = open_model(transformers.AutoModelForImageTextToText, path, dtype, device, ATTENTION)
    return processor, model


def with_towers(model: Any) -> Any:
    """The part that holds the towers: some versions of the library have them on the model itself."""
    return model.model if hasattr(model.model, "visual") else model


def _size(rule: SizeRule, asked: dict[str, Any]) -> dict[str, Any]:
    """The processor's bounds on the area with those that are asked for."""
    least = asked.get("min_pixels", rule.min_pixels)
    return {"shortest_edge": least, "longest_edge": asked.get("max_pixels", rule.max_pixels)}
