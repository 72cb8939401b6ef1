"""Learns what a chat template wraps around turns and media, by rendering it around marker words. No model, no tensors.

What comes in: a tokenizer or processor of `transformers`. What goes out: text. Markers are plain words, so that
whatever stands between two of them is the template's own.
"""

from __future__ import annotations

import contextlib
import itertools
import os.path
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from ...errors import InputError, ModelError
from ...streams.requests.request import Sampling, SamplingParams
from .spelling import spelling_of

_SYSTEM, _USER, _ASSISTANT, _AGAIN = "SystemMark", "UserMark", "AssistantMark", "AgainMark"
_SPACE = "\t \t"
TEXT, EDGE = "text", ""  # kinds of items in a user turn beside those of media; the edge is where it opens or closes


# The chat template of the checkpoint that is being loaded, where it is not the checkpoint's own.
_CHOSEN: ContextVar[str | None] = ContextVar("chat_template", default=None)


@contextlib.contextmanager
def chosen_template(file: str | None) -> Iterator[None]:
    """What is learnt inside is learnt from the template in this file, and prompts are written by it; None: from the
    checkpoint's own. ModelError where it cannot be read, or is no template."""
    chosen = None
    if file is not None:
        try:
            chosen = Path(file).read_text(encoding="utf-8")
            jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(chosen)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or error
            raise ModelError(f"chat_template: expected a file that can be read, got {file}: {why}") from None
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(f"chat_template: expected Jinja, got {file}, line {error.lineno}: {error}") from None
    token = _CHOSEN.set(chosen)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


class Turns(msgspec.Struct, frozen=True):
    """The template's own text, and what it does to words.

    wrappers: around turns, "user_start", "user_end", "assistant_start" and "assistant_end". system: before and after
    the words of a system prompt; default_system: what a conversation begins with that has none. `system_in_user`: the
    system prompt stands in the first user turn, as in Gemma's template.
    between: what stands between two items of a user turn, by their kinds, without what opens and closes media.
    parts: an item is a part of the content; else the texts of a turn are one. strips, system_strips: whether words
    lose the white space around them.
    """

    wrappers: dict[str, str]
    system: tuple[str, str]
    default_system: str
    system_in_user: bool
    between: dict[tuple[str, str], str]
    parts: bool
    strips: bool
    system_strips: bool


def _between(text: str, first: str | None, last: str | None) -> str:
    """ValueError where the template leaves one of the two out."""
    for word in (first, last):
        if word is not None and word not in text:
            raise ValueError("one that leaves some out")
    start = 0 if first is None else text.index(first) + len(first)
    return text[start : len(text) if last is None else text.index(last, start)]


def _without(text: str, prefix: str = "", suffix: str = "") -> str:
    if not (text.startswith(prefix) and text.endswith(suffix)):
        raise ModelError(f"chat template: expected {prefix!r} ... {suffix!r} around a turn, got {text!r}")
    return text[len(prefix) : len(text) - len(suffix)]


def learn(template: Any, tokenizer: Any, generation: Any, media: dict[str, str] | None = None) -> dict[str, Any]:
    """The fields of `FamilyData` that hold the template's text, and how replies are drawn.

    `template` is the processor, or the tokenizer of a text model; `generation` the model's generation configuration;
    `media` maps each modality to the placeholder that the template writes for it.
    """

    chosen = _CHOSEN.get()
    if chosen is not None:
        template.chat_template = tokenizer.chat_template = chosen

    def render(messages: list[dict[str, Any]], prompt: bool) -> str:
        try:
            text = template.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        except ValueError as error:
            if getattr(template, "chat_template", None) is not None:
                raise
            raise ModelError(
                "chat template: expected the checkpoint's or your own (chat_template), got none"
            ) from error
        if not isinstance(text, str):
            raise ModelError(f"chat template: expected text from its processor, got {type(text).__name__}")
        return text

    spelling = spelling_of(tokenizer, template)
    turns, blocks = learn_turns(render, media)
    return {
        "turns": turns,
        "blocks": blocks,
        "start_ids": [] if media is None or begins(tokenizer, turns.system[0]) else tokenizer("")["input_ids"],
        "stop_ids": _stop_ids(generation, tokenizer, spelling.ids(turns.wrappers["assistant_end"])),
        "sampling": _sampling(generation),
    }


def begins(tokenizer: Any, text: str) -> bool:
    """Whether a whole prompt brings the token that begins one, so that the tokenizer need not set it before."""
    return tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)


def learn_turns(render: Any, media: dict[str, str] | None) -> tuple[Turns, dict[str, tuple[str, str]]]:
    """`render(messages, add_generation_prompt)` gives the template's text; `media`: content is a list of parts, and the
    placeholder of each kind. Returns the turns, and what opens and closes each kind of media."""
    parts = media is not None

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
        spaced = render([message("system", _SPACE + _SYSTEM), message("user", _SPACE + _USER)], True)
    except ValueError as error:
        raise ModelError(f"chat template: expected it to show every turn's words, got {error}") from error
    wrappers = {
        "user_start": user_start,
        "user_end": user_end,
        "assistant_start": assistant_start,
        "assistant_end": assistant_end,
    }
    between, blocks = learn_items(render, media or {}, default, wrappers)
    strips = [_SPACE + word not in spaced for word in (_USER, _SYSTEM)]
    return Turns(wrappers, system_text, default, inside, between, parts, *strips), blocks


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


def learn_items(
    render: Any, media: dict[str, str], default: str, wrappers: dict[str, str]
) -> tuple[dict[tuple[str, str], str], dict[str, tuple[str, str]]]:
    """What stands between two items of a user turn, by their kinds, and around each kind of media.

    Where the template changes the order of two kinds, each has what stands around it anywhere else.
    """
    edges = (wrappers["user_start"], wrappers["user_end"])
    around = {kind: _gaps(render, media, default, wrappers, kind) or edges for kind in media}
    opens = {kind: os.path.commonprefix([edges[0], first]) for kind, (first, _) in around.items()}
    closes = {kind: _common_end(edges[1], last) for kind, (_, last) in around.items()}
    blocks = {
        kind: (first.removeprefix(opens[kind]), last.removesuffix(closes[kind]))
        for kind, (first, last) in around.items()
    }
    between = {(EDGE, TEXT): edges[0], (TEXT, EDGE): edges[1], (EDGE, EDGE): "".join(edges)}
    between |= {(EDGE, kind): opens[kind] for kind in media} | {(kind, EDGE): closes[kind] for kind in media}
    head = min((edges[0].removeprefix(text) for text in opens.values()), key=len, default="")
    tail = min((edges[1].removesuffix(text) for text in closes.values()), key=len, default="")
    after, before = {TEXT: ""} | {kind: block[1] for kind, block in blocks.items()}, {TEXT: ""}
    before |= {kind: block[0] for kind, block in blocks.items()}
    for first, second in itertools.product((*media, TEXT), repeat=2):
        gaps = _gaps(render, media, default, wrappers, first, second) if media else None
        gap = (gaps or ("", ""))[1]
        known = gaps is not None and len(gap) >= len(after[first]) + len(before[second])
        if known and gap.startswith(after[first]) and gap.endswith(before[second]):
            between[first, second] = gap[len(after[first]) : len(gap) - len(before[second])]
        else:
            between[first, second] = (tail if first == TEXT else "") + (head if second == TEXT else "")
    return between, blocks


def _gaps(
    render: Any, media: dict[str, str], default: str, wrappers: dict[str, str], *kinds: str
) -> tuple[str, ...] | None:
    """What a template writes before, between and after such items of a user turn; None where it changes their
    order, or leaves one out."""
    words = [media.get(kind, f"{_USER}{place}") for place, kind in enumerate(kinds)]
    content = [{"type": kind, kind: word if kind == TEXT else "x"} for kind, word in zip(kinds, words, strict=True)]
    try:
        rest = _without(render([{"role": "user", "content": content}], True), default, wrappers["assistant_start"])
    except ModelError:
        return None
    gaps = []
    for word in words:
        gap, found, rest = rest.partition(word)
        gaps.append(gap)
        if not found or any(other in gap for other in words):
            return None
    return None if any(word in rest for word in words) else (*gaps, rest)


def _common_end(first: str, second: str) -> str:
    return os.path.commonprefix([first[::-1], second[::-1]])[::-1]
