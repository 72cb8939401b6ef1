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

REFUSED: dict[str, Refusal] = {
    "blip": Refusal(beside.blip, "expected image_token on its BlipProcessor"),
    "evolla": Refusal(beside.evolla, "expected a type that AutoModelForMultimodalLM opens"),
    "idefics": Refusal(beside.idefics, "expected layers that see rows of the cache alone, got cross_layer_interval"),
    "instructblipvideo": Refusal(beside.instructblipvideo, "expected image_token on its InstructBlipVideoProcessor"),
    "kosmos-2.5": Refusal(beside.kosmos2_5, "expected image_token_id on its Kosmos2_5Config"),
    "pp_chart2table": Refusal(later.pp_chart2table, "expected image_token on its PPChart2TableProcessor"),
    "shieldgemma2": Refusal(later.shieldgemma2, "expected all weights of Gemma3ForConditionalGeneration"),
    "diffusion_gemma": Refusal(named("diffusion_gemma"), "expected a reply that is drawn token by token"),
    "florence2": Refusal(named("florence2"), _ENCODER),
    "fuyu": Refusal(refusals.fuyu, "Found total 2 |SPEAKER| tokens and 1 images"),
    "git": Refusal(refusals.git, "its attention cannot be replaced"),
    "kosmos-2": Refusal(refusals.kosmos2, "expected image_token on its Kosmos2Processor"),
    "kyutai_speech_to_text": Refusal(refusals.kyutai_speech_to_text, _BESIDE),
    "pix2struct": Refusal(named("pix2struct"), _ENCODER),
    "t5gemma2": Refusal(named("t5gemma2"), _ENCODER),
    "udop": Refusal(named("udop"), _ENCODER),
    "vibevoice_asr": Refusal(hearing.vibevoice_asr, "its tower makes other rows of a sound each time"),
    "voxtral_realtime": Refusal(named("voxtral_realtime"), _BESIDE),
}
