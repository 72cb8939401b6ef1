"""One finished sequence as plain `transformers` sees it: no pages, no stream, no code of the engine.

In: a model and a processor that `transformers` loaded, and a list of pieces. Out: ids, positions, embeddings, logits.

The oracle's rooms, none of which imports the package under test:
    pieces.py     what a finished sequence consists of, as plain data
    sound.py      log-mel features of encoder blocks with a running maximum
    one_axis.py   pictures and frames of models whose rows stand on one axis
    places.py     positions of text and media, and where a sampled token goes
    dense.py      build a sequence, run it dense, continue it greedily
    sliding.py    a stream that has slid: what it holds, and what its new rows see
    drift.py      what rounding does to keys that slide, as a table
    check.py      is a fixture model able to see, hear and order what it is given?
    media.py      pictures and sounds drawn from a seed
    stock.py      how the installed library is asked for sound in video
"""

from __future__ import annotations

from collections.abc import Sequence as Row
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from . import one_axis
from . import pieces as p
from .places import Places, Rule, grid_places, pace_of, times_of, unit_grids, video_times
from .sound import RunningFloor, clip_features, run_blocks


@dataclass(frozen=True, eq=False)
class Sequence:
    """A finished sequence of T rows."""

    ids: torch.Tensor  # (T,) int64; media rows hold their placeholder id
    positions: torch.Tensor  # (3, T) int64
    embeds: torch.Tensor  # (T, hidden) float32
    deep: list[torch.Tensor]  # what is added behind each of the first layers, (T, hidden)
    marks: tuple[tuple[int, int], ...]  # rows [start, stop) of each piece
    next_position: int  # where the next sampled token goes
    mutual: tuple[tuple[int, int], ...] = ()  # rows [start, stop) that see one another


def build(model: Any, processor: Any, pieces: Row[p.Piece], *, fps: float = 2.0, positions: Rule = "max") -> Sequence:
    """Lay the pieces one behind the other. `fps` is the nominal rate of all video frames.

    `processor` is the model's own; for a text model its tokenizer does.
    """
    return _Layer(model, processor, fps, positions).lay(pieces)


@torch.no_grad()
def forward(model: Any, sequence: Sequence) -> torch.Tensor:
    """Logits `(T, vocabulary)` of one dense forward over the whole sequence, without a cache."""
    return _run(model, sequence, sequence.embeds, sequence.positions, len(sequence.ids), None, sequence.deep)


@torch.no_grad()
def greedy(model: Any, sequence: Sequence, count: int) -> tuple[list[int], torch.Tensor]:
    """Continue the sequence by `count` greedy tokens: their ids, and the logits `(count, vocabulary)` they came from.

    A plain loop with a kept cache and explicit positions. End tokens do not stop it.
    """
    cache = DynamicCache()
    logits = _run(model, sequence, sequence.embeds, sequence.positions, len(sequence.ids), cache, sequence.deep)[-1]
    ids: list[int] = []
    rows: list[torch.Tensor] = []
    while True:
        rows.append(logits)
        ids.append(int(logits.argmax()))
        if len(ids) == count:
            return ids, torch.stack(rows)
        place = torch.full((3, 1), sequence.next_position + len(ids) - 1)
        embed = model.get_input_embeddings()(torch.tensor([ids[-1]]))
        logits = _run(model, sequence, embed, place, len(sequence.ids) + len(ids), cache, [])[-1]


def _run(
    model: Any,
    sequence: Sequence,
    embeds: torch.Tensor,
    positions: torch.Tensor,
    total: int,
    cache: Any,
    deep: list[torch.Tensor],
) -> torch.Tensor:
    with_axes = "mrope_section" in (getattr(model.config, "text_config", model.config).rope_parameters or {})
    inner = getattr(model.model, "language_model", getattr(model.model, "text_model", model.model))
    mask: Any = torch.ones(1, total, dtype=torch.long)
    if model.config.model_type == "gemma3":
        mask = one_axis.masks(model.config, sequence.mutual, len(embeds), total)
    seen = torch.stack(deep).abs().sum((0, -1)) > 0 if deep else torch.zeros(0)
    states = inner(
        inputs_embeds=embeds[None],
        position_ids=positions[:, None] if with_axes else positions[:1],
        attention_mask=mask,
        past_key_values=cache,
        use_cache=cache is not None,
        **({"visual_pos_masks": seen[None], "deepstack_visual_embeds": [one[seen] for one in deep]} if deep else {}),
    ).last_hidden_state
    return model.lm_head(states)[0]


@dataclass(frozen=True)
class _Turns:
    """What a chat template writes: before a turn's words, with its role; behind them; around a system prompt; where
    there is none (None: what the template itself says). `inside`: a system prompt opens the first user turn. `item`:
    around each text of a user turn, whose words are stripped where `strips`; `lead`: before a first item of a user turn
    that is no picture. `user_end` None: as `end`."""

    user: str
    assistant: str
    end: str
    system_start: str
    default: str | None = None
    system_end: str | None = None
    inside: bool = False
    item: tuple[str, str] = ("", "")
    lead: str = ""
    strips: bool = False
    user_end: str | None = None

    def system(self, text: str) -> tuple[str, str, str]:
        return self.system_start, text, self.end if self.system_end is None else self.system_end


_CHAT_ML = _Turns("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n", "<|im_start|>system\n")
_LLAMA_3 = _Turns(
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "<|eot_id|>",
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n",
)
_LLAVA = _Turns("USER: ", "ASSISTANT:", " ", "<s>", "<s>", item=("", " "), user_end="")
_ONEVISION = _Turns(
    "<|im_start|>user ", "<|im_start|>assistant\n", "<|im_end|>", "<|im_start|>system \n", "", item=("\n", "")
)
_GEMMA = _Turns(
    "<start_of_turn>user\n",
    "<start_of_turn>model\n",
    "<end_of_turn>\n",
    "<bos><start_of_turn>user\n",
    "<bos>",
    "\n\n",
    inside=True,
    strips=True,
)
_SMOL = _Turns("User:", "Assistant:", "<end_of_utterance>\n", "<|im_start|>System: ", "<|im_start|>", lead=" ")
_TURNS = {"llama": _LLAMA_3, "llava": _LLAVA, "llava_onevision": _ONEVISION, "gemma3": _GEMMA, "smolvlm": _SMOL}


# What begins with a mark, or is no text: the words before it stand apart. Others may begin with text of their own.
_MARKED = ((p.Tokens, p.ImagePiece, p.VideoPiece, p.AudioPiece, p.AvPiece), (p.Tokens,))


class _Layer:
    """Lays pieces; what must be carried from piece to piece: positions and the maximum of the sound so far."""

    def __init__(self, model: Any, processor: Any, fps: float, rule: Rule) -> None:
        self.model = model
        self.processor = processor
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.turns = _TURNS.get(model.config.model_type, _CHAT_ML)
        self.places = Places(rule, sides=model.config.model_type in ("qwen2_vl", "qwen2_5_vl"))
        self.pace = pace_of(model.config)
        self.floor = RunningFloor()
        vl = hasattr(model.config, "vision_start_token_id") and not hasattr(model.config, "audio_config")
        self.sight = ("<|vision_start|>", "<|vision_end|>") if vl else ("<|vision_bos|>", "<|vision_eos|>")
        self.second_per_grid = 2 / fps
        self.ids: list[int] = []
        self.positions: list[torch.Tensor] = []
        self.embeds: list[torch.Tensor] = []
        layers = len(getattr(getattr(model.config, "vision_config", None), "deepstack_visual_indexes", ()))
        self.deep: list[list[torch.Tensor]] = [[] for _ in range(layers)]
        self.fps = fps
        self.mutual: list[tuple[int, int]] = []
        self.user_is_open = False
        self.in_reply = self.first = False
        self.pending = ""  # text that is not tokenised yet: what stands together is tokenised together

    @torch.no_grad()
    def lay(self, pieces: Row[p.Piece]) -> Sequence:
        marks = []
        for piece in pieces:
            if isinstance(piece, _MARKED[self.model.config.model_type in one_axis.MODEL_TYPES]):
                self._flush()
            start = len(self.ids)
            self._piece(piece)
            marks.append((start, len(self.ids)))
        self._flush()
        return Sequence(
            ids=torch.tensor(self.ids, dtype=torch.long),
            positions=torch.cat(self.positions, dim=1),
            embeds=torch.cat(self.embeds),
            deep=[torch.cat(layer) for layer in self.deep],
            marks=tuple(marks),
            next_position=self.places.largest + 1 if self.places.sides else self.places.next,
            mutual=tuple(self.mutual),
        )

    def _piece(self, piece: p.Piece) -> None:
        if self.first and not isinstance(piece, p.ImagePiece):
            self._text(self.turns.lead)
        self.first = False
        match piece:
            case p.System(text):
                for words in (self._default_system(),) if text is None else self.turns.system(text):
                    self._text(words)
                self.user_is_open = text is not None and self.turns.inside
            case p.UserStart():
                self._text("" if self.user_is_open else self.turns.user)
                self.first, self.user_is_open = not self.user_is_open, False
            case p.AssistantStart():
                self._text(self.turns.assistant)
                self.in_reply = True
            case p.UserEnd():
                self._text(self.turns.end if self.turns.user_end is None else self.turns.user_end)
            case p.AssistantEnd():
                self._text(self.turns.end)
                self.in_reply = False
            case p.Text(text):
                before, behind = self.turns.item
                self._text(before + (text.strip() if self.turns.strips else text) + behind)
            case p.Tokens(ids):
                self._tokens([int(token) for token in ids], self.places.sampled(len(ids)))
            case p.ImagePiece(pixels):
                self._image(pixels)
            case p.VideoPiece(frames, times, fps):
                times = times or tuple(index / self.fps for index in range(len(frames)))
                self._video(frames, times, 2 / (fps or self.fps))
            case p.AudioPiece():
                self._audio(piece)
            case p.AvPiece():
                self._audio_in_video(piece)
        if self.in_reply:  # a token is sampled here
            self._flush()

    def _default_system(self) -> str:
        if self.turns.default is not None:
            return self.turns.default
        probe = self.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
        return probe.split(self.turns.user)[0]

    def _text(self, text: str) -> None:
        self.pending += text

    def _flush(self) -> None:
        text, self.pending = self.pending, ""
        if text:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            self._tokens(ids, self.places.text(len(ids)))

    def _tokens(self, ids: list[int], positions: torch.Tensor) -> None:
        self._rows(ids, positions, self.model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)))

    def _rows(
        self, ids: list[int], positions: torch.Tensor, embeds: torch.Tensor, deep: Row[torch.Tensor] = ()
    ) -> None:
        for number, layer in enumerate(self.deep):
            layer.append(deep[number] if deep else torch.zeros_like(embeds))
        if not len(ids) == positions.shape[1] == len(embeds):
            raise AssertionError(f"{len(ids)} ids, {positions.shape[1]} positions, {len(embeds)} embeddings")
        self.ids += ids
        self.positions.append(positions)
        self.embeds.append(embeds)

    def _wrapper(self, *names: str) -> None:
        self._flush()
        ids = self.tokenizer.convert_tokens_to_ids(list(names))
        self._tokens(ids, self.places.twins() if len(ids) == 2 and self.pace.twins else self.places.text(len(ids)))

    def _image(self, pixels: np.ndarray) -> None:
        if self.model.config.model_type in one_axis.MODEL_TYPES:
            self._one_behind_the_other(one_axis.image(self.model, self.processor, pixels))
            return
        inputs = self.processor.image_processor(images=[pixels], do_resize=False, return_tensors="pt")
        grid = inputs["image_grid_thw"]
        output = self.model.get_image_features(inputs["pixel_values"], grid)
        embeds = torch.cat(list(output.pooler_output))
        _, height, width = (grid[0] // torch.tensor([1, 2, 2])).tolist()
        self._wrapper(self.sight[0])
        places = self.places.grids(torch.zeros(1, dtype=torch.long), height, width)
        # By picture, or in some versions of the library for all in one: the same rows.
        layers = output.deepstack_features if self.deep else []
        deep = [torch.cat(list(layer)).view(len(embeds), -1) for layer in layers]
        self._rows([self.model.config.image_token_id] * len(embeds), places, embeds, deep)
        self._wrapper(self.sight[1])

    def _one_behind_the_other(self, laid: list[str | one_axis.Media]) -> None:
        for part in laid:
            if isinstance(part, str):
                self._text(part)
                continue
            self._flush()
            if self.model.config.model_type == "gemma3":
                self.mutual.append((len(self.ids), len(self.ids) + len(part.embeds)))
            self._rows([part.token] * len(part.embeds), self.places.text(len(part.embeds)), part.embeds)

    def _grids(self, frames: np.ndarray) -> tuple[torch.Tensor, int, int, list[torch.Tensor]]:
        """Embeddings `(grids, tokens, hidden)` of a block of video, its height and width in tokens; the same shape for
        each of the first layers."""
        if len(frames) % 2:
            frames = np.concatenate([frames, frames[-1:]])
        inputs = self.processor.video_processor(
            videos=[torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2)],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )
        grid = inputs["video_grid_thw"]
        output = self.model.get_video_features(inputs["pixel_values_videos"], grid)
        grids, height, width = (grid[0] // torch.tensor([1, 2, 2])).tolist()
        layers = [output.pooler_output, *(output.deepstack_features if self.deep else [])]
        embeds, *deep = [torch.cat(list(layer)).view(grids, height * width, -1) for layer in layers]
        return embeds, height, width, deep

    def _video(self, frames: np.ndarray, times: Row[float], second_per_grid: float) -> None:
        if self.model.config.model_type in one_axis.MODEL_TYPES:
            if self.model.config.model_type == "smolvlm":  # the words for a frame's time stand alone
                self._flush()
            self._one_behind_the_other(one_axis.video(self.model, self.processor, frames, times))
            return
        embeds, height, width, deep = self._grids(frames)
        self._wrapper(self.sight[0])
        if self.model.config.model_type == "qwen3_vl":
            for index, grid in enumerate(embeds):
                self._text(f"<{(times[2 * index] + times[min(2 * index + 1, len(times) - 1)]) / 2:.1f} seconds>")
                self._wrapper(self.sight[0])
                places = self.places.grids(torch.zeros(1, dtype=torch.long), height, width)
                ids = [self.model.config.video_token_id] * len(grid)
                self._rows(ids, places, grid, [layer[index] for layer in deep])
                self._wrapper(self.sight[1])
            self._wrapper(self.sight[1])
            return
        places = self.places.grids(times_of(self.model.config, len(embeds), second_per_grid), height, width)
        ids = [self.model.config.video_token_id] * places.shape[1]
        self._rows(ids, places, embeds.flatten(0, 1), [layer.flatten(0, 1) for layer in deep])
        self._wrapper(self.sight[1])

    def _sound(self, samples: np.ndarray, first: int, count: int | None, clip: bool) -> list[torch.Tensor]:
        """Embeddings of each of the wanted blocks."""
        blocks = run_blocks(samples, self.processor.feature_extractor, self.pace.block_frames)
        stop = len(blocks) if count is None else min(first + count, len(blocks))
        if clip:
            features = clip_features(blocks)[first:stop]
        else:
            features = [self.floor.features(block) for block in blocks[first:stop]]
        encoded = []
        for block in features:
            mask = torch.ones(1, block.shape[1], dtype=torch.long)
            encoded.append(self.model.get_audio_features(block[None], feature_attention_mask=mask).last_hidden_state)
        return encoded

    def _audio(self, piece: p.AudioPiece) -> None:
        embeds = torch.cat(self._sound(piece.samples, piece.first_block, piece.blocks, piece.clip))
        self._wrapper("<|audio_bos|>")
        places = self.places.text(len(embeds))
        self._rows([self.model.config.audio_token_id] * len(embeds), places, embeds)
        self._wrapper("<|audio_eos|>")

    def _audio_in_video(self, piece: p.AvPiece) -> None:
        pairs = -(-len(piece.frames) // 2)
        units = unit_grids(video_times(pairs, self.second_per_grid, self.pace.per_second), self.pace.unit)
        stop = None if piece.units is None else piece.first_unit + piece.units
        taken = units[piece.first_unit : stop]
        embeds, height, width, deep = self._grids(piece.frames[2 * taken[0][0] : 2 * taken[-1][1]])
        sound = self._sound(piece.samples, piece.first_unit, piece.units, piece.clip)
        times = video_times(len(embeds), self.second_per_grid, self.pace.per_second)
        ids: list[int] = []
        rows: list[torch.Tensor] = []
        deeper: list[list[torch.Tensor]] = [[] for _ in deep]
        chunks: list[torch.Tensor] = []
        heard = 0
        for unit in range(max(len(taken), len(sound))):
            if unit < len(taken):
                grids = slice(taken[unit][0] - taken[0][0], taken[unit][1] - taken[0][0])
                chunks.append(grid_places(times[grids], height, width))
                rows.append(embeds[grids].flatten(0, 1))
                for layer, seen in zip(deeper, deep, strict=True):
                    layer.append(seen[grids].flatten(0, 1))
                ids += [self.model.config.video_token_id] * len(rows[-1])
            if unit < len(sound):
                chunks.append(torch.arange(heard, heard + len(sound[unit])).expand(3, -1))
                rows.append(sound[unit])
                for layer in deeper:
                    layer.append(torch.zeros_like(sound[unit]))
                ids += [self.model.config.audio_token_id] * len(sound[unit])
                heard += len(sound[unit])
        self._wrapper("<|vision_bos|>", "<|audio_bos|>")
        laid = self.places.interleaved(chunks)
        self._rows(ids, laid, torch.cat(rows), [torch.cat(layer) for layer in deeper])
        self._wrapper("<|audio_eos|>", "<|vision_eos|>")
