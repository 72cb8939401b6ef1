"""Where rows that were made elsewhere stand in a whole prompt. A token that no processor expands stands there while the
tokenizer and the processor have it: the end's. In: a prompt's text or ids. Out: the same with such marks, and which
of the end tokens are marks; then, of the ids that came out, at which places they stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import InputError
from ...streams.requests.prompt import Content

WORDS = -1  # what stands among token ids for rows that stand for words


class ReadyMarks:
    """The marks of one prompt. `own`: what the model's processor sets around the rows of a kind, not the template."""

    def __init__(self, content: Content, tokenizer: Any, own: Mapping[str, tuple[str, str]]) -> None:
        self._ready, self._own = content.ready, own
        self._places = {(one.kind, one.at) for one in content.ready}
        self.token, self.id = str(tokenizer.eos_token), tokenizer.eos_token_id
        self._marks: list[int] = []  # which of the end tokens are marks
        self._own_marks: dict[int, str] = {}  # which stand for tokens of `own` that the processor would expand
        self._ends = 0  # how many end tokens there are
        if content.ready and self.id is None:
            raise InputError("embedding: expected a model whose tokenizer has an end token, got one without")

    def in_text(self, text: str, placed: Mapping[str, str]) -> str:
        """The text with marks for these of its placeholders; `placed`: the placeholder of each kind."""
        if not self._ready:
            return text
        kinds = {token: kind for kind, token in placed.items()}
        kinds |= {one.sign: "text" for one in self._ready if one.kind == "text"}
        pattern = re.compile(
            "|".join(re.escape(token) for token in sorted({*kinds, self.token}, key=len, reverse=True))
        )
        expanded = re.compile("|".join(map(re.escape, placed.values())) or "(?!)")
        count = self._counter()

        def put(found: re.Match[str]) -> str:
            kind = kinds.get(found[0])
            if not count(kind):
                return found[0]
            before, after = self._own.get(kind or "", ("", ""))
            return hidden(before) + self._mark() + hidden(after)

        def hidden(own: str) -> str:
            return expanded.sub(lambda found: self._mark(found[0]), own)

        return pattern.sub(put, text)

    def in_ids(self, ids: Sequence[int], placed: Mapping[int, str]) -> list[int]:
        """The ids with marks; `placed`: the kind of each placeholder's id."""
        if not self._ready:
            return list(ids)
        kinds, count = {**placed, WORDS: "text"}, self._counter()
        made = []
        for id in ids:
            is_mark = id in (*kinds, self.id) and count(kinds.get(id))
            made.append(self.id if is_mark else id)
            if is_mark:
                self._mark()
        return made

    def found(self, ids: Sequence[int]) -> tuple[list[int], dict[int, str]]:
        """At which of the ids that the tokenizer or the processor gave the marks stand, and which tokens stand where
        their own mark is. InputError where these have set or taken end tokens."""
        if not self._ready:
            return [], {}
        ends = [place for place, id in enumerate(ids) if id == self.id]
        ends = ends[1:] if len(ends) == self._ends + 1 and ends[0] == 0 else ends  # it begins every text with one
        if len(ends) != self._ends or len(self._marks) != len(self._ready):
            raise InputError(
                f"embedding: expected {len(self._ready)} places among {self._ends} end tokens of the prompt, got "
                f"{len(self._marks)} among {len(ends)}"
            )
        own = {ends[place]: token for place, token in self._own_marks.items()}
        return [ends[place] for place in self._marks], own

    def _mark(self, token: str | None = None) -> str:
        """One more mark, for rows or for a token of their kind's own."""
        if token is None:
            self._marks.append(self._ends)
        else:
            self._own_marks[self._ends] = token
        self._ends += 1
        return self.token

    def _counter(self) -> Callable[[str | None], bool]:
        """Told the kind of each placeholder in turn, None for an end token; says whether a mark is to stand there."""
        seen: dict[str, int] = {}

        def count(kind: str | None) -> bool:
            if kind is None:
                self._ends += 1
                return False
            place = seen[kind] = seen.get(kind, -1) + 1
            return (kind, place) in self._places

        return count
