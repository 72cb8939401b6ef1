"""The trial of a model that nobody named: for each kind of media one prompt over pages against the library's forward
pass, and one piece alone against the same piece in that prompt. Then in which pieces video and sound may come: whether
the tower makes the same of a clip at once and in pieces.

In: a loaded model. Out: what is not served, with the reason; the towers know then in which pieces media comes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.requests.prompt import Content, Media, Piece
from ...streams.segment import AudioSegment, ImageSegment, Segment, VideoSegment
from ..embeddings import EncodedPrompt, joined
from ..family import Loaded
from ..logits import LogitRule
from ..runner.library import said_where
from ..runner.out_of_memory import is_out_of_memory
from ..runner.probe import check_prompt
from .exact_frames import exact_frames
from .processor_options import Values
from .prompt import process
from .together import Ahead, Together, rows_seen, rules
from .tried_towers import TriedTowers

_SAME = 0.02  # of the largest number: rounding in bf16 stays below a quarter of it
_AGAIN = 0.005  # the same for one pass and the next
_SIDES = (48, 64)
_CLIP = 8  # frames of a piece where a tower looks at all of them at once
_SECOND_US = 1_000_000
# Seconds of sound after which a tower may make the same of the pieces as of the whole.
_WINDOWS = (1.0, 2.0, 4.0, 8.0)
_CHUNK = 30.0  # where nothing else is known
_WHAT = {"image": "a picture", "video": "frames", "audio": "a sound"}
_WORDS = "What is it?"
_NONE = np.zeros(0, np.int64)


class FamilyTrial:
    """One trial. `attention` is the model's, before and after."""

    def __init__(self, loaded: Loaded, towers: TriedTowers, model: Any, attention: dict[str, str]) -> None:
        self._loaded, self._towers, self._model, self._attention = loaded, towers, model, attention
        self._random = np.random.default_rng(0)
        self._passed: dict[str, tuple[np.ndarray, Segment]] = {}  # what was tried of each kind that may be streamed
        self.drawn = LogitRule()  # what the model does with its logits

    def run(self) -> dict[str, str]:
        """Try each kind of media that the towers take, and take from them what does not pass. Returns the reasons."""
        towers, refused = self._towers, {}
        trials: dict[str, Callable[[], None]] = {"image": self._image, "video": self._video, "audio": self._audio}
        for kind in [*towers.senses]:
            try:
                trials[kind]()
            except (ModelError, InputError) as error:
                refused[kind] = " ".join(str(error).split())
            except Exception as error:  # whatever a class raises that was never called like this
                if is_out_of_memory(error):
                    raise
                refused[kind] = said_where(error)
            if kind in refused:
                towers.leave_out(kind)
        for kinds, why in self._mixed():
            if why is None:
                towers.exclusive |= {*kinds}
            else:
                refused[kinds[1]] = why
                towers.leave_out(kinds[1])
        towers.types.learning = False
        self._options()
        return refused

    def _mixed(self) -> Iterator[tuple[tuple[str, str], str | None]]:
        """The kinds whose rows are others in a prompt with another kind, where the whole model makes them; and why such
        a prompt is not what it is in the library, None if it is."""
        towers = self._towers
        for first, other in itertools.combinations(tuple(self._passed), 2):
            senses = [towers.senses.get(kind) for kind in (first, other)]
            if any(sense is None for sense in senses) or all(sense and sense.encode for sense in senses):
                continue
            media: list[Piece] = [Media(kind, self._passed[kind][0]) for kind in (first, other)]
            parts = [{"type": kind, kind: "x"} for kind in (first, other)] + [{"type": "text", "text": _WORDS}]
            asked = Content(media, messages=[{"role": "user", "content": parts}], video_fps=towers.video_fps)
            try:
                inputs = process(towers, asked).to(self._loaded.device, dtype=self._loaded.dtype)
                with torch.inference_mode():
                    made = towers.encode_prompt(inputs)
            except (InputError, RuntimeError, ValueError) as error:
                if is_out_of_memory(error):
                    raise
                continue  # it does not take both, and says so to clients too
            alone = {kind: towers.look(self._passed[kind][1])[1].rows for kind in (first, other)}
            both = torch.cat([*alone.values()])  # which each has where the two share a placeholder
            for kind, _, rows in made:
                shown = joined(rows).rows
                if not _near(alone[kind], shown) and not _near(both, shown):
                    beside = other if kind == first else first
                    why = f"its rows of {_WHAT[kind]} are others in a prompt with {_WHAT[beside]} too"
                    yield (first, other), None if self._is_right(asked, inputs) else why
                    break

    def _is_right(self, asked: Content, inputs: Any) -> bool:
        """Whether a prompt over pages gives the logits that it gives in the library."""
        loaded = self._loaded._replace(ahead_in_windows=self._towers.ahead_in_windows)
        try:
            check_prompt(loaded, self._model, self._towers.prompt(asked), inputs, attention=self._attention)
        except (InputError, ModelError):
            return False
        return True

    def assume(self) -> None:
        """Without weights nothing is computed: media comes in the largest pieces in which it may have to."""
        towers = self._towers
        if "image" in towers.senses:
            self._nest(self._noise(*_SIDES, 3))
        if "video" in towers.senses:
            least = getattr(towers.processor.video_processor, "temporal_patch_size", 1)
            towers.clip_frames, towers.least_frames = max(_CLIP, least), least
        if "audio" in towers.senses:
            towers.block_seconds = self._chunk
        self._options()

    def _nest(self, pixels: np.ndarray) -> None:
        """The pictures of a prompt as a list for each text; where the processor does not take that, as one list."""
        nested = self._towers.nested
        for self._towers.nested in (nested, ()):
            try:
                self._towers.piece(ImageSegment(1, 0, pixels))
                return
            except ValueError:
                continue
        self._towers.nested = nested  # it lays none that stands alone

    def _options(self) -> None:
        """Which options of the processor there are for what is served."""
        towers = self._towers

        def call(pixels: np.ndarray, asked: Values) -> Any:
            return towers.piece(ImageSegment(1, 0, pixels, asked=dict(asked))).inputs

        if towers.senses.keys() & {"image", "video"}:
            towers.options.find(call, "video" in towers.senses)

        def count(frames: np.ndarray, size: Mapping[str, Any]) -> int:
            return int(towers.clip(frames, 0, 0, {"size": size}).media.sum())

        if "video" in towers.senses:
            towers.options.find_share(count, towers.least_frames)

    def _image(self) -> None:
        pixels = self._noise(*_SIDES, 3)
        segment = ImageSegment(1, 0, pixels)
        self._nest(pixels)
        self._same("image", pixels, segment)

    def _video(self) -> None:
        """Frames in the smallest pieces that the tower takes, where it makes of these what it makes of all together;
        else clips of their own."""
        towers = self._towers
        least = getattr(self._towers.processor.video_processor, "temporal_patch_size", 1)
        frames = self._noise(4 * least, *_SIDES, 3)
        towers.clip_frames = towers.least_frames = least
        times = [round(place * _SECOND_US / towers.video_fps) for place in range(len(frames))]
        whole = VideoSegment(1, 0, frames, times[0], times[-1])
        try:
            towers.piece(whole)
        except RuntimeError:  # it leaves it to its caller to bring frames to a size that the tower takes
            towers.video_more = {"do_resize": True}
        except KeyError:  # it needs the times that it was told, and does not keep them by itself
            towers.video_more = {"return_metadata": True}
        towers.tells_times = self._tells_times(frames[:least])
        self._same("video", frames, whole)
        if towers.streamed["video"] == "F":
            towers.exact_frames = exact_frames(towers, frames)
            return
        pieces = [
            VideoSegment(1, 0, frames[at : at + least], times[at], times[at + least - 1])
            for at in range(0, len(frames), least)
        ]
        if self._in_pieces(whole, pieces):
            return
        towers.clip_frames, towers.streamed["video"] = _CLIP, "E"
        towers.times_inside = towers.tells_times

    def _tells_times(self, frames: np.ndarray) -> bool:
        """Whether the same frames at another time are laid otherwise."""
        moved = [VideoSegment(1, 0, frames, at, at) for at in (0, 30 * _SECOND_US)]
        first, second = (self._towers.piece(piece).ids for piece in moved)
        return not np.array_equal(first, second)

    def _audio(self) -> None:
        """Sound in the shortest pieces that are as good as the whole; else in the longest that the processor takes."""
        towers, rate = self._towers, self._towers.rate
        chunk = self._chunk
        towers.longest_seconds = self._longest(chunk)
        sound = self._sound(2.0)
        self._same("audio", sound, AudioSegment(1, 0, sound, 0, 0, 0, 0, 2 * _SECOND_US))
        if towers.streamed["audio"] == "F":
            return
        for window in _WINDOWS:
            if towers.longest_seconds is not None and 2 * window > towers.longest_seconds:
                break
            whole = self._sound(2 * window)
            cut = round(window * rate)
            spans = [AudioSegment(1, 0, part, 0, 0, 0, 0, 0) for part in (whole, whole[:cut], whole[cut:])]
            if self._in_pieces(spans[0], spans[1:]):
                towers.block_seconds, towers.streamed["audio"] = window, "B"
                return
        towers.block_seconds, towers.streamed["audio"] = min(chunk, towers.longest_seconds or chunk), "E"

    @property
    def _chunk(self) -> float:
        """How many seconds of sound the processor takes at once, as far as it says so."""
        return float(getattr(self._towers.ear, "chunk_length", None) or _CHUNK)

    def _longest(self, chunk: float) -> float | None:
        """How many seconds of sound the processor takes; None where that has no bound. A processor may cut what is
        longer, and say nothing."""
        towers, rate = self._towers, self._towers.rate
        counts = [towers.size("audio", (round(seconds * rate),)).rows for seconds in (chunk, chunk + 2.0)]
        said = getattr(towers.processor, "max_audio_len", None)  # what those say that cut windows on their own
        return chunk if counts[1] <= counts[0] else said and float(said)

    def _sound(self, seconds: float) -> np.ndarray:
        """Noise, its first half loud and its second soft: a floor by the loudest moment would show."""
        samples = self._random.standard_normal(round(seconds * self._towers.rate)).astype(np.float32) / 4
        samples[len(samples) // 2 :] /= 1000
        return samples

    def _noise(self, *shape: int) -> np.ndarray:
        return self._random.integers(0, 256, shape, dtype=np.uint8)

    def _same(self, kind: str, medium: np.ndarray, segment: Segment) -> None:
        """Find a way in which a prompt with this medium is what it is in the library, and the medium alone is the same;
        where it is so in the prompt only, it is taken in whole prompts (class F). ModelError where there is no way."""
        towers, whole = self._towers, None
        refusals: list[Exception] = []
        for change in (lambda *_: True, self._with_marks, self._by_model, self._unwritten, self._by_model):
            try:
                if not change(kind, segment):
                    continue
                prompt = self._compare(kind, medium)
                kept = (
                    towers.senses[kind],
                    towers.marks.get(kind, _NONE),
                    towers.unwritten,
                    towers.ways[kind],
                    self.drawn,
                )
                whole = whole or kept
                if not towers.together.changes:
                    self._alone(kind, segment, prompt)
                    self._passed[kind] = medium, segment
                    return
            except Exception as error:  # whatever a class raises that was never called like this
                if is_out_of_memory(error):
                    raise
                refusals.append(error)
        if whole is None:
            raise refusals[0]
        towers.senses[kind], towers.marks[kind], towers.unwritten, towers.ways[kind], self.drawn = whole
        towers.streamed[kind] = "F"
        if towers.together.changes:
            towers.streamed = dict.fromkeys(towers.streamed, "F")

    def _with_marks(self, kind: str, segment: Segment) -> bool:
        """Marks are rows of the medium, if the model learnt them so."""
        return self._towers.find_marks(kind, segment)

    def _by_model(self, kind: str, _: Segment) -> bool:
        """The whole model makes the rows: it may add something to those of the tower."""
        sense, towers = self._towers.senses[kind], self._towers
        towers.senses[kind] = sense._replace(encode=None)
        return sense.encode is not None

    def _unwritten(self, kind: str, _: Segment) -> bool:
        """The processor sets media before the text by itself."""
        self._towers.unwritten |= {kind}
        return True

    def _compare(self, kind: str, medium: np.ndarray) -> EncodedPrompt:
        """A prompt with this medium. ModelError where it is another over pages than in the library."""
        towers = self._towers
        content = [{"type": kind, kind: "x"}, {"type": "text", "text": _WORDS}]
        messages = [{"role": "user", "content": content}]
        asked = Content([Media(kind, medium)], messages=messages, video_fps=towers.video_fps)
        inputs = process(towers, asked).to(self._loaded.device, dtype=self._loaded.dtype)
        self._check_words(inputs["input_ids"])
        towers.ways[kind] = self._rules(kind, medium, inputs)
        prompt = towers.prompt(asked)
        if not _near(_shown(prompt), _shown(towers.prompt(asked)), _AGAIN):
            raise ModelError(f"its tower makes other rows of {_WHAT[kind]} each time: there is chance in it")
        self._over_pages(kind, medium, prompt, inputs)
        return prompt

    def _check_words(self, ids: torch.Tensor) -> None:
        """ModelError where a processor makes several prompts of one, or writes other words."""
        said = self._towers.processor.tokenizer.decode(ids[0])
        if len(ids) != 1 or _WORDS not in said:
            raise ModelError(f"expected one prompt with {_WORDS!r} from its processor, got {len(ids)}: {said}")

    def _alone(self, kind: str, segment: Segment, prompt: EncodedPrompt) -> None:
        """ModelError where the rows of a medium in a prompt are others than those of the medium alone."""
        towers, what, rows = self._towers, _WHAT[kind], prompt.rows
        laid, seen = towers.look(segment)
        mutual = towers.ways[kind].way is Together.PIECE
        if mutual:
            whole = laid.media[laid.media.argmax() :][: laid.media.sum()].all()
            if kind == "audio" or (kind == "image" and not whole):
                raise ModelError(f"in the library rows of {what} see one another, and not all at once")
        ids, count = np.concatenate([run.ids for run in rows]), len(laid.ids)
        places = [at for at in range(len(ids)) if np.array_equal(ids[at : at + count], laid.ids)]
        if not places:
            raise ModelError(f"its processor lays {what} in a prompt otherwise than one that stands alone")
        positions = np.concatenate([run.positions for run in rows], 1)[:, places[0] : places[0] + count + 1]
        shift = positions - np.append(laid.offsets, np.full((3, 1), laid.behind), 1)
        if (shift != shift[0, 0]).any():
            raise ModelError(f"its rule gives {what} in a prompt other positions than one that stands alone")
        shown = _shown(prompt)
        if not _near(shown, seen.rows):
            raise ModelError(f"its tower makes other rows of {what} in a prompt than of one that stands alone")
        if mutual:
            towers.streamed[kind] = "D"
        if laid.media.all() and laid.places is None and seen.deep is None:
            towers.plain.add(kind)

    def _over_pages(self, kind: str, medium: np.ndarray, prompt: EncodedPrompt, inputs: Any) -> None:
        """ModelError where a prompt over pages gives other logits than in the library, and where one with this medium
        and another does: what a model lays for a second may be other rows than for the first."""
        loaded = self._loaded._replace(ahead_in_windows=self._towers.ahead_in_windows)
        check = partial(check_prompt, loaded, self._model, attention=self._attention)
        self.drawn = check(prompt=prompt, inputs=inputs)
        turned = medium.swapaxes(0, 1) if kind == "image" else medium[::-1]
        for other in (medium[: max(1, len(medium) // 2)], turned):
            if (two := self._two(kind, medium, np.ascontiguousarray(other))) is None:
                continue  # it does not take two such, and says so to clients too
            try:
                check(prompt=two[0], inputs=two[1])
            except ModelError as error:
                raise ModelError(f"of two in one prompt, {error}") from error
            return

    def _two(self, kind: str, *media: np.ndarray) -> tuple[EncodedPrompt, Any] | None:
        """A prompt with several media and what the library takes for it; None where that is refused."""
        part = {"type": kind, kind: "x"}
        messages = [{"role": "user", "content": [part, {"type": "text", "text": "And"}, part]}]
        asked = Content([Media(kind, one) for one in media], messages=messages, video_fps=self._towers.video_fps)
        try:
            inputs = process(self._towers, asked).to(self._loaded.device, dtype=self._loaded.dtype)
            return self._towers.prompt(asked), inputs
        except Exception as error:  # whatever a class raises
            if is_out_of_memory(error):
                raise
            return None

    def _rules(self, kind: str, medium: np.ndarray, inputs: Any) -> Ahead:
        """Which rows see rows behind them in the library. What one medium says is asked again with two."""
        found = self._seen(kind, inputs)
        if found.way is not Together.MEDIA:
            return found
        towers = self._towers
        parts = [{"type": kind, kind: "x"}, {"type": "text", "text": _WORDS}]
        messages, fps = [{"role": "user", "content": parts * 2}], towers.video_fps
        two = Content([Media(kind, medium)] * 2, messages=messages, video_fps=fps)
        try:
            more = process(towers, two).to(self._loaded.device, dtype=self._loaded.dtype)
        except (InputError, ValueError):  # it takes one alone
            return found
        return self._seen(kind, more)

    def _seen(self, kind: str, inputs: Any) -> Ahead:
        media = self._towers.media_mask(inputs, kind, self._towers.senses[kind].id)
        return rules(rows_seen(self._model, inputs, self._attention), media)

    def _in_pieces(self, whole: Segment, pieces: Sequence[Segment]) -> bool:
        """Whether the pieces one after the other are the whole: ids, positions and rows."""
        one, shown = self._towers.look(whole)
        parts = [self._towers.look(piece) for piece in pieces]
        starts = np.cumsum([0] + [laid.behind for laid, _ in parts])
        ids = np.concatenate([laid.ids for laid, _ in parts])
        offsets = [start + laid.offsets for (laid, _), start in zip(parts, starts, strict=False)]
        same = np.array_equal(ids, one.ids) and np.array_equal(np.concatenate(offsets, 1), one.offsets)
        return same and _near(shown.rows, torch.cat([seen.rows for _, seen in parts]))


def _shown(prompt: EncodedPrompt) -> torch.Tensor:
    """The rows of a prompt that are not words' alone, `(n, hidden)`."""
    return torch.cat([part.rows for part in prompt.embeds if part is not None])


def _near(first: torch.Tensor, second: torch.Tensor, share: float = _SAME) -> bool:
    return first.shape == second.shape and float((first - second).abs().max()) <= share * float(first.abs().max())
