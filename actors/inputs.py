"""What a client may hand in, looked at where it enters. In: items and parameters. Out: the same, or InputError."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec
import numpy as np

from ..engine.command import Back
from ..errors import ContextOverflowError, InputError
from ..streams.format import BY_NAME, choose
from ..streams.item import MEDIA, AudioBytes, AudioChunk, Buffer, Embedding, Image, Item, Text, VideoBytes, VideoFrame
from ..streams.listening.detectors import check_installed
from ..streams.requests.options import sizes_pieces
from ..streams.requests.request import Request, SamplingParams
from ..streams.requests.turns import TurnDetection
from ..streams.segment import MediaSpec

if TYPE_CHECKING:
    from .info import EngineInfo
    from .ports import Facts

_MODALITY = {
    Image: "image",
    VideoFrame: "video",
    VideoBytes: "video",
    AudioChunk: "audio",
    AudioBytes: "audio",
}
# Words of a row are shorter than this, on the average.
_MOST_CHARACTERS = 16
_FILES = (VideoBytes, AudioBytes)
_DATA: dict[type, dict[str, Any]] = {
    kind: {"data": Buffer if kind in _FILES else Buffer | np.ndarray} for kind in MEDIA
}
_DATA[Embedding]["grid"] = tuple | None  # its numbers are looked at with the rows
_FIELDS = {kind: get_type_hints(kind) | _DATA.get(kind, {}) for kind in (Text, *MEDIA)}


def check_item(item: Item, info: Facts, turns: TurnDetection | None = None) -> None:
    """Raise InputError where `item` is not one, holds a field of a wrong type, or is media that the model does not
    take in a stream, with the reason. A stream may hear sound that it does not keep, as `turns` says.
    """
    if type(item) not in _FIELDS:
        raise InputError(f"expected an item (Text, Image, VideoFrame, ...), got {type(item).__name__}")
    made = isinstance(item, Embedding)
    kind = item.kind if made else _MODALITY.get(type(item), "text")
    heard = kind == "audio" and turns is not None and not turns.keeps
    if not heard:
        check_goes_on(info)
    if info.classes.get(kind) == "F" and not heard:
        raise InputError(
            f"{kind}: expected it in the request's own prompt (messages, or prompt with media), since in a stream it "
            f"would not be what it is there in this model (class F), got {type(item).__name__} in a stream"
        )
    takes = info.embeddings if made else info.modalities
    if kind not in ("text", *takes):
        kinds = [name for name in takes if name not in ("unit", "text")]
        taken = f", {', '.join(kinds)}" if kinds else " only"
        why = f": {info.left_out[kind]}" if kind in info.left_out else ""
        raise InputError(f"this model takes text{taken}, got {type(item).__name__}{why}")
    for name, expected in _FIELDS[type(item)].items():
        value = getattr(item, name)
        if not isinstance(value, expected):
            kind = getattr(expected, "__name__", str(expected))
            raise InputError(f"{type(item).__name__}.{name}: expected {kind}, got {type(value).__name__}")


def check_goes_on(info: Facts) -> None:
    """Raise InputError where nothing may follow a request's own prompt."""
    if info.one_shot:
        raise InputError("expected nothing behind the prompt, since this model has no conversations, got an input")


def check_text(name: str, text: str, rows: int) -> None:
    """ContextOverflowError for a text that a cache of `rows` rows cannot hold, before it is cut into tokens; InputError
    for one that is no Unicode text, which no tokenizer takes."""
    most = rows * _MOST_CHARACTERS
    if len(text) > most:
        raise ContextOverflowError(
            f"{name}: the cache holds {rows} rows: expected at most {most} characters, got {len(text)}"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"half a character ({text[error.start]!a}) at {error.start}"
        raise InputError(f"{name}: expected Unicode text, got {half}") from None


def check_question(question: str, params: SamplingParams, info: Facts) -> None:
    """Raise what `check_params` and `check_text` do, and InputError where the question is no text or may not be."""
    check_goes_on(info)
    check_params(params, info.vocabulary)
    if not isinstance(question, str):
        raise InputError(f"question: expected str, got {type(question).__name__}")
    check_text("question", question, info.kv_tokens)


def check_prompt(request: Request, rows: int) -> None:
    """Raise ContextOverflowError where the words or ids of a prompt cannot fit a cache of `rows` rows, InputError where
    they are no Unicode text. It looks at lengths alone: neither template nor tokenizer begin on what is refused."""
    check_text("system", request.system or "", rows)
    if request.prompt is not None:
        check_text("prompt", request.prompt, rows)
    if request.prompt_ids is not None and len(request.prompt_ids) > rows:
        got = len(request.prompt_ids)
        raise ContextOverflowError(f"prompt_ids: the cache holds {rows} rows: expected at most {rows} ids, got {got}")
    if request.messages is not None:
        pieces = 0
        for message in request.messages:
            content = message["content"]
            pieces += 1 if isinstance(content, str) else max(1, len(content))
        if pieces > rows:
            raise ContextOverflowError(
                f"messages: the cache holds {rows} rows: expected at most {rows} messages and parts, got {pieces}"
            )
        check_text("messages", "".join(_said(request.messages)), rows)
        check_text("tools", "".join(_strings(request.tools)), rows)


def _said(messages: list[Any]) -> Iterator[str]:
    """All words of a conversation that a template may write: not the media, which are no words."""
    for message in messages:
        for name, value in message.items():
            if name == "content" and not isinstance(value, str):
                yield from (part["text"] for part in value if part.get("type") == "text")
            else:
                yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    """The texts in a JSON value, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _strings(name)
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)


def check_params(params: SamplingParams, vocabulary: int) -> None:
    """Raise InputError where a value is out of range; token ids have to be those of a model of this vocabulary."""
    params.check()
    for name, ids in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        for id in ids:
            if not 0 <= id < vocabulary:
                raise InputError(f"{name}: expected token ids below {vocabulary}, got {id}")


def own_copy(item: Item) -> Item:
    """The item, which the caller can no longer change."""
    if isinstance(item, Text) or isinstance(item.data, bytes):
        return item
    if isinstance(item.data, memoryview):
        return item if item.data.readonly else msgspec.structs.replace(item, data=bytes(item.data))
    return msgspec.structs.replace(item, data=item.data.copy())


def item_bytes(item: Item) -> int:
    """Bytes of media in an item."""
    if isinstance(item, Text):
        return 0
    return len(item.data) if isinstance(item.data, bytes | bytearray) else item.data.nbytes


def check_turns(turns: TurnDetection | None, info: Facts, format: str) -> None:
    """Raise InputError where a stream of this format cannot listen for speech in this way, or not on this machine."""
    if turns is None:
        return
    turns.check()
    if "audio" not in info.modalities:
        taken = ", ".join(("text", *info.modalities))
        raise InputError(f"turn_detection: expected a model that hears, got one that takes {taken}")
    check_installed(turns, info.turn_model)
    if turns.acts and BY_NAME[format].holds:
        raise InputError(
            f"turn_detection: in the format {format!r} the model decides when it speaks: expected respond=False and "
            f"interrupt=False, or the format 'turns' or 'interrupt', got respond={turns.respond} and "
            f"interrupt={turns.interrupt}"
        )


def check_fits(request: Request, info: EngineInfo, spec: MediaSpec) -> None:
    """Raise InputError or ContextOverflowError for a request that this model and its cache cannot serve."""
    if request.audio_in_video and "unit" not in info.modalities:
        raise InputError(f"audio_in_video: {info.family} does not take sound inside video")
    if request.audio_in_video and request.video_fps is not None and request.video_fps < 1:
        raise InputError(f"audio_in_video: expected at least 1 frame a second, got {request.video_fps}")
    check_turns(request.turn_detection, info, choose(request.format, info.live_trained)[0].name)
    listens = request.turn_detection is not None and not request.turn_detection.keeps
    if info.one_shot and not (request.starts or listens):
        raise InputError(
            f"request: expected messages, prompt or prompt_ids, since {info.family} answers one prompt and has no "
            f"conversations, got a stream without"
        )
    check_prompt(request, info.kv_tokens)
    least, rule = request.processor.get("min_pixels", 0), spec.image or spec.video
    if rule is not None and sizes_pieces(spec) and least // rule.factor**2 > info.kv_tokens:
        raise InputError(
            f"processor option 'min_pixels': expected at most {info.kv_tokens * rule.factor**2}, which are the cache's "
            f"{info.kv_tokens} rows, got {least}"
        )


def place_of(again: SamplingParams | None, back_to: int | None, back_to_us: int | None) -> Back | None:
    """The place to which a fork is to go back, None where it goes to none. Raises InputError for several."""
    if sum(way is not None for way in (again, back_to, back_to_us)) > 1:
        raise InputError("fork: expected one of again, back_to and back_to_us, got several")
    return None if back_to is back_to_us is None else Back(back_to, back_to_us)
