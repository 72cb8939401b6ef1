"""Open a checkpoint: find it, choose a device and a type of number, load it through its family.

In: a folder, an id on the Hub, or nothing. Out: `Loaded`, or ModelError in one line that says why not.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from ...errors import ModelError
from ..config import EngineConfig
from ..family import Loaded
from ..runner.beside import has_layer_words
from ..runner.library import transformers
from ..runner.out_of_memory import is_out_of_memory
from ..runner.takeover import take_over
from ..runner.turning import with_turning
from ..words.template import chosen_template
from .checkpoint import Checkpoint, find
from .draft import with_draft
from .fingerprint import fingerprint
from .int8 import quantize
from .placement import check_room, place
from .quantised import stays_quantised
from .weights import read

BROOK = Path(__file__).parents[1] / "brook"

_Made = TypeVar("_Made")


def load(
    path: str | Path | None, config: EngineConfig, revision: str | None = None, stop: threading.Event | None = None
) -> Loaded:
    """The checkpoint at `path`: a folder, or an id on the Hub; None: Brook, which comes with Penstock. With its draft
    model, where `speculative` names one.

    revision: a branch, tag or commit of an id. Where `stop` is set by another thread, a download ends at its next
    piece. Raises ModelError that says why not.
    """
    if path is None and not (BROOK / "model.safetensors").is_file():
        raise ModelError(f"{BROOK}: expected the weights of Brook, which come with Penstock, got an incomplete copy")
    loaded = opened(path, config, _load, revision, stop)
    return with_draft(loaded, config, lambda name, like: load(name, like, stop=stop))


def opened(
    path: str | Path | None,
    config: EngineConfig,
    work: Callable[[Checkpoint, EngineConfig], _Made],
    revision: str | None = None,
    stop: threading.Event | None = None,
) -> _Made:
    """What `work` makes of a checkpoint, named as `load` has it. Whatever it raises becomes a ModelError, in one line
    that names the checkpoint."""
    if config.quantize not in (None, "int8"):
        raise ModelError(f"quantize: expected int8 or nothing, got {config.quantize!r}")
    checkpoint = find(BROOK if path is None else path, revision, stop or threading.Event())
    try:
        return work(checkpoint, config)
    except ModelError as error:
        told = str(error).startswith(checkpoint.name)
        raise error if told else ModelError(f"{checkpoint.name}: {error}") from error
    except ImportError as error:
        raise ModelError(f"{checkpoint.name}: {_missing(' '.join(str(error).split()))}") from error
    except Exception as error:  # whatever the library raises over files that it does not expect
        raise ModelError(f"{checkpoint.name}: {_refusal(error)}") from error


def _load(checkpoint: Checkpoint, config: EngineConfig) -> Loaded:
    from ..families import is_tried, rehearse

    named, load_family = known(checkpoint)
    if is_tried(named.model_type):
        rehearse(named.model_type, checkpoint.folder)
    alone = config.language_only or config.encoder is not None
    files = checkpoint.fetch_weights()
    placement = place(config, read(files))
    check_room(read(files, "language" if alone else None), placement)
    with chosen_template(config.chat_template):
        where = checkpoint.folder, getattr(torch, placement.dtype), torch.device(placement.device)
        loaded = language_alone(load_family, *where) if alone else load_family(*where)
    if config.encoder is not None:
        loaded = _expecting(loaded, checkpoint, files, named)
    loaded.family.data = msgspec.structs.replace(loaded.family.data, model=checkpoint.name)
    make_small(loaded, config)
    _take_rows(loaded)
    own = fingerprint(loaded.text, loaded.head, loaded.config)
    return with_turning(take_over(loaded._replace(why=placement.why, fingerprint=own)))


def language_alone(load_family: Callable[..., Loaded], *where: Any) -> Loaded:
    """What the family makes of a checkpoint, without the weights of its towers."""
    from ..families.absent import AbsentTowers
    from ..families.parts import only

    with only("language"):
        loaded = load_family(*where)
    if not loaded.family.modalities:
        return loaded
    return loaded._replace(towers=AbsentTowers(loaded.towers, loaded.device))


def _expecting(loaded: Loaded, checkpoint: Checkpoint, files: list[Path], named: Any) -> Loaded:
    """With the name of the towers that this checkpoint has, which are elsewhere. ModelError where it has none."""
    from ..families.absent import AbsentTowers
    from .towers import tower_fingerprint

    if not isinstance(loaded.towers, AbsentTowers):
        name = loaded.family.data.name
        raise ModelError(f"encoder: expected a model that takes media, got {name}, which takes text only")
    loaded.towers.fingerprint = tower_fingerprint(files, named, checkpoint.folder)
    return loaded


def _take_rows(loaded: Loaded) -> None:
    """Say what rows that were made elsewhere have to be like. Those that stand for words have the end's id; there are
    none where the layers have embeddings of the words, too, or where words read media across."""
    family, width = loaded.family, loaded.text.get_input_embeddings().weight.shape[1]
    taken = loaded.towers.taken()
    none = has_layer_words(loaded.text, loaded.config) or family.data.crossing
    words = {} if none else {"text": min(family.stop_ids, default=0)}
    ids = taken.ids | words
    spec = msgspec.structs.replace(family.spec, rows=msgspec.structs.replace(taken, width=width, ids=ids))
    family.data = msgspec.structs.replace(family.data, spec=spec)
    family.spec = spec


def known(checkpoint: Checkpoint, here: bool = True) -> tuple[Any, Callable[..., Loaded]]:
    """The configuration of a checkpoint that may be served, on this machine or elsewhere, and the `load` of its family.
    Raises ModelError.

    A family of another package is imported first: it may bring the configuration's class.
    """
    from ..families import check_config, loader
    from ..families.outside import check_brought, outside, registered

    said = transformers.PreTrainedConfig.get_config_dict(checkpoint.folder)[0].get("model_type")
    if isinstance(said, str) and registered(said):
        outside(said)
        check_brought(said)
    config = transformers.AutoConfig.from_pretrained(checkpoint.folder)
    load_family = loader(config.model_type)
    check_config(config)
    stays_quantised(config, here)  # or the reason why it cannot be loaded
    return config, load_family


def make_small(loaded: Loaded, config: EngineConfig) -> None:
    """Exchange the decoder's linear layers where `quantize` asks for it."""
    if config.quantize is not None and quantize(loaded.text) == 0:
        raise ModelError("quantize: expected linear layers of float weights in the decoder, got none")


def _missing(why: str) -> str:
    """What the library says where it lacks a package, as one line that names it."""
    package = re.search(r"pip install (?:-U |--upgrade )?[\"']?([\w.-]+(?:[<>=!~]=?[\w.,<>=!~]+)?)", why)
    package = package or re.search(r"No module named '([\w-]+)", why)
    if package is None:
        return f"expected the packages that it needs, got: {why}"
    return f"expected the package {package[1]}, which this checkpoint needs, got none: pip install '{package[1]}'"


def _refusal(error: Exception) -> str:
    from ..families import served

    why = " ".join(str(error).split())
    if is_out_of_memory(error):
        return f"expected room for its weights, got none ({why}); try a smaller model"
    if "trust_remote_code" in why:
        return (
            f"expected a checkpoint whose classes are all in transformers {transformers.__version__}, got one with "
            f"code of its own: code that comes with a checkpoint is never run; {served()}"
        )
    if "does not recognize this architecture" in why:
        named = re.search(r"model type `?([^`\s]+)`?", why)
        return (
            f"model type {named[1] if named else 'unknown'!r}: expected one that transformers "
            f"{transformers.__version__} has, got none; {served()}"
        )
    if not isinstance(error, OSError | ValueError | RuntimeError):  # some say no more than a name
        why = f"{type(error).__name__}: {why}"
    return f"expected a checkpoint that transformers can load, got: {why}"
