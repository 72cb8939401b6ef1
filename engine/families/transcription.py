"""How families that hear are asked for the words of a sound: as their makers ask them. In: a configuration. Out: a
`Transcription`, that of the checkpoint where its config.json has one."""

from __future__ import annotations

from typing import Any

import msgspec

from ...errors import InputError, ModelError
from ...streams.requests.transcription import Transcription

_HINT = "These words belong to the audio: {prompt}"
_CODES = {
    "en": "English",
    "zh": "Chinese",
    "yue": "Cantonese",
    "fr": "French",
    "de": "German",
    "ko": "Korean",
    "ja": "Japanese",
    "ru": "Russian",
    "it": "Italian",
    "es": "Spanish",
    "pt": "Portuguese",
    "ms": "Malay",
    "nl": "Dutch",
    "id": "Indonesian",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "ar": "Arabic",
    "ur": "Urdu",
}
_OMNI3 = Transcription(
    "Transcribe the audio into text.",
    languages=_CODES,
    in_language="Transcribe the {language} audio into text.",
    hint=_HINT,
    translate="Listen to the provided speech and produce a translation in English text.",
)
_VOXTRAL = "<s>[INST][BEGIN_AUDIO][AUDIO][/INST]"
_VOXTRAL_CODES = {"hi": "Hindi"} | {code: _CODES[code] for code in ("en", "es", "fr", "pt", "de", "nl", "it")}
# By family. The languages of Qwen2.5-Omni are those of its makers' tables (arXiv 2503.20215), those of
# Voxtral of its card.
WORDINGS = {
    "qwen2_5_omni": msgspec.structs.replace(
        _OMNI3,
        system="You are a speech recognition model.",
        translate_system="You are a speech translation model.",
        languages={code: _CODES[code] for code in ("en", "zh", "yue", "fr", "de")},
    ),
    "qwen3_omni": _OMNI3,
    "voxtral": Transcription(
        _VOXTRAL + "[TRANSCRIBE]",
        languages=_VOXTRAL_CODES,
        in_language=_VOXTRAL + "lang:{code}[TRANSCRIBE]",
        whole=True,
    ),
}


def transcription_of(config: Any, family: str) -> Transcription | None:
    """How a checkpoint of this family is asked; None: nobody knows. ModelError for a wording that is none."""
    given = getattr(config, "transcription", None)
    if given is None:
        return WORDINGS.get(family)
    try:
        wording = msgspec.convert(given, Transcription)
        wording.check()
    except (msgspec.ValidationError, InputError) as error:
        raise ModelError(f"config.json: transcription: {error}") from None
    return wording
