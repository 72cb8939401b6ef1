"""The kinds of media that a model of `transformers` takes: what stands for each in a text, and what encodes it. In: a
model and its processor. Out: `Sense` by kind, or why there is none.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jinja2
import torch

from ..runner.beside import has_layer_words

# What `mm_token_type_ids` of the library's processors calls each kind.
KINDS = {"image": 1, "video": 2, "audio": 3}
# What processors call their part for each.
PARTS = {
    "image": ("image_processor",),
    "video": ("video_processor",),
    "audio": ("feature_extractor", "audio_processor"),
}
# What a tower takes first, by kind, under the names that processors give it.
_MAIN = {
    "image": ("pixel_values", "pixel_values_images", "image_pixel_values"),
    "video": ("pixel_values_videos",),
    "audio": ("input_features", "input_values", "audio_input_features"),
}


class Sense(NamedTuple):
    """One kind of media. `token` stands for a piece of it in a text, and `id` for each of its rows. `encode` is the
    model's own method, `takes` what it takes, by name; None: only the whole model does it."""

    kind: str
    token: str
    id: int
    encode: Callable[..., Any] | None
    takes: frozenset[str]

    def given(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What of a processor's output the method takes; nothing where no medium of this kind is there."""
        given = {name: value for name, value in inputs.items() if name in self.takes and value is not None}
        return given if any(name in given for name in _MAIN[self.kind]) else {}


def find_senses(model: Any, processor: Any) -> tuple[dict[str, Sense], dict[str, str]]:
    """The kinds that this model takes by its classes, and for each other kind what is missing."""
    senses, missing = {}, {}
    for kind in KINDS:
        found = _find(kind, model, processor)
        if isinstance(found, str):
            missing[kind] = found
        else:
            senses[kind] = found
    return senses, missing


def _find(kind: str, model: Any, processor: Any) -> Sense | str:
    # In some templates a word stands for a piece of media that no row of it has.
    token = getattr(processor, f"{kind}_placeholder_token", None) or getattr(processor, f"{kind}_token", None)
    token = getattr(token, "content", token)  # some keep how the tokenizer treats it, too
    names = [f"{kind}_token_id", f"{kind}_token_index"]
    # Some lay frames as so many pictures.
    names += ["image_token_id", "image_token_index"] if kind == "video" else []
    inner = getattr(model.config, "audio_config" if kind == "audio" else "vision_config", None)
    said = [getattr(config, name, None) for config in (model.config, inner) for name in names]
    id = next((value for value in said if isinstance(value, int)), None)
    taken = inspect.signature(model.forward).parameters.keys()
    if id is None and (mask := next((name for name in taken if name.startswith(kind) and "mask" in name), None)):
        return f"its rows of {kind} stand where the processor's {mask} says, and not its ids"
    if not isinstance(token, str):
        able = any(hasattr(processor, part) for part in PARTS[kind])
        token = _written(kind, id, processor) if able and id is not None else None
    if token is None:
        return f"expected {kind}_token on its {type(processor).__name__}, got none"
    if id is None:
        return f"expected {kind}_token_id on its {type(model.config).__name__}, got none"
    for part in (getattr(model, "model", model), model):
        encode = getattr(part, f"get_{kind}_features", None)
        takes = frozenset(inspect.signature(encode).parameters) if encode is not None else frozenset()
        if takes.intersection(_MAIN[kind]):
            return Sense(kind, token, id, encode, takes)
    kinds = ("image", "video") if kind == "video" else (kind,)
    if any(name in taken for one in kinds for name in _MAIN[one]):
        return Sense(kind, token, id, None, frozenset())
    return f"expected get_{kind}_features on its {type(getattr(model, 'model', model)).__name__}, got none"


def _written(kind: str, id: int, processor: Any) -> str | None:
    """The placeholders of all rows of a piece of media, where the chat template writes these by itself and the
    processor none; None where it writes none."""
    token = processor.tokenizer.convert_ids_to_tokens(id)
    message = {"role": "user", "content": [{"type": kind, kind: "x"}]}
    try:
        text = processor.apply_chat_template([message], tokenize=False)
    except (ValueError, jinja2.TemplateError):
        return None
    runs = re.findall(f"(?:{re.escape(token)})+", text) if isinstance(token, str) else []
    return max(runs, key=len, default=None)


def placeholder_ids(config: Any) -> frozenset[int]:
    """The ids that stand for rows of media of any kind, served or not."""
    named = [getattr(config, f"{kind}_token_id", None) for kind in KINDS]
    return frozenset(id for id in named if isinstance(id, int))


def marks_of(model: Any, decoder: Any) -> frozenset[int]:
    """The placeholders whose rows have what padding has, where each layer embeds the words for itself; none where they
    are words like others there."""
    marks = placeholder_ids(model.config)
    if not has_layer_words(decoder, decoder.config) or not marks or model.device.type == "meta":
        return marks
    ids = torch.tensor([sorted(marks)], device=model.device)
    with torch.inference_mode():
        given = _given(model, decoder, {"input_ids": ids})["per_layer_inputs"]
        return frozenset() if torch.equal(given, decoder.get_per_layer_inputs(ids)) else marks


class _Caught(Exception):
    """What the decoder was given."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given


def embeddings_of(model: Any, decoder: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """What the library's model gives its decoder for a processor's output, `(n, hidden)`: words and media. Where that
    is ids, it is what the decoder gives its first layer. No layer runs."""
    return _given(model, decoder, inputs)["inputs_embeds"][0]


def _given(model: Any, decoder: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    def catch(_: Any, args: Any, given: dict[str, Any]) -> None:
        if given.get("inputs_embeds") is not None:
            raise _Caught(given)

    def catch_rows(_: Any, args: Any, given: dict[str, Any]) -> None:
        raise _Caught({"inputs_embeds": args[0] if args else given["hidden_states"]})

    pairs = [(decoder, catch), *((layer, catch_rows) for layer in getattr(decoder, "layers", [])[:1])]
    hooks = [module.register_forward_pre_hook(catches, with_kwargs=True) for module, catches in pairs]
    try:
        model(**inputs, use_cache=False)
    except _Caught as caught:
        return caught.given
    finally:
        for hook in hooks:
            hook.remove()
    raise AssertionError("the model has not called its decoder")
