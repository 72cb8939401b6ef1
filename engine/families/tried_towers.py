"""The towers of a model that nobody named: every piece of media goes through the model's processor alone, and through
`get_image_features`, `get_video_features` or `get_audio_features`.

Nothing in here is about one architecture. A piece is what the processor lays for it, wherever it stands: tiles, marks
and times between its rows, and positions by the model's own `get_rope_index` where it has one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.requests.prompt import Content
from ...streams.segment import AudioSegment, ImageSegment, MediaSpec, RowSpec, Segment, VideoSegment
from ..embeddings import Embeddings, EncodedPrompt, EncodedSpan, Features, by_layer
from ..family import TimeTaken, check_together
from ..runner.gate import tower_pass
from ..runner.language import windows_of
from ..runner.library import transformers
from ..runner.out_of_memory import is_out_of_memory
from ..span import Span
from .alone import Alone, at_rate, flat, longer, longest_run, typed
from .one_axis import AS_IT_CAME, NO_GRID, OneAxisTowers
from .piece_sizes import Asked, PieceSize, PieceSizes, Shape
from .processor_options import ProcessorOptions, Values
from .prompt import argument
from .row_types import RowTypes
from .senses import KINDS, Sense, embeddings_of
from .together import Ahead, Together, laid_together
from .towers import SECOND_US, as_files

_TYPES = "mm_token_type_ids"


class TriedTowers(OneAxisTowers):
    """Whatever the model's own methods encode, with the processor before it.

    whole: the model with its output. senses: the kinds of media that it takes. rope: `get_rope_index`, where the model
    has it.
    """

    def __init__(
        self, whole: Any, processor: Any, blocks: Any, senses: dict[str, Sense], rope: Callable | None
    ) -> None:
        super().__init__(getattr(whole, "model", whole), processor, blocks)
        self.whole = whole
        self.nested: tuple[str, ...] = ("image",)
        self.senses, self.rope = senses, rope
        self.kinds = ("text", *senses)
        self.streamed = dict.fromkeys(senses, "A")  # the streamability class of each kind
        self.marks: dict[str, np.ndarray] = {}  # ids beside the placeholder whose rows the model makes from media
        self.around: dict[str, tuple[str, str]] = {}  # what the template sets around each kind of media
        self.clip_frames = self.least_frames = 1  # frames of a piece of video; and of the shortest, and its multiples
        self.exact_frames: int | None = None  # of a video in a whole prompt, where the model sees so many alone
        self.video_more: dict[str, Any] = {}  # options of the video processor beside the request's
        self.block_seconds = 1.0  # of a piece of sound
        self.longest_seconds: float | None = None  # of a sound that the processor takes without cutting it
        # Some processors say of their rows what these are only when they are asked to.
        self.asks = {f"return_{_TYPES}": True} if rope and _TYPES in inspect.signature(rope).parameters else {}
        self.types = RowTypes(whole.get_decoder(), [sense.id for sense in senses.values()])
        self.ways: dict[str, Ahead] = {}  # which rows of a prompt see rows behind them, by kind
        self.plain: set[str] = set()  # the kinds of which the processor lays nothing but placeholders, one by one
        self.exclusive: set[str] = set()  # as in `FamilyData`
        self._sizes = PieceSizes(self.size)
        self.options = ProcessorOptions(processor)
        self.findings: Any = None  # of the trial (findings.py); None: it has not ended, or nothing was computed

    @property
    def together(self) -> Together:
        """Which rows see rows behind them, of all kinds."""
        return max((ahead.way for ahead in self.ways.values()), default=Together.NONE)

    @property
    def ahead_in_windows(self) -> bool:
        """They do so in layers with a window alone."""
        return any(ahead.in_windows for ahead in self.ways.values())

    @property
    def most_together(self) -> int:
        """As in `FamilyData`; without bound where only layers with a window let rows see those behind them."""
        decoder = self.whole.get_decoder()
        windows = windows_of(decoder, decoder.config)
        return 0 if self.ahead_in_windows or self.together is Together.NONE else min(windows, default=0)

    def leave_out(self, kind: str) -> None:
        """Take no media of this kind any more."""
        del self.senses[kind], self.streamed[kind]
        self.ways.pop(kind, None)
        self.exclusive.discard(kind)
        self.unwritten -= {kind}
        self.kinds = ("text", *self.senses)

    def spec(self) -> MediaSpec:
        """Pictures and frames as they came: the processor makes them the tower's size."""
        streamed = [kind for kind, letter in self.streamed.items() if letter != "F"]
        rate = self.rate if "audio" in streamed else 0
        return MediaSpec(
            image=AS_IT_CAME if "image" in streamed else None,
            video=AS_IT_CAME if "video" in streamed else None,
            temporal_patch=self.clip_frames,
            video_fill=self.least_frames,
            video_fps=self.video_fps,
            audio_rate=rate,
            hop_samples=max(1, rate // 100),
            block_samples=round(self.block_seconds * rate),
            lead_samples=0,
            look_ahead_samples=0,
            min_block_frames=10,
            options=self.options.found,
            by_piece=tuple(name for name in self.options.found if name != "fps"),
            by_length=self.options.by_length,
        )

    @property
    def ear(self) -> Any:
        """The part of the processor that takes sound; it has one of two names."""
        named = getattr(self.processor, "feature_extractor", None)
        return self.processor.audio_processor if named is None else named

    @property
    def rate(self) -> int:
        return self.ear.sampling_rate

    @property
    def video_fps(self) -> float:
        return float(getattr(getattr(self.processor, "video_processor", None), "fps", None) or 2.0)

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        if isinstance(segment, ImageSegment | VideoSegment | AudioSegment):
            return self._sizes.of(segment).rows
        raise InputError(f"expected a picture, frames or sound, got {type(segment).__name__}")

    def knows(self, segment: Segment) -> bool:
        """Of the shapes that were asked for lately."""
        sized = isinstance(segment, ImageSegment | VideoSegment | AudioSegment)
        return not sized or self._sizes.knows(segment)

    def takes(self, piece: VideoSegment | AudioSegment) -> TimeTaken:
        """As many positions as its rows take."""
        told = isinstance(piece, VideoSegment) and self.tells_times
        return TimeTaken() if told else self._sizes.of(piece).taken

    @torch.inference_mode()
    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """Spans of (stream, segment) pairs, one piece at a time: some towers pad pieces to the largest."""
        return [self._span(segment) for _, segment in batch]

    def taken(self) -> RowSpec:
        """Of the kinds of which the processor lays nothing but placeholders: marks would be missing else."""
        kinds = [kind for kind in self.plain if self.streamed.get(kind, "F") != "F"]
        return RowSpec(0, {kind: self.senses[kind].id for kind in kinds})

    def media_ids(self) -> list[int]:
        return [sense.id for sense in self.senses.values()]

    def placeholders(self) -> dict[str, str]:
        return {kind: sense.token for kind, sense in self.senses.items() if kind not in self.unwritten}

    def values(self, content: Content) -> dict[str, list[Any]]:
        """The media of a whole prompt by kind; sound at the processor's rate. InputError for a sound that the processor
        would cut, and for more or fewer frames than the model sees."""
        for count in (len(piece.data) for piece in content.by_kind()["video"]):
            if self.exact_frames not in (None, count):
                raise InputError(f"video: expected {self.exact_frames} frames, got {count}")
        values = super().values(content)
        values["audio"] = [
            at_rate(piece.data, piece.rate, self.rate, self.device) for piece in content.by_kind()["audio"]
        ]
        for sound in values["audio"]:
            if self.longest_seconds is not None and len(sound) > self.longest_seconds * self.rate:
                raise InputError(
                    f"audio: expected at most {self.longest_seconds:g} s in one piece, which is what this model's "
                    f"processor takes, got {len(sound) / self.rate:.1f} s; in a stream sound has no such limit"
                )
        return values

    def media_options(self, media: dict[str, list[Any]], content: Content) -> dict[str, Any]:
        options: dict[str, Any] = {"images_kwargs": self.options.of_pictures(content.options)} if media["image"] else {}
        if media["video"]:
            more = self.video_more | self.options.of_video(content.options, 0)
            options["videos_kwargs"] = more | self.video_options(content)
        return options | self.asks | ({"audio_kwargs": {"sampling_rate": self.rate}} if media["audio"] else {})

    @torch.inference_mode()
    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """As the other towers have it; rows that see one another stay together."""
        words = self.model.get_input_embeddings()
        prompt = laid_together(
            super().prompt(content, known),
            {self.senses[kind].id: ahead.way for kind, ahead in self.ways.items()},
            self.most_together,
            lambda ids: words(ids.to(self.device)).to(self.model.dtype),
        )
        # What is not the same alone may be another beside other words, too.
        return prompt._replace(once="F" in self.streamed.values())

    def encode_prompt(self, inputs: Any) -> Features:
        return [
            (sense.kind, sense.id, [rows]) for sense in self.senses.values() if (rows := self._features(sense, inputs))
        ]

    def media_mask(self, inputs: Any, kind: str, token: int) -> np.ndarray:
        """By what the processor says of its rows, since two kinds may share a placeholder; else as other towers."""
        types = inputs.get(_TYPES)
        said = None if types is None else (types[0] == KINDS[kind]).cpu().numpy()
        mask = said if said is not None and said.any() else super().media_mask(inputs, kind, token)
        return mask | np.isin(inputs["input_ids"][0].cpu().numpy(), self.marks.get(kind, ()))

    def prompt_positions(self, inputs: Any, content: Content) -> torch.Tensor:
        """By the model's own rule, or counted from 0."""
        self.types.follow(inputs)
        return super().prompt_positions(inputs, content) if self.rope is None else self._places(inputs)

    def alone(self, kind: str, medium: Any, **more: Any) -> Alone:
        """One piece of media through the processor, between the template's marks of its block."""
        before, after = self.around.get(kind, ("", ""))
        sense, tokenizer = self.senses[kind], self.processor.tokenizer
        if self.rope is not None and not before and tokenizer.eos_token:
            before = tokenizer.eos_token  # some rules have other positions at the very beginning
        media = [medium] if kind != "image" or kind in self.nested else medium
        given = {"text": [before + sense.token + after], argument(self.processor, kind): media}
        inputs = self.processor(**given, return_tensors="pt", add_special_tokens=False, **self.asks, **more)
        self.types.follow(inputs)
        start = len(tokenizer(before, add_special_tokens=False)["input_ids"])
        stop = inputs["input_ids"].shape[1] - len(tokenizer(after, add_special_tokens=False)["input_ids"])
        ids = inputs["input_ids"][0].numpy().astype(np.int64)
        mask = self.media_mask(inputs, kind, sense.id)[start:stop]
        places, behind = None, stop - start
        if self.rope is not None:
            whole = self._places(longer(inputs, inputs["input_ids"].new_zeros(1))).numpy().astype(np.int64)
            places, behind = whole[:, start:stop] - start, int(whole[:, stop].max()) - start
        return Alone(inputs, ids[start:stop], mask, places, behind)

    def piece(self, segment: Segment) -> Alone:
        """What the processor lays for a segment."""
        match segment:
            case ImageSegment() if "image" in self.senses:
                return self._picture(segment.pixels, segment.asked)
            case VideoSegment() if "video" in self.senses:
                return self.clip(segment.pixels, segment.start_us, segment.stop_us, segment.asked)
            case AudioSegment() if "audio" in self.senses:
                return self._sound(segment.samples[segment.lead :])
        raise InputError(f"expected one of {', '.join(self.senses)}, got {type(segment).__name__}")

    @torch.inference_mode()
    def look(self, segment: Segment) -> tuple[Alone, Embeddings]:
        """What the processor lays for a segment, and what the tower makes of it."""
        laid = self.piece(segment)
        kind = _KIND[type(segment)]
        seen = self._features(self.senses[kind], laid.inputs.to(self.device))
        count = int(laid.media.sum())
        if seen is None or count != len(seen.rows):
            got = 0 if seen is None else len(seen.rows)
            raise ModelError(f"its processor lays {count} rows of {kind}, its tower gives {got}")
        return laid, seen

    @torch.inference_mode()
    def find_marks(self, kind: str, segment: Segment) -> bool:
        """Whether ids in a piece of media beside its placeholder have other rows in the model than as words. From then
        on these are rows of the medium, and so are all other ids of the vocabulary of which that is true; the whole
        model makes them."""
        inputs, sense = self.piece(segment).inputs.to(self.device), self.senses[kind]
        ids = inputs["input_ids"][0]
        other = self._other(ids, inputs).cpu().numpy()
        if not (other & ~self.media_mask(inputs, kind, sense.id)).any():
            return False
        marks = []
        for some in torch.arange(len(self.model.get_input_embeddings().weight), device=self.device).split(_AT_ONCE):
            some = some[~torch.isin(some, torch.tensor([one.id for one in self.senses.values()], device=self.device))]
            marks.append(some[self._other(some, longer(inputs, some))].cpu().numpy())
        self.marks[kind], self.senses[kind] = np.concatenate(marks), sense._replace(encode=None)
        return True

    def _other(self, ids: torch.Tensor, inputs: Any) -> torch.Tensor:
        """Which of the last rows of a prompt, that are these ids, are other rows in the model than as words."""
        given = tower_pass(embeddings_of, self.whole, self.whole.get_decoder(), typed(inputs, self.model.dtype))
        return (given[-len(ids) :] != self.model.get_input_embeddings()(ids)).any(1)

    def timed(self, span: Span) -> Span:
        """The span of frames with the words for its own time, which stand before and after all of its rows."""
        if not self.tells_times or self.times_inside or span.modality != "video":
            return span
        assert span.start_us is not None and span.stop_us is not None
        shape = (self.least_frames, *_TINY)
        laid = self.clip(np.zeros(shape, np.uint8), span.start_us, span.stop_us, {})
        first, last = laid.own
        before, after = laid.ids[:first], laid.ids[last + 1 :]
        return msgspec.structs.replace(span, before=tuple(before.tolist()), after=tuple(after.tolist()))

    def _picture(self, pixels: np.ndarray, asked: Values) -> Alone:
        return self.alone("image", as_files([pixels]), images_kwargs=self.options.of_pictures(asked))

    def clip(self, frames: np.ndarray, start_us: int, stop_us: int, asked: Mapping[str, Any]) -> Alone:
        """Frames `(n, h, w, 3)` uint8, the first and the last taken at these times."""
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        told = transformers.video_utils.VideoMetadata  # pyright: ignore[reportAttributeAccessIssue]
        times = np.linspace(start_us, max(start_us, stop_us), len(frames)).astype(np.int64).tolist()
        lasts = max(stop_us, 1)
        known = told(max(times[-1] + 1, 1), SECOND_US, duration=lasts / SECOND_US, frames_indices=times)
        more = self.video_more | self.options.of_video(asked, len(frames))
        options = {"video_metadata": [known], "do_sample_frames": False, **more}
        return self.alone("video", clip, videos_kwargs=options)

    def _sound(self, samples: np.ndarray) -> Alone:
        return self.alone("audio", samples, audio_kwargs={"sampling_rate": self.rate})

    def size(self, kind: str, shape: Shape, asked: Asked = ()) -> PieceSize:
        """The size of a piece of this shape."""
        match kind:
            case "image":
                laid = self._picture(np.zeros(shape, np.uint8), dict(asked))
            case "video":
                # Some leave out what does not change from frame to frame; noise is the most.
                frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
                laid = self.clip(frames, 0, 0, dict(asked))
            case _:
                laid = self._sound(np.zeros(shape, np.float32))
        return PieceSize(len(laid.ids), TimeTaken(0, int(laid.offsets.max()) + 1, laid.behind))

    def _span(self, segment: Segment) -> EncodedSpan:
        """All that the processor lays for one piece. What stands before its first and after its last row is text; words
        between rows are embedded here."""
        laid, seen = self.look(segment)
        kind = _KIND[type(segment)]
        first, last = laid.own
        ids, media = laid.ids[first : last + 1], laid.media[first : last + 1]
        if self.ways.get(kind, Ahead()).way is not Together.NONE:
            check_together(kind, longest_run(media), self.most_together)
        embeds = self.model.get_input_embeddings()(torch.from_numpy(ids).to(self.device))
        where = torch.from_numpy(media).to(self.device)
        embeds[where] = seen.rows.to(embeds.dtype)
        deep = None
        if seen.deep is not None:
            deep = embeds.new_zeros(len(seen.deep), *embeds.shape)
            deep[:, where] = seen.deep.to(embeds.dtype)
        places, behind = None, 0
        if laid.places is not None:
            places = np.ascontiguousarray(laid.places[:, first : last + 1]) - first
            text_after = len(laid.ids) - 1 - last
            behind = laid.behind - text_after - first
        marks = tuple(laid.ids[:first].tolist()), tuple(laid.ids[last + 1 :].tolist())
        place, times = (segment.seq, segment.index, kind), (segment.start_us, segment.stop_us)
        span = Span(*place, ids, NO_GRID, len(ids), 0, *times, *marks, places=places, behind=behind)
        return EncodedSpan(span, Embeddings(embeds, deep))

    def _places(self, inputs: Any) -> torch.Tensor:
        assert self.rope is not None
        takes = inspect.signature(self.rope).parameters
        given = {name: value for name, value in inputs.items() if name in takes and value is not None}
        positions, *_ = self.rope(**given)
        return positions[:, 0]

    def _features(self, sense: Sense, inputs: Any) -> Embeddings | None:
        """The rows of all pieces of one kind in a processor's output; None where it has none."""
        count = int(self.media_mask(inputs, sense.kind, sense.id).sum())
        if sense.encode is None:
            return self._by_model(sense, inputs) if count else None
        given = typed(sense.given(inputs), self.model.dtype)
        if not given:
            return None
        output = tower_pass(sense.encode, **given, return_dict=True)
        rows = output.pooler_output if output.pooler_output is not None else output.last_hidden_state
        deep = getattr(output, "deepstack_features", None)
        if rows is None and deep:  # all of it goes into layers, by their numbers
            return by_layer({layer: flat(part) for layer, part in deep})
        if rows is None:
            raise ModelError(f"expected pooler_output of its get_{sense.kind}_features, got none")
        rows = flat(rows)
        if deep:
            return Embeddings(rows, torch.stack([flat(part) for part in deep]))
        if len(rows) == count:
            return Embeddings(rows)
        try:  # some models choose from these rows behind the method, or add to them
            made = self._by_model(sense, inputs)
            self.senses[sense.kind] = sense._replace(encode=None)
            return made
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            what = f"{count} rows of {sense.kind}"
            raise ModelError(f"its processor lays {what}, its tower gives {len(rows)}") from error

    def _by_model(self, sense: Sense, inputs: Any) -> Embeddings:
        """What the whole model gives its decoder where one kind of media stands."""
        where = torch.from_numpy(self.media_mask(inputs, sense.kind, sense.id))
        embeds = tower_pass(embeddings_of, self.whole, self.whole.get_decoder(), typed(inputs, self.model.dtype))
        return Embeddings(embeds[where.to(embeds.device)])


_KIND = {ImageSegment: "image", VideoSegment: "video", AudioSegment: "audio"}
_TINY = (56, 56, 3)
_AT_ONCE = 16_384  # words of the vocabulary whose rows are compared in one pass
