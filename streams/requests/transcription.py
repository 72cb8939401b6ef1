"""How a checkpoint is asked for the words of a sound, and how its answer is read. Plain data; it knows no model."""

from __future__ import annotations

import re

import msgspec

from ...errors import InputError


class Transcription(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The wording of one checkpoint: `transcription` in its config.json, or that of its family.

    question: what stands behind the sound. system: the system message.
    languages: those that the speech may be said to be in: the name of each by its code, such as {"en": "English"}.
    in_language: the question where a client says which language it is; `{language}` in it stands for the name.
    hint: a sentence before the question, where a client gives words that belong to the sound: `{prompt}`.
    translate, translate_system: question and system message that ask for the words in English.
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
    word: str = ""

    def check(self) -> None:
        """Raise InputError for a wording that asks for nothing, or a pattern that is none."""
        if not self.question:
            raise InputError("transcription.question: expected words, got none")
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
