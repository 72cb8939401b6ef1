"""The thinker of Qwen2.5-Omni: images, video, sound, and sound inside video, as text out.

Positions follow `get_rope_index` of transformers (positions.py); encoders are asked through `get_image_features`,
`get_video_features` and `get_audio_features`. Class A: an image, a frame pair. Class B: a block of 2 s of sound.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...codecs.mel import floor_and_scale, log_mel
from ...codecs.resample import resample
from ...errors import InputError
from ...streams.requests.prompt import Content
from ...streams.segment import AudioSegment, ImageSegment, MediaSpec, Segment, UnitSegment, VideoSegment
from ..embeddings import Embeddings, EncodedSpan, Features, joined
from ..family import Family, FamilyData, Loaded
from ..runner.attention import NAME
from ..runner.gate import tower_pass
from ..runner.library import transformers
from ..span import Span
from ..words.template import learn
from .loudness import Loudness
from .opened import open_model
from .towers import Pictures, PictureTowers, with_towers
from .transcription import transcription_of

_TURNS = ("seconds_per_chunk", "position_id_per_seconds")
_CLASSES = {"image": "A", "video": "A", "audio": "B", "unit": "B"}


class OmniTowers(Loudness, PictureTowers):
    """The vision and the audio tower, and how loud each stream has been."""

    kinds = ("text", "image", "video", "audio")

    def __init__(self, model: Any, processor: Any) -> None:
        Loudness.__init__(self)
        PictureTowers.__init__(self, with_towers(model), processor)
        extractor = processor.feature_extractor
        self.mel = log_mel(
            extractor.feature_size,
            extractor.sampling_rate,
            extractor.n_fft,
            extractor.hop_length,
            device=str(self.device),
        )
        self.blocks += self.model.audio_tower.layers

    def sound_rows(self, frames: int) -> int:
        """Rows of a block of so many mel frames: a convolution of stride 2, then pairs."""
        return ((frames - 1) // 2 + 1 - 2) // 2 + 1

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        if isinstance(segment, AudioSegment):
            return self.sound_rows(segment.frames)
        audio = segment.audio if isinstance(segment, UnitSegment) else None
        return self._picture_rows(segment) + (0 if audio is None else self.sound_rows(audio.frames))

    @torch.inference_mode()
    def encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """Spans of (stream, segment) pairs: one pass of each tower over all that it has to do with."""
        images = [segment for _, segment in batch if isinstance(segment, ImageSegment)]
        clips = [segment for _, segment in batch if isinstance(segment, VideoSegment | UnitSegment)]
        sounds = [
            (stream, audio)
            for stream, segment in batch
            if (audio := segment.audio if isinstance(segment, UnitSegment) else segment)
            and isinstance(audio, AudioSegment)
        ]
        image = iter(self._images([segment.pixels for segment in images]))
        clip = iter(self._clips([segment.pixels for segment in clips]))
        sound = iter(self._sounds(sounds))
        spans = []
        for _, segment in batch:
            match segment:
                case ImageSegment():
                    spans.append(self._span(segment, "image", next(image), None))
                case VideoSegment():
                    spans.append(self._span(segment, "video", next(clip), None))
                case AudioSegment():
                    spans.append(self._span(segment, "audio", None, next(sound), segment.run))
                case UnitSegment():
                    spans.append(self._span(segment, "unit", next(clip), next(sound) if segment.audio else None))
        return spans

    def values(self, content: Content) -> dict[str, list[Any]]:
        """The media of a whole prompt by kind; sound at the processor's rate."""
        values = super().values(content)
        values["audio"] = [self._at_rate(piece.data, piece.rate) for piece in content.by_kind()["audio"]]
        return values

    def media_options(self, media: dict[str, list[Any]], content: Content) -> dict[str, Any]:
        """Options of the processor. With sound inside video there is one sound per video, in the same order."""
        options = super().media_options(media, content) | self._whole_sounds(media["audio"])
        if not content.audio_in_video:
            return options
        if len(media["audio"]) != len(media["video"]):
            raise InputError(
                f"audio in video: expected one sound per video, got {len(media['audio'])} for {len(media['video'])}"
            )
        # How sound and pictures take turns is the model's matter; the processor has its own idea of it.
        turns = {name: float(getattr(self.config, name)) for name in _TURNS if hasattr(self.config, name)}
        return options | turns | _in_video_options(len(media["video"]))

    def _whole_sounds(self, sounds: list[Any]) -> dict[str, Any]:
        """The processor fills sounds up to one length with silence, and cuts what is longer: a length that all have
        room in, where they have none in its own."""
        extractor = self.processor.feature_extractor
        longest = max(map(len, sounds), default=0)
        if longest <= extractor.n_samples:
            return {}
        hops = -(-longest // extractor.hop_length) + 1
        return {"audio_kwargs": {"max_length": hops * extractor.hop_length}}

    def video_options(self, content: Content) -> dict[str, Any]:
        """The processor takes one rate for all clips of a prompt."""
        return {"do_sample_frames": False, "fps": content.video_fps}

    def prompt_positions(self, inputs: Any, content: Content) -> torch.Tensor:
        sound = inputs.get("feature_attention_mask")
        positions, _ = self.model.get_rope_index(
            inputs["input_ids"],
            inputs.get("image_grid_thw"),
            inputs.get("video_grid_thw"),
            inputs["attention_mask"],
            content.audio_in_video,
            None if sound is None else sound.sum(-1),
            _as_tensor(inputs.get("video_second_per_grid")),
        )
        return positions[:, 0]

    def encode_prompt(self, inputs: Any) -> Features:
        return self._picture_features(inputs) + self._sound_features(inputs)

    def _at_rate(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """A sound at the processor's rate; `rate` 0: it has that."""
        wanted = self.processor.feature_extractor.sampling_rate
        if rate in (0, wanted):
            return samples
        return resample(torch.as_tensor(samples, device=self.device), rate, wanted).cpu().numpy()

    def _sound_features(self, inputs: Any) -> Features:
        if "input_features" not in inputs:
            return []
        mask = inputs["feature_attention_mask"]
        output = tower_pass(self.model.get_audio_features, inputs["input_features"], mask, return_dict=True)
        return [("audio", self.config.audio_token_id, [Embeddings(output.last_hidden_state)])]

    def _sounds(self, sounds: list[tuple[int, AudioSegment]]) -> list[torch.Tensor]:
        """Features of blocks.

        Each block's floor hangs on the loudest frame that its stream has had up to and with it, or on its clip's.
        """
        if not sounds:
            return []
        mels = []
        for stream, block in sounds:
            power = self._power(block)
            loudest = block.loudest
            if loudest is None:
                loudest = self._loudest[stream] = max(self._loudest.get(stream, float("-inf")), float(power.max()))
            mels.append(floor_and_scale(power, loudest))
        return self.encode_blocks(mels)

    def _power(self, block: AudioSegment) -> torch.Tensor:
        """The block's log-mel power, which comes with it where its whole clip was looked at."""
        if block.power is not None:
            return torch.from_numpy(block.power).to(self.device)
        return self.mel.power(torch.from_numpy(block.samples).to(self.device), block.lead, block.frames)

    def encode_blocks(self, mels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Rows of blocks of log-mel features `(bins, frames)`: one pass over all."""
        longest = max(mel.shape[1] for mel in mels)
        features = torch.stack([torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels])
        lengths = torch.tensor([mel.shape[1] for mel in mels], device=self.device)
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        features = features.to(self.model.dtype)
        output = tower_pass(self.model.get_audio_features, features, mask.long(), return_dict=True)
        return list(torch.split(output.last_hidden_state, [self.sound_rows(mel.shape[1]) for mel in mels]))

    def _span(
        self,
        segment: Segment,
        modality: str,
        seen: Pictures | None,
        heard: torch.Tensor | None,
        run: int = 0,
    ) -> EncodedSpan:
        features, grid = seen if seen is not None else (None, (0, 0, 0))
        pieces = [piece for piece in (features, None if heard is None else Embeddings(heard)) if piece is not None]
        sight = self.config.image_token_id if modality == "image" else self.config.video_token_id
        counts = (0 if features is None else len(features.rows), 0 if heard is None else len(heard))
        ids = np.repeat(np.array([sight, self.config.audio_token_id], dtype=np.int64), counts)
        place, times = (segment.seq, segment.index, modality), (segment.start_us, segment.stop_us)
        return EncodedSpan(Span(*place, ids, grid, counts[1], run, *times), joined(pieces))


def _as_tensor(value: Any) -> torch.Tensor | None:
    return None if value is None else torch.as_tensor(value)


def _in_video_options(videos: int) -> dict[str, Any]:
    """What the installed library's processor takes for sound inside each of `videos` videos."""
    if hasattr(transformers.processing_utils, "OmniModalProcessingKwargs"):
        return {"load_audio_from_video": True, "audio_from_video_indices": list(range(videos))}
    return {"use_audio_in_video": True}


def _unit_block(processor: Any, tokens: set[int]) -> tuple[str, str]:
    """The wrappers of sound inside video, from the processor itself on a dummy of two seconds."""
    size = processor.video_processor.patch_size * processor.video_processor.merge_size * 2
    frames = np.zeros((4, size, size, 3), dtype=np.uint8)
    messages = [{"role": "user", "content": [{"type": "video", "video": "x"}]}]
    text = processor.apply_chat_template(messages, tokenize=False)
    start = text.index(processor.vision_bos_token)
    sound = np.zeros(2 * processor.feature_extractor.sampling_rate, dtype=np.float32)
    output = processor(
        text=[text[start : text.index(processor.vision_eos_token) + len(processor.vision_eos_token)]],
        videos=[frames],
        audio=[sound],
        **_in_video_options(1),
    )
    row = [int(id) for id in output["input_ids"][0]]
    places = [place for place, id in enumerate(row) if id in tokens]
    marks = processor.tokenizer.convert_ids_to_tokens(row)
    return "".join(marks[: places[0]]), "".join(marks[places[-1] + 1 :])


def omni_spec(towers: OmniTowers, config: Any, unit_us: int) -> MediaSpec:
    """Blocks of sound are as long as the tower's convolutions see at once."""
    sounds = towers.processor.feature_extractor
    block = 2 * config.audio_config.n_window * sounds.hop_length
    return MediaSpec(
        **towers.rules,
        audio_rate=sounds.sampling_rate,
        hop_samples=sounds.hop_length,
        mel_bins=sounds.feature_size,
        block_samples=block,
        lead_samples=sounds.n_fft // 2,
        look_ahead_samples=sounds.n_fft // 2 - sounds.hop_length,
        min_block_frames=3,
        unit_us=unit_us,
    )


def load_omni(
    path: Path,
    where: tuple[torch.dtype, torch.device],
    classes: tuple[Any, Any, Callable[[Any, Any], OmniTowers]],
    unit_us: Callable[[Any], int],
    **rules: Any,
) -> Loaded:
    """The thinker from `path`, in a dtype on a device; the attention of its language model is replaced, that of the
    towers left alone.

    `classes`: of the processor, the model and the towers. `unit_us` tells from the configuration how long a unit of
    sound inside video is; `rules` are fields of `FamilyData` that differ.
    """
    make_processor, make_model, make_towers = classes
    dtype, device = where
    processor = make_processor.from_pretrained(path)
    attention = {"": "sdpa", "text_config": NAME, "vision_config": "sdpa", "audio_config": "sdpa"}
    model = open_model(make_model, path, dtype, device, attention)
    config, tokenizer = model.config, processor.tokenizer
    towers = make_towers(model, processor)
    learnt = learn(processor, tokenizer, model.generation_config, towers.placeholders())
    learnt["blocks"]["unit"] = _unit_block(processor, {config.video_token_id, config.audio_token_id})
    name = config.model_type.removesuffix("_thinker")
    fields = {
        "name": name,
        "model": str(path),
        "spec": omni_spec(towers, config, unit_us(config)),
        **learnt,
        "classes": dict(_CLASSES),
        "per_second": float(config.position_id_per_seconds),
        "axes": 3,
        "max_positions": config.text_config.max_position_embeddings,
        "vocabulary": config.text_config.vocab_size,
        "live_trained": bool(getattr(config, "live_trained", False)),
        "splice_tokens": int(getattr(config, "splice_tokens", 1)),
        "window_rows": int(getattr(config, "window_rows", 0)),
        "transcription": transcription_of(config, name),
    }
    family = Family(FamilyData(**fields | rules), tokenizer)
    decoder = getattr(model.model, "language_model", model.model)
    return Loaded(family, towers, decoder, model.lm_head, config.text_config)


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """The thinker of a Qwen2.5-Omni from `path`, in `dtype` on `device`."""
    classes = (
        transformers.Qwen2_5OmniProcessor,
        transformers.Qwen2_5OmniThinkerForConditionalGeneration,
        OmniTowers,
    )
    return load_omni(path, (dtype, device), classes, lambda config: int(config.seconds_per_chunk * 1_000_000))
