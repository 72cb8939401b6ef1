"""The inputs of one stream that have not acted yet, in the order in which they act."""

from __future__ import annotations

import itertools
from collections import deque

import msgspec

from ...streams.event import Error
from ..command import Input, MediaEnd, MediaInput, PromptInput, Question, TextInput
from ..span import Prompt, Span
from .rules import Life, What, after

# Texts and questions of one stream that may wait for their turn, and their characters.
MOST_WORDS, MOST_CHARACTERS = 1024, 1 << 20


class Waiting(msgspec.Struct, eq=False):
    """An accepted input until it has acted.

    Its spans come first (for words: what they flush); `done`: no further ones will come. `prompt`: what a `PromptInput`
    waits for. `life` follows the table in rules.py. `failed`: what went wrong with it. `laid`: something of it went in.
    """

    input: Input
    done: bool
    spans: deque[Span] = msgspec.field(default_factory=deque)
    prompt: Prompt | None = None
    life: Life = Life.QUEUED
    failed: Error | None = None
    laid: bool = False

    @property
    def seq(self) -> int:
        return self.input.seq

    @property
    def asks(self) -> bool:
        """A reply to it begins."""
        return isinstance(self.input, Question | PromptInput)

    @property
    def words(self) -> str | None:
        """The words of a text or a question; None for what has none."""
        return self.input.text if isinstance(self.input, TextInput | Question) else None

    def happens(self, what: What) -> None:
        """Its life goes on."""
        self.life = after(self.life, what).life

    def copy(self) -> Waiting:
        return msgspec.structs.replace(self, spans=deque(self.spans))


class Losses(msgspec.Struct):
    """What came of the media since the last question: the first thing that went wrong, and whether anything went in."""

    first: Error | None = None
    came: bool = False

    def note(self, input: Waiting) -> None:
        """All media of an input has gone in or failed. What fails of a question's own media refuses that question."""
        self.came |= input.laid
        if not isinstance(input.input, Question) and not input.laid and self.first is None:
            self.first = input.failed

    @property
    def all(self) -> Error | None:
        """Why all of it came to nothing; None where something went in."""
        return None if self.came else self.first


def too_many(inputs: deque[Waiting], text: str) -> bool:
    """Whether these words may not wait with those that do. One text of any length may, where none waits."""
    words = [len(other.words) for other in inputs if other.words is not None]
    return len(words) >= MOST_WORDS or sum(words) + len(text) > max(MOST_CHARACTERS, len(text))


def hurry(inputs: deque[Waiting], seq: int) -> None:
    """Let question `seq` act before media that is still being decoded or encoded. Words before it stay there, and so do
    earlier questions with their media."""
    input = next((input for input in inputs if input.seq == seq), None)
    if input is None:
        return
    if not input.done:  # what it flushes comes after it
        inputs.insert(inputs.index(input) + 1, Waiting(MediaInput(seq), done=False))
        input.done = True
    late: list[Waiting] = []
    for other in itertools.takewhile(lambda other: other is not input, inputs):
        match other.input:
            case Question() | PromptInput():
                late.clear()  # that one is answered first, and may wait for its own media
            case TextInput() if not other.done:  # what it flushes comes after the question
                late.append(Waiting(MediaInput(other.seq), done=False))
                other.done = True
            case MediaInput() if not other.done:
                late.append(other)
            case MediaEnd() if late:
                late.append(other)
    for other in late:
        if other in inputs:
            inputs.remove(other)
    place = inputs.index(input) + 1
    for other in reversed(late):
        inputs.insert(place, other)
