"""What is refused, each with words of its reason: a family is right, or it says why not."""

from __future__ import annotations

from typing import NamedTuple

from tests.engine.tried import mllama

from . import axes, hearing, refusals
from .refusals import named
from .suite import Builder


class Refusal(NamedTuple):
    """`build(folder)` makes a small checkpoint of the real architecture there, or as much of one as a load reads.
    `reason` is in what the load says."""

    build: Builder
    reason: str


_ENCODER = "its decoder reads the states of an encoder"

REFUSED: dict[str, Refusal] = {
    "blip-2": Refusal(refusals.blip2, "its processor lays 5 rows of image, its tower gives 4"),
    "chameleon": Refusal(refusals.chameleon, "the library shuts out words by their logits"),
    "diffusion_gemma": Refusal(named("diffusion_gemma"), "expected as many heads of one size in all layers"),
    "emu3": Refusal(refusals.emu3, "lays a picture in a prompt otherwise than one that stands alone"),
    "florence2": Refusal(named("florence2"), _ENCODER),
    "fuyu": Refusal(refusals.fuyu, "Found total 2 |SPEAKER| tokens and 1 images"),
    "git": Refusal(refusals.git, "its attention cannot be replaced"),
    "hunyuan_vl": Refusal(axes.hunyuan_vl, "its rule gives a picture in a prompt other positions"),
    "instructblip": Refusal(refusals.instructblip, "its processor lays 5 rows of image, its tower gives 4"),
    "kosmos-2": Refusal(refusals.kosmos2, "expected image_token on its Kosmos2Processor"),
    "kyutai_speech_to_text": Refusal(refusals.kyutai_speech_to_text, "expected image_token on its Kyutai"),
    "mllama": Refusal(mllama, "expected layers that see rows of the cache alone, got cross_attention_layers"),
    "phi4_multimodal": Refusal(refusals.phi4_multimodal, "expected image_token_id on its Phi4MultimodalConfig"),
    "pix2struct": Refusal(named("pix2struct"), _ENCODER),
    "t5gemma2": Refusal(named("t5gemma2"), _ENCODER),
    "udop": Refusal(named("udop"), _ENCODER),
    "vibevoice_asr": Refusal(hearing.vibevoice_asr, "its tower makes other rows of a sound each time"),
    "voxtral": Refusal(refusals.voxtral, "expected text from its processor"),
    "voxtral_realtime": Refusal(named("voxtral_realtime"), "mistral-common"),
    "whisper": Refusal(named("whisper"), _ENCODER),
}
