"""Whisper: a sound in, its words out (arXiv 2212.04356). An encoder makes 1,500 rows of half a minute, which every
token of the decoder reads by cross-attention.

A request holds one sound and, as words, what is to be done with it: nothing or "transcribe", with a language or
without, or "translate". Lines before that are words that belong to the sound. In `prompt` and `prompt_ids` a client may
write the decoder's own tokens. The tokens are those that `generate` of the library begins with.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import InputError, ModelError
from ...streams.requests.prompt import Content, Media
from ...streams.requests.transcription import Transcription
from ...streams.segment import MediaSpec
from ..embeddings import Embeddings, EncodedPrompt, Features
from ..family import Family, FamilyData, Loaded
from ..logits import LogitRule
from ..runner.attention import ALONE, NAME
from ..runner.gate import tower_pass
from ..runner.library import transformers
from ..span import Look
from ..words.spelling import spelling_of
from ..words.template import EDGE, TEXT, Turns
from .across import LargestPrompt, PromptTowers, by_pages, check_whole, laid_across
from .alone import at_rate
from .opened import open_model
from .prompt import check_ids

_TASKS = ("transcribe", "translate")
_ASKED = "transcribe or translate, behind it a language where that is known, and words of the sound in lines before"


class Tokens:
    """The tokens that a reply begins behind. `languages`: ids by code; empty: the model knows one language."""

    def __init__(self, tokenizer: Any, generation: Any) -> None:
        self._spelling = spelling_of(tokenizer)
        names = ("<|startoftranscript|>", "<|startofprev|>", "<|notimestamps|>", *(f"<|{task}|>" for task in _TASKS))
        vocabulary = tokenizer.get_vocab()
        missing = [name for name in names[:3] if name not in vocabulary]
        if missing:
            raise ModelError(f"expected {', '.join(missing)} among the words of Whisper's tokenizer, got none")
        self.start, self._before, self._untimed = (vocabulary[name] for name in names[:3])
        self.languages: dict[str, int] = {}
        self.tasks: dict[str, int] = {}
        if getattr(generation, "is_multilingual", True):
            codes = transformers.models.whisper.tokenization_whisper.LANGUAGES
            self.languages = {code: vocabulary[f"<|{code}|>"] for code in codes if f"<|{code}|>" in vocabulary}
            self.tasks = {task: vocabulary[f"<|{task}|>"] for task in _TASKS if f"<|{task}|>" in vocabulary}
            if not self.languages or not self.tasks:
                raise ModelError("expected tokens of languages and tasks from a Whisper of many languages, got none")
        self.names = {code: codes[code] for code in self.languages} if self.languages else {}

    def asked(self, words: str) -> tuple[str, str, str]:
        """What words ask for: (the task, the code of the language or "", words of the sound)."""
        *hint, asked = words.rstrip().rsplit("\n", 1) if words.strip() else [""]
        task, _, language = asked.strip().rstrip(".").lower().partition(" ")
        codes = {name: code for code, name in self.names.items()} | {code: code for code in self.names}
        may = (*self.tasks, "") if self.tasks else (_TASKS[0], "")
        if task not in may or (language and language not in codes):
            raise InputError(f"words: expected {_ASKED}, got {asked[:80]!a}")
        return task or _TASKS[0], codes.get(language, ""), "\n".join(hint)

    def begin(self, task: str, language: int | None, hint: str, most: int) -> list[int]:
        """The decoder's first ids; of a hint the last `most` at most."""
        before = self._spelling.ids(" " + self._spelling.cover(hint.strip())) if hint.strip() else []
        said = [self._before, *before[-most:]] if before else []
        return [*said, self.start, *([] if language is None else [language, self.tasks[task]]), self._untimed]


class WhisperTowers(PromptTowers):
    """The encoder, and what the decoder begins with."""

    def __init__(self, model: Any, processor: Any, tokens: Tokens) -> None:
        super().__init__(processor.tokenizer)
        self.whole, self._tokens, self._ear = model, tokens, processor.feature_extractor
        self.blocks = list(model.model.encoder.layers)
        self._longest = self._ear.n_samples

    def spec(self) -> MediaSpec:
        """A stream may listen to sound, and keeps none."""
        return MediaSpec(audio_rate=self._ear.sampling_rate)

    @property
    def largest_prompt(self) -> LargestPrompt:
        """One that is as long as a sound may be."""
        sound = Media("audio", np.zeros(self._longest, np.float32))
        return LargestPrompt(Content([sound], text=_TASKS[0]), self.whole.config.max_source_positions)

    @torch.inference_mode()
    def prompt(self, content: Content, known: Features | None = None) -> EncodedPrompt:
        """The rows of its sound, and behind them the decoder's first tokens. InputError where it is not one sound of
        half a minute at most, or its words ask for something else."""
        sound = self._sound(content)
        task, language, hint = self._tokens.asked(_words(content)) if _is_asked(content) else ("", "", "")
        if known is None:
            features = self._ear(sound, sampling_rate=self._ear.sampling_rate, return_tensors="pt").input_features
            features = features.to(self.whole.device, self.whole.dtype)
            states = tower_pass(self.whole.model.encoder, features).last_hidden_state[0]
            known = [("audio", self._tokens.start, [Embeddings(states)])]
        states = known[0][2][0].rows
        if not task:
            ids = self._own(content)
        else:
            codes = self._tokens.languages
            said = codes[language] if language else self._language(states) if codes else None
            ids = self._tokens.begin(task, said, hint, self.whole.config.max_target_positions // 2 - 1)
        words, looks = np.array(ids, dtype=np.int64), [Look(0, 0, len(states))]
        return laid_across(states, self._tokens.start, words, looks, 1)._replace(features=known)

    def _sound(self, content: Content) -> np.ndarray:
        pieces = content.by_kind()
        others = [kind for kind, found in pieces.items() if found and kind != "audio"]
        if others or len(pieces["audio"]) != 1:
            got = ", ".join(others) or f"{len(pieces['audio'])} sounds"
            raise InputError(f"{content.name}: expected one sound, which is what Whisper hears, got {got}")
        [piece] = pieces["audio"]
        rate = self._ear.sampling_rate
        sound = at_rate(piece.data, piece.rate, rate, self.whole.device)
        if len(sound) > self._longest:
            most, got = self._longest / rate, len(sound) / rate
            raise InputError(f"audio: expected at most {most:g} s, which Whisper hears at once, got {got:.1f} s")
        return sound

    def _own(self, content: Content) -> list[int]:
        """The ids that a client wrote by itself."""
        if content.ids is not None:
            return check_ids(content, len(self.tokenizer))
        return self.tokenizer(content.text, add_special_tokens=False)["input_ids"]

    def _language(self, states: torch.Tensor) -> int:
        """The likeliest of the languages, by the first token that the decoder would say."""
        start = torch.tensor([[self._tokens.start]], device=states.device)
        decoder, more = self.whole.model.decoder, {"use_cache": False, "step": ALONE}
        hidden = tower_pass(decoder, input_ids=start, encoder_hidden_states=states[None], **more).last_hidden_state
        ids = list(self._tokens.languages.values())
        return ids[int(self.whole.proj_out(hidden)[0, -1, ids].argmax())]


def _is_asked(content: Content) -> bool:
    """Whether words say what is to be done; else the client wrote the decoder's tokens."""
    return content.ids is None and not (content.text or "").lstrip().startswith("<|")


def _words(content: Content) -> str:
    if content.tools:
        raise InputError(f"tools: expected none, since Whisper calls nothing, got {len(content.tools)}")
    if content.messages is None:
        return content.text or ""
    [*others, last] = content.messages
    if others or content.system or last["role"] != "user":
        raise InputError("messages: expected one message of the user, since Whisper has no conversations, got others")
    parts = last["content"] if isinstance(last["content"], list) else [{"type": "text", "text": last["content"]}]
    return "\n".join(part["text"] for part in parts if part["type"] == "text")


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A Whisper from `path`, in `dtype` on `device`."""
    check_whole("a Whisper")
    processor = transformers.AutoProcessor.from_pretrained(path)
    model = open_model(transformers.WhisperForConditionalGeneration, path, dtype, device, "sdpa")
    config, tokenizer, generation = model.config, processor.tokenizer, model.generation_config
    tokens = Tokens(tokenizer, generation)
    decoder = model.model.decoder
    text = by_pages(decoder, NAME, _decoders)
    towers = WhisperTowers(model, processor, tokens)
    data = FamilyData(
        name=config.model_type,
        model=str(path),
        spec=towers.spec(),
        turns=_turns(),
        blocks={"audio": ("", "")},
        start_ids=[],
        stop_ids=frozenset([config.eos_token_id]),
        classes={"audio": "F"},
        per_second=0.0,
        axes=1,
        max_positions=config.max_target_positions,
        vocabulary=config.vocab_size,
        transcription=_wording(tokens),
        crossing=True,
        one_shot=True,
        first_barred=tuple(generation.begin_suppress_tokens or ()),
    )
    family = Family(data, tokenizer)
    return Loaded(family, towers, decoder, model.proj_out, text, drawn=_drawn(generation, config.vocab_size, device))


def _decoders(config: Any) -> Any:
    """The configuration of the decoder: what has one name for both sides is the encoder's."""
    own = copy.deepcopy(config)
    own.encoder_layers, own.encoder_attention_heads = config.decoder_layers, config.decoder_attention_heads
    own.max_position_embeddings = config.max_target_positions
    return own


def _turns() -> Turns:
    """Nothing stands around words and sounds."""
    names = ("user_start", "user_end", "assistant_start", "assistant_end")
    kinds = (EDGE, TEXT, "audio")
    between = {(first, last): "" for first in kinds for last in kinds}
    return Turns(dict.fromkeys(names, ""), ("", ""), "", False, between, True, False, False)


def _wording(tokens: Tokens) -> Transcription:
    return Transcription(
        "transcribe",
        languages=tokens.names or {"en": "english"},
        in_language="transcribe {language}" if tokens.names else "transcribe",
        hint="{prompt}",
        translate="translate" if "translate" in tokens.tasks else "",
    )


def _drawn(generation: Any, vocabulary: int, device: torch.device) -> LogitRule:
    """Without the tokens that its generation configuration suppresses."""
    if not generation.suppress_tokens:
        return LogitRule()
    shut = torch.zeros(vocabulary, dtype=torch.bool, device=device)
    shut[list(generation.suppress_tokens)] = True
    return LogitRule(shut=shut)
