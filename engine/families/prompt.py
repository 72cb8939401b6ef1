"""A whole prompt through the model's own processor. In: `Content`, decoded, and a processor of `transformers`. Out:
what that processor gives, ready for the model. It knows no family: families say which placeholders and options they
have.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from typing import Any, Protocol

import torch

from ...errors import InputError
from ...streams.requests.prompt import MADE_ELSEWHERE, Content
from ..words.spelling import Spelling, spelling_of
from ..words.template import begins
from .ready_rows import ReadyMarks

_NAMES = {"image": ("image", "images"), "video": ("video", "videos"), "audio": ("audio", "audios")}


class ProcessorFacts(Protocol):
    """What a family says of its processor.

    `kinds`: of the parts that a message may have. `nested`: the kinds that it takes as a list for each prompt.
    `unwritten`: those that it sets before the text by itself.
    """

    processor: Any
    kinds: tuple[str, ...]
    nested: tuple[str, ...]
    unwritten: frozenset[str]

    def placeholders(self) -> dict[str, str]:
        """What stands in a text for one piece of media, by kind."""
        ...

    def own_blocks(self) -> dict[str, tuple[str, str]]:
        """What the processor, not the template, sets around media."""
        ...

    def values(self, content: Content) -> dict[str, list[Any]]:
        """The media by kind as the processor takes them."""
        ...

    def media_options(self, media: dict[str, list[Any]], content: Content) -> dict[str, Any]:
        """Options of the processor's call."""
        ...


def process(source: ProcessorFacts, content: Content) -> Any:
    """The processor's output for a prompt, tensors with a batch of one.

    Raises InputError for media that the model does not take, and where placeholders and media do not match.
    """
    return process_marked(source, content)[0]


def process_marked(source: ProcessorFacts, content: Content) -> tuple[Any, list[int]]:
    """As `process`; and at which of its ids rows stand that were made elsewhere."""
    _check_kinds(source, content)
    media = source.values(content)
    for kind in source.unwritten:
        if len(media[kind]) > 1:
            raise InputError(
                f"{content.name}: expected one {kind}, which this model's processor sets before the text, got "
                f"{len(media[kind])}"
            )
    options = source.media_options(media, content)
    placed = {
        kind: token
        for kind, token in source.placeholders().items()
        if not (kind == "audio" and content.audio_in_video)  # it has no place of its own
    }

    spelling = spelling_of(source.processor.tokenizer, source.processor)

    def call(text: str, **more: Any) -> Any:
        given = {
            argument(source.processor, kind): [values] if kind in source.nested else values
            for kind, values in media.items()
            if values
        }
        processor = source.processor
        if spelling.is_covered(text):
            processor = copy.copy(processor)
            processor.tokenizer = spelling
        try:
            return processor(text=[text], **given, return_tensors="pt", **options, **more)
        except ValueError:
            if given:
                raise
            return processor.tokenizer([text], return_tensors="pt", **more)  # it takes no words alone

    tokenizer = source.processor.tokenizer
    marks = ReadyMarks(content, tokenizer, source.own_blocks())
    if content.ids is not None:
        made = _from_ids(source.processor, content, placed, media, marks, call)
        return made, marks.found(made["input_ids"][0].tolist())[0]
    text = content.text if content.messages is None else _rendered(source, content, spelling)
    assert text is not None
    _check_counts(content, {kind: text.count(token) for kind, token in placed.items()}, placed, media)
    text = marks.in_text(text, placed)
    made = call(text, **({"add_special_tokens": False} if begins(tokenizer, text) else {}))
    ready, own = marks.found(made["input_ids"][0].tolist())
    for place, mark in own.items():
        made["input_ids"][0, place] = tokenizer.convert_tokens_to_ids(mark)
    return made, ready


def argument(processor: Any, kind: str) -> str:
    """What a processor calls media of a kind; some that see frames alone call these pictures."""
    takes = inspect.signature(processor.__call__).parameters
    names = {"image": "images", "video": "videos" if "videos" in takes else "images", "audio": "audio"}
    return names[kind]


def conversation(content: Content, spelling: Spelling, parts: bool = True) -> list[dict[str, Any]]:
    """The messages after the system prompt, if there is one, as a chat template gets them: control tokens in their
    words are covered, unless the request trusts them. `parts`: the system prompt is a list of parts."""
    messages = content.messages or []
    if content.system is not None:
        system = [{"type": "text", "text": content.system}] if parts else content.system
        messages = [{"role": "system", "content": system}, *messages]
    return messages if content.control_tokens else spelling.cover_all(messages)


def _rendered(source: ProcessorFacts, content: Content, spelling: Spelling) -> str:
    """The chat template's text; sound inside video has no part of its own there, nor has what nothing stands for."""
    messages = conversation(content, spelling)
    without = source.unwritten | ({"audio"} if content.audio_in_video else set())
    if without:
        messages = [
            {**message, "content": [part for part in message["content"] if part["type"] not in without]}
            if isinstance(message["content"], list)
            else message
            for message in messages
        ]
    return rendered(source.processor, messages, content, spelling)


def rendered(template: Any, messages: list[dict[str, Any]], content: Content, spelling: Spelling) -> str:
    """The text of a processor's or tokenizer's chat template, ready for a reply. InputError where the content has tools
    and the template does not write them."""
    if not content.tools:
        return template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if "tools" not in str(template.chat_template):
        raise InputError("tools: expected a model whose chat template writes them, got one that leaves them out")
    tools = content.tools if content.control_tokens else spelling.cover_all(content.tools)
    return template.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)


def _check_kinds(source: ProcessorFacts, content: Content) -> None:
    for kind, pieces in content.by_kind().items():
        if pieces and kind not in source.kinds:
            *others, last = source.kinds
            raise InputError(f"content part: expected {', '.join(others)} or {last}, got {kind!r}")


def _check_counts(content: Content, found: dict[str, int], placed: dict[str, str], media: dict[str, list[Any]]) -> None:
    for kind, token in placed.items():
        count = len(media.get(kind, ())) + sum(one.kind == kind for one in content.ready)
        if found[kind] != count:
            raise InputError(
                f"{content.name}: expected {found[kind]} of {_told(token)}, got {count} {_NAMES[kind][count != 1]}"
            )


def _told(token: str) -> str:
    """A placeholder in words; where it is one token many times, that once."""
    again = re.fullmatch(r"(.+?)\1+", token)
    return f"{again[1]} {len(token) // len(again[1])} times" if again else token


def _from_ids(
    processor: Any,
    content: Content,
    placed: dict[str, str],
    media: dict[str, list[Any]],
    marks: ReadyMarks,
    call: Callable[..., Any],
) -> Any:
    """The placeholders among `ids` become what the processor makes of each in a text that has nothing else.

    In that text an end token stands between them, which no tokenizer joins with its neighbours.
    """
    tokenizer = processor.tokenizer
    kinds = {_one_id(tokenizer, token): kind for kind, token in placed.items()}
    given = check_ids(content, len(tokenizer))
    found = [kinds[id] for id in given if id in kinds]
    _check_counts(content, {kind: found.count(kind) for kind in placed}, placed, media)
    ids = marks.in_ids(given, kinds)
    found = [kinds[id] for id in ids if id in kinds]
    mark, mark_id = tokenizer.eos_token, tokenizer.eos_token_id
    made = call(mark + "".join(placed[kind] + mark for kind in found), add_special_tokens=False)
    row = made["input_ids"][0].tolist()
    ends = [place for place, id in enumerate(row) if id == mark_id]
    if len(ends) != len(found) + 1:
        raise InputError(f"prompt_ids: expected {len(found)} pieces of media in the processor's text, got others")
    pieces = iter(zip(ends, ends[1:], strict=False))
    order: list[tuple[int, int] | int] = [next(pieces) if id in kinds else id for id in ids]
    shape = made["input_ids"].shape
    for name, tensor in list(made.items()):
        if isinstance(tensor, torch.Tensor) and tensor.shape == shape:
            made[name] = _joined(tensor[0], order, name)[None]
    return made


def _one_id(tokenizer: Any, token: str) -> int:
    """What stands for a piece of media among ids: the id of its placeholder, or of each of those that it is made of."""
    ids = tokenizer(token, add_special_tokens=False)["input_ids"]
    return ids[0] if len({*ids}) == 1 else tokenizer.convert_tokens_to_ids(token)


def check_ids(content: Content, vocabulary: int) -> list[int]:
    """The token ids of a prompt. InputError for one that is none, and where those that stand for rows made elsewhere in
    place of words do not match these."""
    assert content.ids is not None
    for id in content.ids:
        if not 0 <= id < vocabulary and id != MADE_ELSEWHERE:
            raise InputError(f"prompt_ids: expected token ids below {vocabulary}, got {id}")
    places, rows = content.ids.count(MADE_ELSEWHERE), sum(one.kind == "text" for one in content.ready)
    if places != rows:
        raise InputError(
            f"prompt_ids: expected an embedding of kind text for each {MADE_ELSEWHERE}, of which are {places}, "
            f"got {rows}"
        )
    return content.ids


def _joined(tensor: torch.Tensor, order: list[tuple[int, int] | int], name: str) -> torch.Tensor:
    """One field of all rows: a text row's own id, 1 in a mask, else 0; the rows of a piece as they were made."""
    parts = []
    for entry in order:
        if isinstance(entry, tuple):
            parts.append(tensor[entry[0] + 1 : entry[1]])
        else:
            parts.append(tensor.new_tensor([entry if name == "input_ids" else int(name == "attention_mask")]))
    return torch.cat(parts)
