"""Where rows that were made elsewhere stand in a whole prompt. A token that no processor expands stands there while the
tokenizer and the processor have it: the end's. In: a prompt's text or ids. Out: the same with such marks, and which
of the end tokens are marks; then, of the ids that came out, at which places they stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import InputError
from ...streams.requests.prompt import MADE_ELSEWHERE, Content


class ReadyMarks:
    """The marks of one prompt. `own`: what the model's processor sets around the rows of a kind, not the template."""

    def __init__(self, content: Content, tokenizer: Any, own: Mapping[str, tuple[str, str]]) -> None:
        self._ready, self._own = content.ready, own
        self._numbers = {(one.kind, one.at): number for number, one in enumerate(content.ready)}
        self.token, self.id = str(tokenizer.eos_token), tokenizer.eos_token_id
        self._marks: dict[int, int] = {}  # which of the end tokens is the mark of which rows
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
            number = count(kind)
            if number is None:
                return found[0]
            before, after = self._own.get(kind or "", ("", ""))
            return hidden(before) + self._mark(number) + hidden(after)

        def hidden(own: str) -> str:
            return expanded.sub(lambda found: self._mark(found[0]), own)

        return pattern.sub(put, text)

    def in_ids(self, ids: Sequence[int], placed: Mapping[int, str]) -> list[int]:
        """The ids with marks; `placed`: the kind of each placeholder's id."""
        if not self._ready:
            return list(ids)
        kinds, count = {**placed, MADE_ELSEWHERE: "text"}, self._counter()
        made = []
        for id in ids:
            number = count(kinds.get(id)) if id in (*kinds, self.id) else None
            made.append(id if number is None else self.id)
            if number is not None:
                self._check_bare(kinds[id])
                self._mark(number)
        return made

    def _check_bare(self, kind: str) -> None:
        """InputError where the processor sets words around such a medium: among ids nothing sets them."""
        if any(self._own.get(kind, ())):
            raise InputError(
                f"prompt_ids: expected messages or text for an embedding of kind {kind}, around which this model's "
                f"processor sets words, got ids"
            )

    def found(self, ids: Sequence[int]) -> tuple[list[int], dict[int, str]]:
        """At which of the ids that the tokenizer or the processor gave the mark of each of the rows stands, and which
        tokens stand where their own mark is. InputError where these have set or taken end tokens."""
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
        return [ends[self._marks[number]] for number in range(len(self._ready))], own

    def _mark(self, what: int | str) -> str:
        """One more mark, for rows of this number or for a token of their kind's own."""
        if isinstance(what, int):
            self._marks[what] = self._ends
        else:
            self._own_marks[self._ends] = what
        self._ends += 1
        return self.token

    def _counter(self) -> Callable[[str | None], int | None]:
        """Told the kind of each placeholder in turn, None for an end token; says of which rows a mark is to stand
        there."""
        seen: dict[str, int] = {}

        def count(kind: str | None) -> int | None:
            if kind is None:
                self._ends += 1
                return None
            place = seen[kind] = seen.get(kind, -1) + 1
            return self._numbers.get((kind, place))

        return count
