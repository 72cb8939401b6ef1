"""Learns what a chat template wraps around turns and media, by rendering it around marker words. No model, no tensors.

What comes in: a tokenizer or processor of `transformers`. What goes out: ids. Markers are plain words, so that
whatever stands between two of them is the template's own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..codecs.errors import ModelError

_SYSTEM, _USER, _ASSISTANT, _AGAIN = "SYSTEMMARK", "USERMARK", "ASSISTANTMARK", "AGAINMARK"


class Turns(msgspec.Struct, frozen=True):
    """The template's own text: around turns, around a system prompt, and what it begins with when none is given."""

    wrappers: dict[str, str]
    system: tuple[str, str]
    default_system: str


def _between(text: str, first: str | None, last: str | None) -> str:
    start = 0 if first is None else text.index(first) + len(first)
    return text[start : len(text) if last is None else text.index(last, start)]


def _without(text: str, prefix: str = "", suffix: str = "") -> str:
    if not (text.startswith(prefix) and text.endswith(suffix)):
        raise ModelError(f"chat template: expected {prefix!r} ... {suffix!r} around a turn, got {text!r}")
    return text[len(prefix) : len(text) - len(suffix)]


def learn_turns(render: Any, parts: bool) -> Turns:
    """`render(messages, add_generation_prompt)` gives the template's text; `parts`: content is a list of parts."""

    def message(role: str, word: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": word}] if parts else word}

    system, user = message("system", _SYSTEM), message("user", _USER)
    assistant, again = message("assistant", _ASSISTANT), message("user", _AGAIN)
    try:
        full = render([system, user, assistant, again], True)
        user_end = _between(render([system, user], False), _USER, None)
        assistant_end = _between(render([system, user, assistant], False), _ASSISTANT, None)
        assistant_start = _without(render([system, user], True), prefix=render([system, user], False))
        user_start = _without(_between(full, _ASSISTANT, _AGAIN), prefix=assistant_end)
        system_text = (_between(full, None, _SYSTEM), _without(_between(full, _SYSTEM, _USER), suffix=user_start))
        default = _without(_between(render([user], True), None, _USER), suffix=user_start)
    except ValueError as error:
        raise ModelError(f"chat template: expected it to show every turn's words, got {error}") from error
    wrappers = {
        "user_start": user_start,
        "user_end": user_end,
        "assistant_start": assistant_start,
        "assistant_end": assistant_end,
    }
    return Turns(wrappers, system_text, default)


def stop_ids(generation: Any, tokenizer: Any, assistant_end: list[int]) -> frozenset[int]:
    """The ids that end a reply: the checkpoint's generation configuration, else the tokenizer's end and the turn's."""
    ends = generation.eos_token_id
    if ends is None:
        return frozenset({tokenizer.eos_token_id, assistant_end[0]} - {None})
    return frozenset(ends if isinstance(ends, list) else [ends])


def learn_block(render: Any, modality: str, placeholder: str, user_start: str) -> tuple[str, str]:
    """What stands before and after the placeholder of one piece of media in a user turn."""
    content = [{"type": modality, modality: "x"}, {"type": "text", "text": _USER}]
    text = render([{"role": "user", "content": content}], True)
    block = text[: text.index(_USER)]
    block = block[block.rindex(user_start) + len(user_start) :]
    before, found, after = block.partition(placeholder)
    if not found:
        raise ModelError(f"chat template: expected {placeholder!r} for {modality}, got {block!r}")
    return before, after
