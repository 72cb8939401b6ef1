"""The thinker of Qwen2.5-Omni: images, video, sound, and sound inside video, as text out.

Positions follow `get_rope_index` of transformers (positions.py); encoders are asked through `get_image_features`,
`get_video_features` and `get_audio_features`. Class A: an image, a frame pair. Class B: a block of 2 s of sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...codecs.errors import InputError
from ...codecs.mel import LogMel, floor_and_scale
from ...codecs.resample import resample
from ...streams.segment import AudioSegment, ImageSegment, MediaSpec, Segment, UnitSegment, VideoSegment
from ..attention import NAME
from ..family import Family, FamilyData, Loaded
from ..library import transformers
from ..span import Prompt, Span
from ..template import learn
from .qwen_pictures import Features, Pictures, PictureTowers, picture_rules, with_towers

_CLASSES = {"image": "A", "video": "A", "audio": "B", "unit": "B"}


class OmniTowers(PictureTowers):
    """The vision and the audio tower, and how loud each stream has been."""

    kinds = ("text", "image", "video", "audio")

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(with_towers(model), processor)
        extractor = processor.feature_extractor
        self.mel = LogMel(
            extractor.feature_size,
            extractor.sampling_rate,
            extractor.n_fft,
            extractor.hop_length,
            device=str(self.device),
        )
        self.blocks += self.model.audio_tower.layers
        self._loudest: dict[int, float] = {}

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have."""
        if isinstance(segment, AudioSegment):
            return sound_rows(segment.frames)
        audio = segment.audio if isinstance(segment, UnitSegment) else None
        return self._picture_rows(segment) + (0 if audio is None else sound_rows(audio.frames))

    @torch.inference_mode()
    def encode(self, batch: list[tuple[int, Segment]]) -> list[Span]:
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

    def fork(self, stream: int, twin: int) -> None:
        if stream in self._loudest:
            self._loudest[twin] = self._loudest[stream]

    def forget(self, stream: int) -> None:
        self._loudest.pop(stream, None)

    @torch.inference_mode()
    def prompt(
        self, messages: list[dict[str, Any]], system: str | None, fps: float | None, audio_in_video: bool
    ) -> Prompt:
        """Template, processor, features and positions exactly as `transformers` has them for a whole prompt.

        Content parts: `{"type": "text" | "image" | "video" | "audio", <type>: value}`; an image is a PIL image or an
        array `(h, w, 3)`, a video an array `(n, h, w, 3)`, a sound a float32 array `(n,)` at
        the processor's rate, or at the part's own `sampling_rate`.
        With `audio_in_video` there is one sound per video, in the same order; it has no place of its own in the
        template.
        """
        messages = self._with_system(messages, system)
        media = self._media(messages)
        shown = _without_sound(messages) if audio_in_video else messages
        text = self.processor.apply_chat_template(shown, tokenize=False, add_generation_prompt=True)
        options: dict[str, Any] = {"fps": fps} if fps is not None and media["video"] else {}
        if audio_in_video:
            if len(media["audio"]) != len(media["video"]):
                raise InputError(
                    f"audio in video: expected one sound per video, got {len(media['audio'])} for {len(media['video'])}"
                )
            options |= _in_video_options(len(media["video"]))
        inputs = self.processor(
            text=[text],
            images=media["image"] or None,
            videos=media["video"] or None,
            audio=media["audio"] or None,
            return_tensors="pt",
            **options,
        ).to(self.device)
        sound = inputs.get("feature_attention_mask")
        positions, _ = self.model.get_rope_index(
            inputs["input_ids"],
            inputs.get("image_grid_thw"),
            inputs.get("video_grid_thw"),
            inputs["attention_mask"],
            audio_in_video,
            None if sound is None else sound.sum(-1),
            _as_tensor(inputs.get("video_second_per_grid")),
        )
        features = self._picture_features(inputs) + self._sound_features(inputs)
        return Prompt(self._laid(inputs["input_ids"][0], positions[:, 0], features))

    def _value(self, part: dict[str, Any]) -> Any:
        if part["type"] == "audio":
            return self._at_rate(part["audio"], part.get("sampling_rate"))
        return super()._value(part)

    def _at_rate(self, samples: Any, rate: int | None) -> np.ndarray:
        """A sound at the processor's rate."""
        wanted = self.processor.feature_extractor.sampling_rate
        if rate is None or rate == wanted:
            return samples
        return resample(torch.as_tensor(samples, device=self.device), rate, wanted).cpu().numpy()

    def _sound_features(self, inputs: Any) -> Features:
        if "input_features" not in inputs:
            return []
        mask = inputs["feature_attention_mask"]
        with self.turn():
            output = self.model.get_audio_features(inputs["input_features"], mask, return_dict=True)
        return [("audio", self.config.audio_token_id, output.last_hidden_state)]

    def _sounds(self, sounds: list[tuple[int, AudioSegment]]) -> list[torch.Tensor]:
        """Features of blocks.

        Each block's floor hangs on the loudest frame that its stream has had up to and with it, or on its clip's.
        """
        if not sounds:
            return []
        mels = []
        for stream, block in sounds:
            samples = torch.from_numpy(block.samples).to(self.device)
            power = self.mel.power(samples, block.lead, block.frames)
            loudest = block.loudest
            if loudest is None:
                loudest = self._loudest[stream] = max(self._loudest.get(stream, float("-inf")), float(power.max()))
            mels.append(floor_and_scale(power, loudest))
        longest = max(mel.shape[1] for mel in mels)
        features = torch.stack([torch.nn.functional.pad(mel, (0, longest - mel.shape[1])) for mel in mels])
        lengths = torch.tensor([mel.shape[1] for mel in mels], device=self.device)
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        with self.turn():
            output = self.model.get_audio_features(features.to(self.model.dtype), mask.long(), return_dict=True)
        return list(torch.split(output.last_hidden_state, [sound_rows(frames) for frames in lengths.tolist()]))

    def _span(
        self,
        segment: Segment,
        modality: str,
        seen: Pictures | None,
        heard: torch.Tensor | None,
        run: int = 0,
    ) -> Span:
        features, grid = seen if seen is not None else (None, (0, 0, 0))
        pieces = [piece for piece in (features, heard) if piece is not None]
        sight = self.config.image_token_id if modality == "image" else self.config.video_token_id
        counts = (0 if features is None else len(features), 0 if heard is None else len(heard))
        ids = np.repeat(np.array([sight, self.config.audio_token_id], dtype=np.int64), counts)
        embeds = torch.cat(pieces)
        return Span(
            segment.seq, segment.index, modality, ids, embeds, grid, counts[1], run, segment.start_us, segment.stop_us
        )


def sound_rows(frames: int) -> int:
    """Rows of a block of so many mel frames: a convolution of stride 2, then pairs."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def _as_tensor(value: Any) -> torch.Tensor | None:
    return None if value is None else torch.as_tensor(value)


def _without_sound(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**message, "content": [part for part in message["content"] if part["type"] != "audio"]}
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]


def _in_video_options(videos: int) -> dict[str, Any]:
    """What the installed library's processor takes for sound inside each of `videos` videos."""
    if hasattr(transformers.processing_utils, "OmniModalProcessingKwargs"):
        return {"load_audio_from_video": True, "audio_from_video_indices": list(range(videos))}
    return {"use_audio_in_video": True}


def _unit_block(processor: Any, tokens: set[int]) -> tuple[list[int], list[int]]:
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
    row = list(output["input_ids"][0])
    places = [place for place, id in enumerate(row) if id in tokens]
    return [int(id) for id in row[: places[0]]], [int(id) for id in row[places[-1] + 1 :]]


def _spec(processor: Any, config: Any) -> MediaSpec:
    sounds = processor.feature_extractor
    block = 2 * config.audio_config.n_window * sounds.hop_length
    return MediaSpec(
        **picture_rules(processor),
        audio_rate=sounds.sampling_rate,
        hop_samples=sounds.hop_length,
        mel_bins=sounds.feature_size,
        block_samples=block,
        lead_samples=sounds.n_fft // 2,
        look_ahead_samples=sounds.n_fft // 2 - sounds.hop_length,
        min_block_frames=3,
        unit_us=int(config.seconds_per_chunk * 1_000_000),
    )


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """The thinker from `path`, in `dtype` on `device`.

    The attention of the language model is replaced, that of the towers left alone.
    """
    processor = transformers.Qwen2_5OmniProcessor.from_pretrained(path)
    model: Any = transformers.Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
        path,
        dtype=dtype,
        use_safetensors=True,
        attn_implementation={"": "sdpa", "text_config": NAME, "vision_config": "sdpa", "audio_config": "sdpa"},
    )
    model = model.to(device).eval()
    config, tokenizer = model.config, processor.tokenizer
    placeholders = {"image": processor.image_token, "video": processor.video_token, "audio": processor.audio_token}
    learnt = learn(processor, tokenizer, model.generation_config, placeholders)
    learnt["block_ids"]["unit"] = _unit_block(processor, {config.video_token_id, config.audio_token_id})
    data = FamilyData(
        name="qwen2_5_omni",
        model=str(path),
        spec=_spec(processor, config),
        **learnt,
        classes=dict(_CLASSES),
        per_second=float(config.position_id_per_seconds),
        axes=3,
        max_positions=config.text_config.max_position_embeddings,
        vocabulary=config.text_config.vocab_size,
        live_trained=bool(getattr(config, "live_trained", False)),
    )
    family = Family(data, tokenizer)
    decoder = getattr(model.model, "language_model", model.model)
    return Loaded(family, OmniTowers(model, processor), decoder, model.lm_head, config.text_config)
