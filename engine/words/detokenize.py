"""From token ids to text while they come, never half a character, never a part of a stop string.

Knows a tokenizer only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

# A character that is still open decodes to this.
_OPEN = "\ufffd"
# A byte sequence that is still open after this many tokens is not going to become a character.
_MOST_OPEN_TOKENS = 8


class Decoder(Protocol):
    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str: ...


def decoder(tokenizer: Decoder) -> Callable[[list[int]], str]:
    """What gives the text of ids without special tokens: the tokenizer's `decode`, or, where this only hands them on to
    the compiled one, that one, which costs less."""
    known: Any = tokenizer
    kind: Any = type(tokenizer)
    names = [getattr(getattr(kind, name, None), "__qualname__", "") for name in ("decode", "_decode")]
    plain = names == ["PreTrainedTokenizerBase.decode", "TokenizersBackend._decode"]
    if plain and not getattr(tokenizer, "clean_up_tokenization_spaces", True):
        return partial(known.backend_tokenizer.decode, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True)


class Detokenizer:
    """The text of one reply.

    Text is decoded from a short tail of ids, so that a token costs the same however long the reply is. `ends[i]` is
    the length of the text that is complete after token i.
    """

    def __init__(self, tokenizer: Decoder, stop: tuple[str, ...]) -> None:
        self._text_of = decoder(tokenizer)
        self._stop = stop
        self._ids: list[int] = []
        self._start = 0  # first id of the tail that is decoded again
        self._done = 0  # first id whose text is not out yet
        self.text = ""
        self.sent = 0
        self.ends: list[int] = []
        self._inside: list[bool] = []  # whether token i ends inside a character
        self._shown: list[int] = []  # length of the text that was shown with the tokens up to i

    @property
    def open(self) -> bool:
        """A character has begun and is not complete."""
        return self._done < len(self._ids)

    def push(self, id: int) -> str:
        """Take one more id; return the text that may be shown now."""
        self._ids.append(id)
        before = self._decode(self._start, self._done)
        after = self._decode(self._start, len(self._ids))
        if not after.endswith(_OPEN) or len(self._ids) - self._done >= _MOST_OPEN_TOKENS:
            self.text += after[len(before) :]
            self._start, self._done = self._done, len(self._ids)
        self.ends.append(len(self.text))
        self._inside.append(self.open)
        if not self._stop:
            shown = self._show(len(self.text))
        else:
            shown = self._show(self._safe()) if self.stopped is None else ""
        self._shown.append(self.sent)
        return shown

    @property
    def stopped(self) -> int | None:
        """Where in `text` the first stop string begins; None where there is none."""
        if not self._stop:
            return None
        found = [place for word in self._stop if (place := self.text.find(word, self.sent)) >= 0]
        return min(found, default=None)

    def finish(self, tokens: int) -> str:
        """The text of a reply that keeps `tokens` tokens, up to a stop string, after what these have shown.

        A character that they leave open is given as the tokenizer's `decode` gives it: as U+FFFD.
        """
        shown, end = self._shown[tokens - 1] if tokens else 0, self.stopped
        if end is not None:
            return self.text[shown:end]
        return self.text[shown : self.ends[tokens - 1] if tokens else 0] + self._left_open(tokens)

    def _left_open(self, tokens: int) -> str:
        """What the first `tokens` tokens say after their last whole character."""
        if not tokens or not self._inside[tokens - 1]:
            return ""
        whole = [place + 1 for place, inside in enumerate(self._inside[:tokens]) if not inside]
        start, done = ([0, 0] + whole)[-2:]
        return self._decode(start, tokens)[len(self._decode(start, done)) :]

    def kept(self, end: int) -> int:
        """How many tokens lie wholly before character `end`; one that begins that character does not."""
        return sum(stop + inside <= end for stop, inside in zip(self.ends, self._inside, strict=True))

    def copy(self) -> Detokenizer:
        twin = object.__new__(Detokenizer)
        lists = {name: list(getattr(self, name)) for name in ("_ids", "ends", "_inside", "_shown")}
        twin.__dict__.update(self.__dict__, **lists)
        return twin

    def _decode(self, start: int, stop: int) -> str:
        return self._text_of(self._ids[start:stop])

    def _safe(self) -> int:
        """Up to where text may be shown: to its end, or, where that may be the beginning of a stop string, to the end
        of the last token that would be kept, so that the tokens which are kept have shown their own text only."""
        place = min(map(self._begins, self._stop), default=len(self.text))
        if place == len(self.text):
            return place
        for end, inside in zip(reversed(self.ends), reversed(self._inside), strict=True):
            if end + inside <= place:
                return end
        return 0

    def _begins(self, word: str) -> int:
        """Where in `text` the longest end of it begins that `word` may go on; its length where none does."""
        size = len(self.text)
        for length in range(min(len(word) - 1, size - self.sent), 0, -1):
            if self.text.endswith(word[:length]):
                return size - length
        return size

    def _show(self, end: int) -> str:
        shown = self.text[self.sent : max(self.sent, end)]
        self.sent = max(self.sent, end)
        return shown
