"""Words to token ids. What users write stays words: a control token that stands in it is spelled out like any other
text, and only a template's own text has control tokens.

What comes in: a tokenizer of `transformers`, and texts. What goes out: ids. It knows no templates and no streams.

Words are *covered* before they meet a template or a processor: each control token in them is replaced by digits between
two marks that nobody can guess. What renders, strips, counts or expands the text then sees none of it. The tokenizer at
the end gets the words as they were, and the control tokens that were not covered under names which no words have.
"""

from __future__ import annotations

import copy
import json
import re
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import tokenizers

from ...errors import InputError

_OPEN, _CLOSE = "\ue000", "\ue001"


def control_tokens(tokenizer: Any, template: Any) -> tuple[str, ...]:
    """The added tokens of a tokenizer that are no words: special ones, and those that its chat template writes or that
    its processor calls by a name, such as `image_token`. `template` is the processor, or the tokenizer itself."""
    named = {value for name, value in vars(template).items() if name.endswith("_token") and isinstance(value, str)}
    source = getattr(template, "chat_template", None) or getattr(tokenizer, "chat_template", None) or ""
    written = source if isinstance(source, str) else "".join(source.values())
    return tuple(
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in named or token.content in written) and not token.content.isspace()
    )


class Unspelled(Exception):
    """A long text has no ids yet: they are to be found beside the scheduler, which goes on with other streams."""

    def __init__(self, text: str, behind: bool) -> None:
        super().__init__(f"{len(text)} characters")
        self.text = text
        self.behind = behind


class Spelling:
    """How one tokenizer spells. `control` are the tokens that are no words."""

    def __init__(self, tokenizer: Any, control: Iterable[str]) -> None:
        self.tokenizer = tokenizer
        self._control = sorted(filter(None, control), key=len, reverse=True)  # the longest that fits is found first
        special = [token for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = frozenset(token.content for token in special)
        self._mark = next((token.content for token in special if not (token.rstrip or token.single_word)), "")
        secret = str(secrets.randbits(80))
        self._begin = _OPEN + secret
        self._covered = re.compile(f"{self._begin}([0-9]*){_CLOSE}")
        self._finder = tokenizers.Tokenizer(tokenizers.models.WordLevel({"": 0}, unk_token=""))  # all else is number 0
        self._finder.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in self._control])
        self._names = {token: f"control{secret}n{place:06d}" for place, token in enumerate(self._control)}
        self._heads = {token[:size] for token in self._control for size in range(1, len(token))}
        self._tails = {token[-size:] for token in self._control for size in range(1, len(token))}
        self._renamed = self._rename()

    def cover(self, words: str) -> str:
        """Words without control tokens: these are covered, and so is what would be one together with the text before or
        after the words."""
        text = self._with(words, self._cover)
        longest = min(len(text), len(self._control[0]) - 1) if self._control else 0
        end = next((size for size in range(longest, 0, -1) if text[-size:] in self._heads), 0)
        if end:
            text = text[:-end] + self._cover(text[-end:])
        start = next((size for size in range(longest, 0, -1) if text[:size] in self._tails), 0)
        return self._cover(text[:start]) + text[start:] if start else text

    def cover_all(self, value: Any, reply: bool = False) -> Any:
        """The same for every text in messages. In those of the assistant only special tokens are covered: with others,
        such as `<think>`, a template tells the parts of a reply."""
        if isinstance(value, str):
            return self._cover_reply(value) if reply else self.cover(value)
        if isinstance(value, dict):
            reply = reply or value.get("role") == "assistant"
            names = {name for name in ("role", "type") if str(value.get(name)).isidentifier()}
            return {name: one if name in names else self.cover_all(one, reply) for name, one in value.items()}
        return [self.cover_all(one, reply) for one in value] if isinstance(value, list | tuple) else value

    def is_control(self, token: str) -> bool:
        """Whether this token is none that words have."""
        return token in self._control

    def is_covered(self, text: str) -> bool:
        """Whether something in a text is covered."""
        return self._begin in text

    def ids(self, text: str, behind: bool = False) -> list[int]:
        """The ids of a text in which words may be covered. `behind`: it stands behind something that is no text. Some
        tokenizers set a space before the first word of all, and it is not that."""
        if not text:
            return []
        mark = self._mark if behind else ""
        ids = self(mark + text, add_special_tokens=False)["input_ids"]
        if not mark:
            return ids
        place = ids.index(self.tokenizer.convert_tokens_to_ids(mark))
        return ids[place + 1 :]

    def __call__(self, text: Any, *arguments: Any, **options: Any) -> Any:
        """What the tokenizer's own call gives for a text, or for several, in which words may be covered."""
        texts = text if isinstance(text, list) else [text]
        if not any(map(self.is_covered, texts)):
            return self.tokenizer(text, *arguments, **options)
        if self._renamed is None:
            raise InputError("words: expected none of the model's control tokens, which its tokenizer cannot spell out")
        named = [self._as_renamed(one) for one in texts]
        return self._renamed(named if isinstance(text, list) else named[0], *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        """In all else it is the tokenizer, for a processor that has it in its place."""
        if name == "tokenizer" or name.startswith("__"):  # a copy that is still being made has none
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def _cover(self, text: str) -> str:
        digits = "".join(f"{byte:03d}" for byte in text.encode())
        return f"{self._begin}{digits}{_CLOSE}"

    def _cover_reply(self, words: str) -> str:
        return self._with(words, lambda token: self._cover(token) if token in self._special else token)

    def _with(self, text: str, change: Callable[[str], str]) -> str:
        """A text with its control tokens changed; they are found as a tokenizer finds them, in one pass over it."""
        if not any(token in text for token in self._control):
            return text
        found = self._finder.encode(text, add_special_tokens=False)
        pieces, at = [], 0
        for id, (start, stop) in zip(found.ids, found.offsets, strict=True):
            if id:
                pieces += [text[at:start], change(text[start:stop])]
                at = stop
        return "".join([*pieces, text[at:]])

    def _as_renamed(self, text: str) -> str:
        pieces = self._covered.split(text)  # text, digits, text, digits, ..., text
        pieces[::2] = [self._with(piece, self._names.__getitem__) for piece in pieces[::2]]
        pieces[1::2] = [
            bytes(int(digits[at : at + 3]) for at in range(0, len(digits), 3)).decode() for digits in pieces[1::2]
        ]
        return "".join(pieces)

    def _rename(self) -> Any:
        """The same tokenizer, but that its control tokens have names which no words have; None where it has no such
        form."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, tokenizers.Tokenizer):
            return None
        made = json.loads(backend.to_str())
        model, name = made["model"], self._names
        for token in made["added_tokens"]:
            token["content"] = name.get(token["content"], token["content"])
        if isinstance(model["vocab"], dict):
            model["vocab"] = {name.get(piece, piece): id for piece, id in model["vocab"].items()}
        else:
            model["vocab"] = [[name.get(piece, piece), score] for piece, score in model["vocab"]]
        if model.get("unk_token"):
            model["unk_token"] = name.get(model["unk_token"], model["unk_token"])
        other = tokenizers.Tokenizer.from_str(json.dumps(made))
        if any(other.token_to_id(name[token]) != backend.token_to_id(token) for token in self._control):
            return None
        renamed = copy.copy(self.tokenizer)
        renamed._tokenizer = other
        return renamed


_KEPT_AS = "_penstock_spelling"


def spelling_of(tokenizer: Any, template: Any = None) -> Spelling:
    """The one `Spelling` of a tokenizer, made at the first call and kept on it. `template`: its processor, where it has
    one."""
    known = vars(tokenizer).get(_KEPT_AS)
    if known is None or known.tokenizer is not tokenizer:  # a copy of a tokenizer has the spelling of the other one
        known = Spelling(tokenizer, control_tokens(tokenizer, template or tokenizer))
        setattr(tokenizer, _KEPT_AS, known)
    return known
