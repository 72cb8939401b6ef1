"""What is refused, each with words of its reason: a family is right, or it says why not."""

from __future__ import annotations

from typing import NamedTuple

from . import beside, hearing, later, refusals
from .refusals import named
from .suite import Builder


class Refusal(NamedTuple):
    """`build(folder)` makes a small checkpoint of the real architecture there, or as much of one as a load reads.
    `reason` is in what the load says."""

    build: Builder
    reason: str


_ENCODER = "its decoder reads the states of an encoder"
_BESIDE = "expected rows that are a word or a piece of media, got words each said beside a moment of sound"
_FAR = "expected scores of queries and keys alone, with none for how far apart two rows are, got rel_extent"
_MASK = "its rows of image stand where the processor's image_embeds_position_mask says"

REFUSED: dict[str, Refusal] = {
    "blip": Refusal(beside.blip, _ENCODER),
    "evolla": Refusal(beside.evolla, "it takes no pictures, video or sound: its EvollaProcessor"),
    "idefics": Refusal(beside.idefics, "expected layers that see rows of the cache alone, got cross_layer_interval"),
    "kosmos-2.5": Refusal(beside.kosmos2_5, _MASK),
    "shieldgemma2": Refusal(later.shieldgemma2, "got those of ShieldGemma2ForImageClassification, and none for"),
    "diffusion_gemma": Refusal(named("diffusion_gemma"), "expected a reply that is drawn token by token"),
    "florence2": Refusal(named("florence2"), _ENCODER),
    "git": Refusal(refusals.git, "its attention cannot be replaced"),
    "kosmos-2": Refusal(refusals.kosmos2, _MASK),
    "inkling2": Refusal(named("inkling2"), _FAR),
    "inkling_mm_model": Refusal(named("inkling_mm_model"), _FAR),
    "kyutai_speech_to_text": Refusal(refusals.kyutai_speech_to_text, _BESIDE),
    "pi0": Refusal(named("pi0"), "expected a model that says words, got PI0ForConditionalGeneration"),
    "pix2struct": Refusal(named("pix2struct"), _ENCODER),
    "t5gemma2": Refusal(named("t5gemma2"), _ENCODER),
    "udop": Refusal(named("udop"), _ENCODER),
    "vibevoice_asr": Refusal(hearing.vibevoice_asr, "its tower makes other rows of a sound each time"),
    "voxtral_realtime": Refusal(named("voxtral_realtime"), _BESIDE),
}
