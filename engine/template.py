"""Learns what a chat template wraps around turns and media, by rendering it around marker words. No model, no tensors.

What comes in: a tokenizer or processor of `transformers`. What goes out: ids. Markers are plain words, so that
whatever stands between two of them is the template's own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..codecs.errors import InputError, ModelError
from ..streams.request import Sampling, SamplingParams

_SYSTEM, _USER, _ASSISTANT, _AGAIN = "SYSTEMMARK", "USERMARK", "ASSISTANTMARK", "AGAINMARK"


class Turns(msgspec.Struct, frozen=True):
    """The template's own text: around turns, around a system prompt, and what it begins with when none is given.

    `system_in_user`: the system prompt stands in the first user turn, as in Gemma's template.
    """

    wrappers: dict[str, str]
    system: tuple[str, str]
    default_system: str
    system_in_user: bool


def _between(text: str, first: str | None, last: str | None) -> str:
    start = 0 if first is None else text.index(first) + len(first)
    return text[start : len(text) if last is None else text.index(last, start)]


def _without(text: str, prefix: str = "", suffix: str = "") -> str:
    if not (text.startswith(prefix) and text.endswith(suffix)):
        raise ModelError(f"chat template: expected {prefix!r} ... {suffix!r} around a turn, got {text!r}")
    return text[len(prefix) : len(text) - len(suffix)]


def learn(template: Any, tokenizer: Any, generation: Any, media: dict[str, str] | None = None) -> dict[str, Any]:
    """The fields of `FamilyData` that hold ids, and how replies are drawn.

    `template` is the processor, or the tokenizer of a text model; `generation` the model's generation configuration;
    `media` maps each modality to the placeholder that the template writes for it.
    """

    def render(messages: list[dict[str, Any]], prompt: bool) -> str:
        return template.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    turns = learn_turns(render, parts=media is not None)
    blocks = {}
    for modality, placeholder in (media or {}).items():
        before, after = learn_block(render, modality, placeholder, turns.wrappers["user_start"])
        blocks[modality] = (ids(before), ids(after))
    turn_ids = {name: ids(text) for name, text in turns.wrappers.items()}
    start = [] if media is None or begins(tokenizer, turns.system[0]) else tokenizer("")["input_ids"]
    return {
        "turn_ids": turn_ids,
        "block_ids": blocks,
        "system_ids": ([*start, *ids(turns.system[0])], ids(turns.system[1])),
        "default_system_ids": [*start, *ids(turns.default_system)],
        "system_in_user": turns.system_in_user,
        "stop_ids": _stop_ids(generation, tokenizer, turn_ids["assistant_end"]),
        "sampling": _sampling(generation),
    }


def begins(tokenizer: Any, text: str) -> bool:
    """Whether a whole prompt brings the token that begins one, so that the tokenizer need not set it before."""
    return tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)


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
        before, behind = _between(full, None, _SYSTEM), _between(full, _SYSTEM, _USER)
        inside = before.endswith(user_start) and not behind.endswith(user_start)
        system_text = (before, behind if inside else _without(behind, suffix=user_start))
        default = _without(_between(render([user], True), None, _USER), suffix=user_start)
    except ValueError as error:
        raise ModelError(f"chat template: expected it to show every turn's words, got {error}") from error
    wrappers = {
        "user_start": user_start,
        "user_end": user_end,
        "assistant_start": assistant_start,
        "assistant_end": assistant_end,
    }
    return Turns(wrappers, system_text, default, inside)


def _stop_ids(generation: Any, tokenizer: Any, assistant_end: list[int]) -> frozenset[int]:
    """The ids that end a reply: the checkpoint's generation configuration, else the tokenizer's end and the turn's."""
    ends = generation.eos_token_id
    if ends is None:
        return frozenset({tokenizer.eos_token_id, assistant_end[0]} - {None})
    return frozenset(ends if isinstance(ends, list) else [ends])


def _sampling(generation: Any) -> Sampling:
    """How the checkpoint's generation configuration wants its replies drawn; without `do_sample` they are greedy."""
    names = Sampling.__struct_fields__ if generation.do_sample else ("repetition_penalty",)
    said = {name: getattr(generation, name, None) for name in names}
    known = {name: value for name, value in said.items() if value is not None}
    drawn = {"temperature": 1.0, "top_k": 50} if generation.do_sample else {}  # what the library takes for these
    try:
        SamplingParams(**known).check()
        return msgspec.convert(drawn | known, Sampling, strict=False)
    except (InputError, TypeError, msgspec.ValidationError) as error:
        raise ModelError(f"generation_config.json: {error}") from error


def learn_block(render: Any, modality: str, placeholder: str, user_start: str) -> tuple[str, str]:
    """What stands before and after the placeholder of one piece of media in a user turn."""
    content = [{"type": modality, modality: "x"}, {"type": "text", "text": _USER}]
    text = render([{"role": "user", "content": content}], True)
    block = text[: text.index(_USER)]
    if user_start in block:
        block = block[block.rindex(user_start) + len(user_start) :]
    else:  # some templates write other white space before media than before words
        start = user_start.rstrip()
        block = block[block.rindex(start) + len(start) :].lstrip()
    before, found, after = block.partition(placeholder)
    if not found:
        raise ModelError(f"chat template: expected {placeholder!r} for {modality}, got {block!r}")
    return before, after
