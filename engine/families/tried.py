"""Any model of `transformers` that takes pictures, video or sound through its `AutoProcessor`, tried at load: each kind
of media is served where one prompt with a piece of it gives over pages the logits that the library gives, and where
that piece alone, as a stream has it, is the same rows. A model of which no kind passes is refused.

Nothing in here is about one architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError
from ..family import Family, FamilyData, Loaded
from ..runner.attention import NAME
from ..runner.library import transformers
from ..runner.shapes import stateful
from ..words.template import learn
from .far_words import with_far_words
from .findings import TrialFindings, findings_of, rule_of, take_findings
from .opened import decoder_of, open_model
from .parts import check_here, let_go, only, other_side, wanted
from .senses import PARTS, Sense, find_senses, marks_of
from .tekken import processor_of
from .text import check_text
from .text import load as load_text
from .together import Together
from .transcription import transcription_of
from .trial import FamilyTrial
from .tried_towers import TriedTowers

# The library's classes for models that take media, by what it calls their kind.
_CLASSES = {
    "MULTIMODAL_LM": "AutoModelForMultimodalLM",
    "IMAGE_TEXT_TO_TEXT": "AutoModelForImageTextToText",
    "SEQ_TO_SEQ_CAUSAL_LM": "AutoModelForSeq2SeqLM",  # some that hear are only there, though they are one decoder
}
# What configurations have of models that hear while they speak: a row is a word and a moment of sound at once.
_BOTH = ("default_num_delay_tokens", "codebook_vocab_size")


def load(path: Path, dtype: torch.dtype, device: torch.device) -> Loaded:
    """A model that sees or hears, from `path`, in `dtype` on `device`. ModelError that says why it cannot be served.
    Where one side of it is wanted, the whole is opened and tried, and the other side let go of; unless there is
    somebody who tells what was found."""
    config = transformers.AutoConfig.from_pretrained(path)
    check_tried(config)
    processor = processor_of(path)
    if not hasattr(processor, "tokenizer"):  # a text model that the library lists here
        return load_text(path, dtype, device, class_of(config.model_type))
    if not any(hasattr(processor, part) for parts in PARTS.values() for part in parts):
        raise ModelError(f"it takes no pictures, video or sound: its {type(processor).__name__} has no part for them")
    if processor.chat_template is None:  # some leave it to their tokenizer
        processor.chat_template = processor.tokenizer.chat_template
    side, ask = wanted(), other_side()
    found: TrialFindings | None = None
    if ask is not None and device.type != "meta" and (found := ask()) is None:
        raise ModelError("expected an encoder of this model, which is tried, got one that has tried nothing")
    with only(None if found is None else side):
        model, attention = _opened(config, path, dtype, device)
    senses, missing = find_senses(model, processor)
    first = next((kind for kind in ("image", "audio", "video") if kind in senses), "image")
    if not senses:
        raise ModelError(missing[first])
    with_far_words(model, [sense.id for sense in senses.values()])
    decoder, head = _decoder(model)
    towers = _towers(model, decoder, processor, senses)
    if side is not None and not _beside(towers, decoder):
        raise ModelError("expected towers beside its decoder, of which one can be without the other, got them in it")
    towers.findings = found
    loaded = _loaded(path, model, towers, (decoder, head), missing)
    if found is not None:
        check_here(decoder, head)
        take_findings(towers, found)
        return _loaded(path, model, towers, (decoder, head), dict(found.missing))._replace(drawn=rule_of(found, device))
    trial = FamilyTrial(loaded, towers, model, attention)
    if device.type == "meta":
        trial.assume()
        return _loaded(path, model, towers, (decoder, head), missing)
    missing |= trial.run()
    if not towers.senses:
        raise ModelError(missing[first])
    loaded = _loaded(path, model, towers, (decoder, head), missing)._replace(drawn=trial.drawn)
    towers.findings = findings_of(towers, loaded)
    if side is not None:
        let_go(model, side, decoder, head)
    return loaded


def _towers(model: Any, decoder: Any, processor: Any, senses: dict[str, Sense]) -> TriedTowers:
    """The towers by their classes alone."""
    inner = getattr(model, "model", model)
    rope = next((part.get_rope_index for part in (inner, model) if hasattr(part, "get_rope_index")), None)
    return TriedTowers(model, processor, _blocks(model, decoder), senses, rope)


def _beside(towers: TriedTowers, decoder: Any) -> bool:
    """Whether no layer of the towers is a part of the decoder."""
    return not set(decoder.modules()).intersection(towers.blocks)


def check_tried(config: Any) -> None:
    """Raise ModelError where a configuration alone says that a model cannot be served."""
    text = config.get_text_config()
    crossed = getattr(text, "is_decoder", False) and getattr(text, "encoder_hidden_size", None)
    if getattr(config, "is_encoder_decoder", False) or crossed:
        raise ModelError("its decoder reads the states of an encoder, which are no rows of a cache")
    make = getattr(transformers, _listed(config.model_type) or "", None)
    if make is not None and not make.can_generate():
        raise ModelError(f"expected a model that says words, got {make.__name__}, which generates none")
    if canvas := getattr(config, "canvas_length", None):
        raise ModelError(
            f"expected a reply that is drawn token by token, got {canvas} tokens that become words together"
        )
    if both := next((name for name in _BOTH if getattr(config, name, None)), None):
        got = f"words each said beside a moment of sound ({both} {getattr(config, both)})"
        raise ModelError(f"expected rows that are a word or a piece of media, got {got}")
    check_text(text)


def _decoder(model: Any) -> tuple[Any, Any]:
    """The decoder and its output layer. Some models hold a whole language model, with the output layer in it."""
    head = model.get_output_embeddings()
    return decoder_of(model), model.get_decoder().get_output_embeddings() if head is None else head


def _loaded(path: Path, model: Any, towers: TriedTowers, parts: tuple[Any, Any], missing: dict[str, str]) -> Loaded:
    processor, text = towers.processor, model.config.get_text_config()
    learnt = learn(processor, processor.tokenizer, model.generation_config, towers.placeholders())
    towers.around = learnt["blocks"]
    mutual = [kind for kind, ahead in towers.ways.items() if ahead.way is Together.PIECE]
    data = FamilyData(
        name=model.config.model_type,
        model=str(path),
        spec=towers.spec(),
        **learnt,
        classes=dict(towers.streamed),
        per_second=0.0,
        axes=1 if towers.rope is None else 3,
        max_positions=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        clock="patches" if towers.rope is not None else "seconds",
        left_out=dict(missing),
        together=frozenset(mutual),
        most_together=towers.most_together,
        stateful=stateful(text),
        exclusive={kind: towers.senses[kind].id for kind in sorted(towers.exclusive)},
        transcription=transcription_of(model.config, model.config.model_type) if "audio" in towers.senses else None,
    )
    loaded = Loaded(Family(data, processor.tokenizer), towers, *parts, text, types=towers.types.tables)
    found, in_windows = towers.findings, towers.ahead_in_windows
    marks = marks_of(model, parts[0]) if found is None else frozenset(found.word_marks)
    together = frozenset(towers.senses[kind].id for kind in mutual)
    return loaded._replace(marks=marks, ahead_in_windows=in_windows, together=together)


def _opened(config: Any, path: Path, dtype: torch.dtype, device: torch.device) -> tuple[Any, dict[str, str]]:
    """The model, and what attends in its parts. Some towers have the library's plainest way only."""
    make = class_of(config.model_type)
    for way in ("sdpa", "eager"):
        attention = _attention(config, way)
        try:
            model = open_model(make, path, dtype, device, attention)
            if way == "sdpa" and _is_causal(model):
                attention = _attention(config, "eager")
                model.set_attn_implementation(attention)
            return model, attention
        except KeyError as error:
            if error.args != (NAME,):
                raise
            raise ModelError("its attention cannot be replaced: its layers know the library's own alone") from error
        except ValueError as error:
            if "Unrecognized configuration class" in str(error):
                raise ModelError(f"expected a type that {make.__name__} opens, got another") from error
            if way == "eager" or "attention implementation" not in str(error):
                raise
    raise AssertionError("both ways have ended")


def _is_causal(model: Any) -> bool:
    """Whether something in the towers says that it looks back only: the library's fast way believes that where there is
    no mask, its plain one does not."""
    return any(getattr(part, "is_causal", False) is True for part in _outside(model, model.get_decoder()))


def _outside(model: Any, decoder: Any) -> list[Any]:
    """The modules that are none of the decoder's layers: some decoders hold the towers too."""
    inside = set(getattr(decoder, "layers", decoder).modules())
    return [part for part in model.modules() if part not in inside]


def _listed(model_type: str) -> str | None:
    """The library's own class for models of this type."""
    auto = transformers.models.auto.modeling_auto
    lists = (getattr(auto, f"MODEL_FOR_{kind}_MAPPING_NAMES", {}) for kind in _CLASSES)
    return next((names[model_type] for names in lists if model_type in names), None)


def class_of(model_type: str) -> Any:
    """The library's class for models of this type that take media and say text; None where it has none."""
    auto = transformers.models.auto.modeling_auto
    for kind, name in _CLASSES.items():
        if model_type in getattr(auto, f"MODEL_FOR_{kind}_MAPPING_NAMES", {}):
            return getattr(transformers, name)
    return None


def _attention(config: Any, towers: str) -> dict[str, str]:
    """Ours in the decoder, one of the library's in the towers. The decoder may have the configuration of the whole."""
    text = config.get_text_config()
    own = [name for name in config.sub_configs if getattr(config, name, None) is text]
    whole = NAME if text is config else towers
    return {"": whole} | {name: NAME if name in own else towers for name in config.sub_configs}


def _blocks(model: Any, decoder: Any) -> Any:
    """The layers of the towers: of those outside the decoder's the longest list."""
    lists = [part for part in _outside(model, decoder) if isinstance(part, torch.nn.ModuleList)]
    return max(lists, key=len, default=())
