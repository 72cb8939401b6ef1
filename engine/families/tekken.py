"""Checkpoints with a `tekken.json`, from which mistral-common makes their tokenizer: here it is the library's own form
of the same one, which writes conversations as text. In: a folder. Out: a tokenizer or a processor that is like others.

Voxtral's processor takes sound in a conversation of mistral-common's alone. `SpokenText` takes a text with a
placeholder for each sound and gives what that processor gives for the same conversation.
"""

from __future__ import annotations

import base64
import inspect
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ModelError
from ..runner.library import transformers

_FILE = "tekken.json"
_MARK, _BLOCK = "[AUDIO]", "[BEGIN_AUDIO][AUDIO]"
# Of the template that mistral-common writes: what it calls a sound, and what it writes for one.
_KINDS, _WRITES = "['input_audio', 'audio_url']", "'[AUDIO]'"


def tokenizer_of(path: Path) -> Any:
    """The tokenizer of a checkpoint."""
    return transformers.AutoTokenizer.from_pretrained(path, **_not_mistral(path))


def processor_of(path: Path) -> Any:
    """The processor of a checkpoint, one that takes sound beside a text."""
    processor = transformers.AutoProcessor.from_pretrained(path, **_not_mistral(path))
    if "audio" in inspect.signature(type(processor).__call__).parameters:
        return processor
    if not hasattr(processor, "apply_transcription_request"):
        return processor
    if not (path / _FILE).is_file():
        raise ModelError(f"expected {_FILE}, without which its processor takes no sound, got none")
    made = SpokenText(path)
    made.check()
    return made


def _not_mistral(path: Path) -> dict[str, Any]:
    """What asks for the library's own form of a tokenizer, where mistral-common is installed too."""
    return {"mistral_format": False} if (path / _FILE).is_file() else {}


class SpokenText:
    """Text and sound to ids and log-mels, of the checkpoint in this folder."""

    def __init__(self, path: Path) -> None:
        from mistral_common.integrations.chat_templates.chat_templates import convert_tokenizer_to_chat_template
        from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

        template = convert_tokenizer_to_chat_template(path / _FILE)
        template = template.replace(_KINDS, f"['audio', {_KINDS[1:]}").replace(_WRITES, f"'{_BLOCK}'")
        self._given: Any = transformers.AutoProcessor.from_pretrained(path)
        self.tokenizer: Any = convert_tekken_tokenizer(str(path / _FILE), chat_template=template)
        self.chat_template: Any = template
        self.feature_extractor = self._given.feature_extractor
        self.audio_token = _MARK
        self._heard = self._given.tokenizer.tokenizer.instruct_tokenizer.audio_encoder.audio_config

    def apply_chat_template(self, conversation: list[dict[str, Any]], **options: Any) -> str:
        """The text of a conversation, with a placeholder for each sound."""
        said = [_stripped(message) if message["role"] == "assistant" else message for message in conversation]
        return self.tokenizer.apply_chat_template(said, chat_template=self.chat_template, **options)

    def __call__(
        self, text: list[str], audio: Any = (), return_tensors: str = "pt", add_special_tokens: bool = True, **_: Any
    ) -> Any:
        """What the model takes for texts, in which each placeholder becomes as many as its sound has rows."""
        options = self._given._merge_kwargs()["audio_kwargs"]
        options.pop("return_tensors", None)
        most = options.pop("max_source_positions")
        heard = [self._given._retrieve_input_features([one], most, return_tensors="pt", **options) for one in audio]
        rows = iter([len(one) * one.shape[-1] // self._heard.audio_length_per_tok for one in heard])
        laid = []
        for one in text:
            first, *others = one.split(_MARK)
            laid.append(first + "".join(_MARK * next(rows) + other for other in others))
        made = dict(self.tokenizer(laid, return_tensors=return_tensors, add_special_tokens=add_special_tokens))
        more = {"input_features": torch.cat(heard)} if heard else {}
        return transformers.BatchFeature({**made, **more})

    def check(self) -> None:
        """ModelError where it makes another prompt of a conversation than the processor that takes conversations."""
        rate = self.feature_extractor.sampling_rate
        sounds = [np.sin(np.arange(rate // 8 * count) / 9).astype(np.float32) / 4 for count in (1, 3)]
        question, more = ({"type": "text", "text": words} for words in ("What is  it?", "And that,\nété?"))
        reply = {"role": "assistant", "content": [{"type": "text", "text": "A bell. "}]}

        def asked(*parts: dict[str, Any]) -> list[dict[str, Any]]:
            first = {"role": "user", "content": [parts[0], question, more]}
            return [first, reply, {"role": "user", "content": [more, parts[1]]}]

        theirs = self._given.apply_chat_template(
            asked(*({"type": "audio", "base64": _wav(one, rate)} for one in sounds))
        )
        text = self.apply_chat_template(asked(*[{"type": "audio"}] * 2), tokenize=False, add_generation_prompt=True)
        ours = self([text], sounds, add_special_tokens=False)
        for name in ("input_ids", "input_features"):
            if not torch.equal(ours[name], theirs[name]):
                raise ModelError(f"its processor gives other {name} for a conversation than for the same one as text")


def _stripped(message: dict[str, Any]) -> dict[str, Any]:
    """What an assistant has said, without the spaces behind it, as mistral-common has it."""
    content = message.get("content")
    if isinstance(content, str):
        content = content.rstrip(" ")
    elif content and content[-1]["type"] == "text":
        content = [*content[:-1], {**content[-1], "text": content[-1]["text"].rstrip(" ")}]
    return {**message, "content": content}


def _wav(samples: np.ndarray, rate: int) -> str:
    """A sound as mistral-common reads it."""
    import soundfile  # which reads it there

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="wav", subtype="FLOAT")
    return base64.b64encode(file.getvalue()).decode()
