"""How a checkpoint is asked for the words of a sound, and how its answer is read. Plain data; it knows no model."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from ...errors import InputError
from ..item import Item


class Transcription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wording of one checkpoint: `transcription` in its config.json, or that of its family.

    question: what stands behind the sound. system: the system message.
    languages: those that the speech may be said to be in: the name of each by its code, such as {"en": "English"}.
    in_language: the question where a client says which language it is; `{language}` in it stands for the name, `{code}`
        for the code.
    hint: a sentence before the question, where a client gives words that belong to the sound: `{prompt}`.
    translate, translate_system: question and system message that ask for the words in English.
    whole: the questions are whole prompts as text, in each of them the model's placeholder for the sound.
    word: a regular expression whose matches in the answer are the words; empty: the answer is the words.

    A question that is empty is one that the checkpoint is not asked.
    """

    question: str
    system: str = ""
    languages: dict[str, str] = {}
    in_language: str = ""
    hint: str = ""
    translate: str = ""
    translate_system: str = ""
    whole: bool = False
    word: str = ""

    def name(self, language: str) -> str:
        """The name of a language by its code; without a code that of the only one. Empty where there are several.
        InputError for one that the checkpoint is not told."""
        known = self.languages
        if not language:
            return next(iter(known.values())) if len(known) == 1 else ""
        code = language.lower()
        if code not in known or not self.in_language:
            may = ", ".join(known) if known and self.in_language else "none, since this model is not told it"
            raise InputError(f"language: expected {may}, got {language[:80]!a}")
        return known[code]

    def asking(self, sound: Item, language: str = "", prompt: str = "") -> dict[str, Any]:
        """The fields of a request that asks for the words of a sound, in the language of this code. `prompt`: words
        that belong to it. InputError where the checkpoint takes no such thing."""
        question = self.question
        if language:
            name = self.name(language)
            question = self.in_language.replace("{language}", name).replace("{code}", language.lower())
        return self._asked(sound, self.system, question, prompt)

    def translating(self, sound: Item, prompt: str = "") -> dict[str, Any]:
        """The fields of a request that asks for the words of a sound in English. InputError as `asking`."""
        if not self.translate:
            raise InputError("model: expected one that translates speech, got one that only writes it down")
        return self._asked(sound, self.translate_system, self.translate, prompt)

    def _asked(self, sound: Item, system: str, question: str, prompt: str) -> dict[str, Any]:
        if prompt and not self.hint:
            raise InputError("prompt: expected none, since this model takes no hints beside the sound, got one")
        if self.whole:
            return {"prompt": question, "media": [sound]}
        if prompt:
            question = self.hint.replace("{prompt}", prompt) + "\n" + question
        messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        content = [{"type": "audio", "audio": sound}, {"type": "text", "text": question}]
        return {"messages": [*messages, {"role": "user", "content": content}]}

    def check(self) -> None:
        """Raise InputError for a wording that asks for nothing, or a pattern that is none."""
        if not self.question:
            raise InputError("transcription.question: expected words, got none")
        if self.whole and (self.system or self.hint or self.translate_system):
            raise InputError("transcription.whole: expected no system and no hint beside whole prompts, got one")
        try:
            re.compile(self.word)
        except re.error as error:
            raise InputError(f"transcription.word: expected a regular expression, got {self.word!r}: {error}") from None


class WordReader:
    """Reads the words from an answer while it comes. What is given out never changes with what comes after it."""

    def __init__(self, word: str) -> None:
        """`word`: the pattern of `Transcription`."""
        self._word = re.compile(word) if word else None
        self._rest = ""  # of the answer, not read yet
        self._said = False  # some word has been given out

    def feed(self, text: str) -> str:
        """The next words, in front of each a space but for the first; a word that may still go on waits."""
        self._rest += text
        if self._word is None:
            return self._plain(self._rest.rstrip())
        words, read = [], 0
        for found in self._word.finditer(self._rest):
            if found.end() == len(self._rest):
                break
            words.append(found[0])
            read = found.end()
        return self._words(words, read)

    def end(self) -> str:
        """The words that are left: no more comes."""
        if self._word is None:
            return self._plain(self._rest.rstrip())
        return self._words([found[0] for found in self._word.finditer(self._rest)], len(self._rest))

    def _plain(self, text: str) -> str:
        """Text as it is, without the space around the whole."""
        self._rest = self._rest[len(text) :]
        text = text if self._said else text.lstrip()
        self._said |= bool(text)
        return text

    def _words(self, words: list[str], read: int) -> str:
        self._rest = self._rest[read:]
        text = "".join(f" {word}" for word in words if word)
        text = text if self._said else text[1:]
        self._said |= bool(text)
        return text
