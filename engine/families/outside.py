"""Families of models that come from other packages. In: a model type. Out: the `load` that a package has registered for
it under the entry point group `penstock.families`, which names the package wherever it is not what it should be.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from safetensors import SafetensorError

from ...errors import ModelError
from ..family import Family, Loaded
from ..runner.library import transformers
from ..runner.out_of_memory import is_out_of_memory

GROUP = "penstock.families"
_WANTED = "a function load(path, dtype, device) -> Loaded"
# What towers have to have (engine/family.py).
_METHODS = (
    *("rows", "knows", "takes", "encode", "timed", "taken", "prompt"),
    *("fork", "loudest", "heard", "forget"),
)


def registered(model_type: str) -> bool:
    """Whether a package has a family of this type."""
    return bool(entry_points(group=GROUP, name=model_type))


def outside(model_type: str) -> Callable[..., Loaded]:
    """The `load` of the package that has registered this type. ModelError where it is none, or several have."""
    found = {(_package(entry), entry.value): entry for entry in entry_points(group=GROUP, name=model_type)}
    if len(found) > 1:
        named = " and ".join(f"{package} ({value})" for package, value in sorted(found))
        raise ModelError(f"model type {model_type!r}: expected one package that registers it in {GROUP}, got {named}")
    [entry] = found.values()
    try:
        load = entry.load()
    except Exception as error:  # whatever the import of a package raises
        raise _refused(entry, f"expected {_WANTED}, got {_told(error)} when it was imported") from error
    if not callable(load):
        raise _refused(entry, f"expected {_WANTED}, got {type(load).__name__}")
    return partial(_loaded, entry, load)


def check_brought(model_type: str) -> None:
    """ModelError where `transformers` knows no configuration of a type that a package has registered."""
    if model_type in transformers.models.auto.configuration_auto.CONFIG_MAPPING:
        return
    [entry, *_] = entry_points(group=GROUP, name=model_type)
    wanted = f"AutoConfig.register({model_type!r}, ...) where it is imported, as transformers has no such type"
    raise _refused(entry, f"expected {wanted}, got none")


def _loaded(entry: EntryPoint, load: Callable[..., Any], *where: Any) -> Loaded:
    """What the package makes of a checkpoint, if it is what it should be."""
    try:
        loaded = load(*where)
    except (ModelError, OSError, SafetensorError):  # of a checkpoint
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise _refused(entry, f"expected {_WANTED}, got {_told(error)} when it was called") from error
    if not isinstance(loaded, Loaded):
        raise _refused(entry, f"expected Loaded from load, got {type(loaded).__name__}")
    if not isinstance(loaded.family, Family):
        raise _refused(entry, f"expected Loaded with a Family, got {type(loaded.family).__name__}")
    missing = [name for name in _METHODS if not callable(getattr(loaded.towers, name, None))]
    fields = {"blocks": list, "times_inside": bool}
    missing += [name for name, kind in fields.items() if not isinstance(getattr(loaded.towers, name, None), kind)]
    if missing:
        lacking = ", ".join(missing)
        raise _refused(entry, f"expected towers with {lacking}, got {type(loaded.towers).__name__} without")
    return loaded


def _refused(entry: EntryPoint, why: str) -> ModelError:
    return ModelError(f"the package {_package(entry)} registers {entry.value} in {GROUP} for {entry.name!r}: {why}")


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "of no known name"


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
