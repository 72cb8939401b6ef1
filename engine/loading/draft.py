"""The draft model of an engine: a second checkpoint that has the same words.

In: the first model, the configuration, and what loads a checkpoint. Out: the first model with its draft; or ModelError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ...errors import ModelError
from ..config import EngineConfig
from ..family import Loaded

# `EngineConfig.speculative` without a model.
NGRAM = "ngram"


def with_draft(loaded: Loaded, config: EngineConfig, load: Callable[[str, EngineConfig], Loaded]) -> Loaded:
    """The model with its draft model, where `speculative` names one: `load` gives it, on the same device and in the
    same type of number. ModelError where that cannot be loaded or has other words, and for layers that keep states."""
    if config.speculative_tokens < 1:
        raise ModelError(f"speculative_tokens: expected at least 1, got {config.speculative_tokens}")
    if config.speculative is not None:
        _check_states(loaded)
    if config.speculative in (None, NGRAM):
        return loaded
    place = {"device": str(loaded.device), "dtype": str(loaded.dtype).removeprefix("torch.")}
    plain = msgspec.structs.replace(config, **place, speculative=None, chat_template=None, encoder=None)
    try:
        draft = load(config.speculative, plain)
    except ModelError as error:
        raise ModelError(f"speculative: expected {NGRAM} or a model that can be served: {error}") from error
    _check_states(draft)
    _check_words(loaded, draft)
    return loaded._replace(draft=draft)


def _check_states(loaded: Loaded) -> None:
    data = loaded.family.data
    if data.stateful:
        raise ModelError(
            f"speculative: expected layers of attention alone, got {data.name}, whose layers keep a state of all rows: "
            f"no wrong guess can be taken out of it"
        )
    if data.crossing:
        raise ModelError(f"speculative: expected a model that reads words, got {data.name}, which reads media across")


def _check_words(loaded: Loaded, draft: Loaded) -> None:
    """An id means the same in both, as far as both tokenizers have it; what was added to one may be missing there."""
    ours, theirs = (_words(one.family.tokenizer) for one in (loaded, draft))
    shared = min(_own(one.family.tokenizer) for one in (loaded, draft))
    for id in range(shared):
        if ours.get(id) != theirs.get(id):
            raise ModelError(
                f"speculative: expected a model with the words of {loaded.family.data.model}, got "
                f"{draft.family.data.model}: token {id} is {ours.get(id)!r} here and {theirs.get(id)!r} there"
            )


def _words(tokenizer: Any) -> dict[int, str]:
    return {id: word for word, id in tokenizer.get_vocab().items()}


def _own(tokenizer: Any) -> int:
    """How many words it has without those that were added."""
    return int(tokenizer.vocab_size)
