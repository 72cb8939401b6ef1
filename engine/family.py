"""What a family of models is to the rest of the engine: ids, positions and media, as plain data and small rules.

A `Family` holds what the schedule needs, no weights and few tensors (`endings`); `Towers` encode media; `LanguageModel`
(language.py) runs the rest. One family module makes all three from a checkpoint.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import msgspec
import torch

from ..errors import InputError, ModelError
from ..streams.format import BY_NAME, Format, State
from ..streams.requests.options import sized, sizes_pieces
from ..streams.requests.prompt import Content
from ..streams.requests.request import Request, Sampling
from ..streams.requests.transcription import Transcription
from ..streams.segment import AudioSegment, MediaSpec, RowSpec, Segment, VideoSegment
from ..streams.size import smaller_rule, video_rule
from .embeddings import EncodedPrompt, EncodedSpan, Features
from .logits import LogitRule
from .positions import Clock
from .span import Span, Stored
from .words.grammar import Grammars
from .words.spelling import spelling_of
from .words.template import Turns

# Streamability classes that are served. Rows of an F model would change what is cached: not during a reply.
CLASSES = ("A", "B", "D", "E", "F")


class FamilyData(msgspec.Struct, frozen=True):
    """The plain data of one checkpoint.

    turns: the chat template's own text. blocks: for each modality the text that opens and the one that closes a block;
    between the rows of a block and the latter stand `ending_ids`. start_ids: what the tokenizer, not the template, sets
    before everything. stop_ids end a reply; `sampling` is how one is drawn where its params do not say. classes: the
    streamability class of each modality: "A" exact per patch, "B" exact per encoder window, "D" atomic: the rows of
    one piece see one another, "E" exact per clip, in which media waits for the rest of it, "F" new
    media changes what is cached (ModelError for any other).
    per_second: positions a second of video; 0 where the model has one axis. vocabulary: rows of the output. clock: how
    time in a video becomes positions, "seconds", "interval" (the product of rate and interval is rounded first) or
    "patches" (they are counted), "whole" (as "seconds", for rates at which a patch is a whole number of positions).
    splice_tokens: how many tokens a reply says at least between two pieces of media that are spliced into it.
    window_rows: how many rows the streams of a camera have that the checkpoint was trained on; 0: it does not say.
    library_rule: where the library goes on after a block (`Block.leave`). unit_marks_share: the two marks before and
    after sound inside video stand at one position. frame_rows: how many rows a frame of video has in a model with one
    axis; 0 where frames tell their time in words. transcription: how it is asked for the words of a sound; None: that
    is not known. left_out: kinds of media that the model is not served with, each with the reason. together: kinds of
    which a piece goes in whole, since some of its rows see one another. most_together: how many rows that see one
    another may stand side by side, as many as the narrowest layer sees, though the library lets more of them see one
    another; 0: any number. stateful: its layers keep states of all rows, which no row can be taken out of (class "G"
    beside those of its modalities). crossing: its words read media by cross-attention, in layers that see nothing else.
    one_shot: a stream is a request's own prompt and one reply to it, since the model has no conversations.
    first_barred: ids that no reply begins with. exclusive: kinds of which a stream takes one, each with the id of its
    rows: beside another they would be other rows.
    """

    name: str
    model: str
    spec: MediaSpec
    turns: Turns
    blocks: dict[str, tuple[str, str]]
    start_ids: list[int]
    stop_ids: frozenset[int]
    classes: dict[str, str]
    per_second: float
    axes: int
    max_positions: int
    live_trained: bool = False
    splice_tokens: int = 1
    window_rows: int = 0
    vocabulary: int = 0
    clock: str = "seconds"
    library_rule: str = "last"
    sampling: Sampling = Sampling()
    unit_marks_share: bool = True
    ending_ids: dict[str, list[int]] = {}
    frame_rows: int = 0
    transcription: Transcription | None = None
    left_out: dict[str, str] = {}
    together: frozenset[str] = frozenset()
    most_together: int = 0
    stateful: bool = False
    exclusive: dict[str, int] = {}
    crossing: bool = False
    one_shot: bool = False
    first_barred: tuple[int, ...] = ()


class Family:
    """The ids and rules of one checkpoint, with its tokenizer. `endings`: rows `(n, hidden)` of the `ending_ids` of a
    modality.

    turn_ids, block_ids: the ids of what stands around turns and blocks, each tokenised alone. What is laid is tokenised
    together with the text beside it (layout.py).
    """

    def __init__(self, data: FamilyData, tokenizer: Any, endings: dict[str, Any] | None = None) -> None:
        unknown = {kind: letter for kind, letter in data.classes.items() if letter not in CLASSES}
        if unknown:
            raise ModelError(f"streamability classes: expected {', '.join(CLASSES)}, got {unknown}: not served yet")
        self.data = data
        self.endings = endings or {}
        self.tokenizer = tokenizer
        self.spelling = spelling_of(tokenizer)
        self.grammars = Grammars(tokenizer, data.vocabulary, data.stop_ids)
        self.spec = data.spec
        self.turns = data.turns
        self.turn_ids = {name: self.spelling.ids(text) for name, text in data.turns.wrappers.items()}
        self.block_ids = {
            kind: (self.spelling.ids(before), data.ending_ids.get(kind, []) + self.spelling.ids(after))
            for kind, (before, after) in data.blocks.items()
        }
        marks = {id for sides in self.block_ids.values() for side in sides for id in side}
        # What stands around media and is no words.
        self.mark_ids = [id for id in sorted(marks) if self.spelling.is_control(tokenizer.convert_ids_to_tokens(id))]
        self.stop_ids = data.stop_ids
        self.max_positions = data.max_positions
        self.live_trained = data.live_trained
        # Why its streams cannot let rows go and live on; empty: they can.
        self.no_window = "its layers keep a state of all rows, which none can be taken out of" if data.stateful else ""
        if data.crossing:
            self.no_window = "its words read the media of the prompt by cross-attention, to the end"

    def ending(self, kind: str) -> Stored:
        """The rows that close a block of this modality, as the span store has them: an entry of the model's own."""
        return Stored(-1 - list(self.endings).index(kind), 0, len(self.endings[kind]), 0)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.data.classes)

    def text_ids(self, words: str) -> list[int]:
        """The ids of a user's words, tokenised alone."""
        return self.spelling.ids(self.words(words))

    def words(self, words: str, system: bool = False, trusted: bool = False) -> str:
        """A user's words, or those of a system prompt, as the template writes them. Control tokens in them are covered,
        unless they are `trusted`."""
        if self.turns.system_strips if system else self.turns.strips:
            words = words.strip()
        return words if trusted else self.spelling.cover(words)

    def opening(self, system: str | None, trusted: bool = False) -> str:
        """The text that a conversation begins with: the system prompt, or what the template has where it is None."""
        if system is None:
            return self.turns.default_system
        before, after = self.turns.system
        return before + self.words(system, system=True, trusted=trusted) + after

    def system_ids(self, system: str | None) -> list[int]:
        """The ids of the opening, tokenised alone."""
        return [*self.data.start_ids, *self.spelling.ids(self.opening(system))]

    def grid_seconds(self, fps: float | None) -> float:
        """Seconds of video per temporal patch at `fps` frames a second (None: the model's own rate)."""
        return self.spec.temporal_patch / (fps or self.spec.video_fps)

    def clock(self, grid_seconds: float) -> Clock:
        if self.data.clock == "patches":
            return Clock(1.0, 1.0)
        if self.data.clock == "interval":
            return Clock(1.0, self.data.per_second * grid_seconds)
        return Clock(self.data.per_second, grid_seconds)

    def video_rate(self, fps: float) -> float:
        """The highest rate up to `fps` frames a second at which video has positions in this model."""
        if self.data.clock != "whole":
            return fps
        patch = self.spec.temporal_patch * self.data.per_second  # positions of a patch at one frame a second
        steps = math.ceil(patch / fps)
        while not (self.data.per_second * self.grid_seconds(patch / steps)).is_integer():
            steps += 1
        return patch / steps

    def atomic(self, modality: str) -> bool:
        return self.data.classes.get(modality) == "D" or modality in self.data.together

    def check_run(self, modality: str, rows: int) -> None:
        """Raise InputError where so many rows of this modality would see one another."""
        if self.atomic(modality):
            check_together(modality, rows, self.data.most_together)

    def check_media(self, request: Request) -> None:
        """Raise InputError where video cannot have the rates or the sizes of the request, or not so much may be
        dropped."""
        self.check_rate(request.video_fps, request.audio_in_video, request.video_fps_idle)
        self.check_still(request.drop_still, request.video_fps)
        if request.video_pixels_idle is not None:
            self.check_smaller(request, request.video_pixels_idle)

    def check_rate(self, fps: float | None, sound_inside: bool, idle_fps: float | None = None) -> None:
        """Raise InputError where video at `fps` frames a second has no positions in this model, and where `idle_fps` is
        higher."""
        most = fps or self.spec.video_fps
        if idle_fps is not None and idle_fps > most:
            raise InputError(f"video_fps_idle: expected at most video_fps, {most:g}, got {idle_fps:g}")
        if fps is None or self.data.clock != "whole":
            return
        if sound_inside and fps != self.spec.video_fps:
            raise InputError(f"video_fps with audio in video: expected {self.spec.video_fps:g}, got {fps:g}")
        step = self.data.per_second * self.grid_seconds(fps)
        if step != int(step):
            raise InputError(
                f"video_fps: expected a rate at which two frames are a whole number of positions, of which there are "
                f"{self.data.per_second:g} a second, got {fps:g}"
            )

    def check_smaller(self, request: Request, most: int) -> None:
        """Raise InputError where frames cannot be made smaller, to at most `most` pixels."""
        rule = video_rule(sized(self.spec, request.processor), request.expected_frames)
        if not sizes_pieces(self.spec):
            raise InputError(
                f"video_pixels_idle: expected a model whose processor has max_pixels, got {self.data.name}, in which "
                f"every frame has the same number of rows"
            )
        smaller_rule(rule, most)

    def check_still(self, seconds: float | None, fps: float | None) -> None:
        """Raise InputError where all that may be dropped one after the other, in so many seconds, would take more than
        half of the model's positions: what follows could not be held together with what was before."""
        if seconds is None:
            return
        grid, patches = self.grid_seconds(fps), 1000
        taken = self.clock(grid).end(patches) if self.data.axes == 3 else patches * self.data.frame_rows
        most = self.max_positions / 2 / max(taken / (patches * grid), 1e-9)
        if seconds > most:
            raise InputError(
                f"drop_still: expected at most {most:.0f} seconds for this model, which are half of its "
                f"{self.max_positions} positions, got {seconds:g}"
            )

    def check_format(self, format: Format) -> None:
        """Raise InputError where media is what `format` is for, and none of this model's can be appended."""
        changing = [name for name, kind in self.data.classes.items() if kind == "F"]
        if changing and len(changing) == len(self.data.classes) and format.step(State.ASSISTANT, "media") is not None:
            waits = [name for name, one in BY_NAME.items() if one.step(State.ASSISTANT, "media") is None]
            raise InputError(
                f"format: expected {' or '.join(waits)}, in which no media comes into a reply, since "
                f"{', '.join(changing)} of {self.data.name} would change what is cached already, or be something else "
                f"than in a prompt (class F), got {format.name}"
            )


def check_together(what: str, rows: int, most: int) -> None:
    """Raise InputError where more rows than `most` would see one another (`FamilyData.most_together`)."""
    if most and rows > most:
        raise InputError(
            f"{what}: expected at most {most} rows that see one another, as many as a layer of this model sees, got "
            f"{rows}"
        )


class TimeTaken(NamedTuple):
    """How much of a stream's positions a piece takes: temporal patches, or as many as so many rows. `behind`: how many
    by the library's rule, where that is another number. Nothing where the model is told times in words."""

    patches: int = 0
    rows: int = 0
    behind: int = 0


class Towers(Protocol):
    """The encoders of one model and their per-stream state (the loudest sound so far). One thread uses them.

    `blocks` are the modules between whose forward passes a step may run. Each pass of a tower goes through
    `gate.tower_pass()`. `times_inside`: what is laid for a piece of video has its times between rows, so the same
    frames at another time are another piece.
    """

    blocks: list[Any]
    times_inside: bool

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        ...

    def knows(self, segment: Segment) -> bool:
        """Whether `rows` and `takes` say at once how long a piece is; else they call the model's processor for it."""
        ...

    def takes(self, piece: VideoSegment | AudioSegment) -> TimeTaken:
        """How much of a stream's positions a piece takes that was dropped."""
        ...

    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """Spans of (stream, segment) pairs, in their order; a stream's sound has to come in order."""
        ...

    def timed(self, span: Span) -> Span:
        """The span of a piece of video, which may have been encoded for another time, with the words for its own."""
        ...

    def taken(self) -> RowSpec:
        """What rows that were made elsewhere have to be like."""
        ...

    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """A whole prompt by the model's own processor and position code, ready for a reply. Its media is decoded.
        `known`: the features that another prompt with the same media had, with which no tower runs.

        Raises InputError for what the model does not take, and where placeholders and media do not match.
        """
        ...

    def fork(self, stream: int, twin: int) -> None: ...

    def loudest(self, stream: int) -> float | None:
        """The loudest sound of a stream so far; None where it is not asked for."""
        ...

    def heard(self, stream: int, loudest: float) -> None:
        """A stream begins that has had such a sound."""
        ...

    def forget(self, stream: int) -> None: ...


class Loaded(NamedTuple):
    """A checkpoint, ready to serve: `text` is the decoder of the `transformers` model, `head` its output layer,
    `config` the decoder's configuration. `why` its device and dtype were taken, empty where they were asked for. `fast`
    is a `FastDecoder` that stands for `text`, None where the library's module runs. `turning` (a `Turning`): how keys
    turn with their positions, None where its streams have no window. `fingerprint`: what tells it from other models;
    empty where nobody has asked. `drawn`: what the model does with the logits of its output layer.
    `types`: what the decoder is told of each row beside it, by the name of its argument: a number for each id. `marks`:
    ids of rows of media, which are no words. `ahead_in_windows`: rows that see one another do so only in layers with a
    window. `together`: of an atomic run only rows with these ids see one another, those side by side; empty: all of it.
    `draft`: a smaller one with the same words that guesses its tokens."""

    family: Family
    towers: Towers
    text: Any
    head: Any
    config: Any
    why: str = ""
    fast: Any = None
    turning: Any = None
    fingerprint: str = ""
    drawn: LogitRule = LogitRule()
    types: dict[str, torch.Tensor] = {}
    marks: frozenset[int] = frozenset()
    ahead_in_windows: bool = False
    together: frozenset[int] = frozenset()
    draft: Loaded | None = None

    @property
    def device(self) -> torch.device:
        return self.text.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.text.get_input_embeddings().weight.dtype
