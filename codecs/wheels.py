"""Mends torchaudio and torchvision wheels whose compiled part cannot load beside the installed torch.

The wheels on PyPI are linked against CUDA. Beside a CPU build of torch, `import torchaudio` fails on a missing library
and `import torchvision` on a missing operator, and with them every processor of transformers that finds the package
installed. Penstock needs only their Python parts, so it declares what the compiled part would have declared. Comes in:
nothing; goes out: the names of the packages that were mended. Knows nothing of media. Call `mend_wheels()` before
`transformers` is imported.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import importlib.util
import logging
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

_LOG = logging.getLogger("penstock.codecs")
_LOCK = threading.Lock()
_DECLARED: list[object] = []
_MENDED: list[str] = []
_CHECKED = False


def mend_wheels() -> list[str]:
    """Make `import torchaudio` and `import torchvision` work; give the names of those that needed it, sorted.

    Acts at most once in a process, and only on a package that is installed, not imported yet, and whose compiled part
    does not load. Says once in the log what it did. Loads torch if one of the two packages is installed.
    """
    global _CHECKED
    with _LOCK:
        if not _CHECKED:
            for name, mend in (("torchaudio", _mend_torchaudio), ("torchvision", _mend_torchvision)):
                if name in sys.modules or importlib.util.find_spec(name) is None:
                    continue
                reason = mend()
                if reason is not None:
                    _MENDED.append(name)
                    _LOG.warning("%s: its compiled part does not load (%s); only its Python part is used", name, reason)
            _CHECKED = True
        return list(_MENDED)


def _mend_torchaudio() -> str | None:
    """Import torchaudio; where its compiled part fails, import it as it is without one. Gives the reason, if any.

    The stand-in for `torchaudio._extension` has the values which that module has when there is no library to load.
    """
    try:
        importlib.import_module("torchaudio")
        return None
    except (OSError, ImportError, RuntimeError) as error:
        reason = str(error.__cause__ or error)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]
    extension = types.ModuleType("torchaudio._extension")
    extension.__spec__ = importlib.machinery.ModuleSpec("torchaudio._extension", loader=None)

    def fail_if_no_align(function: Callable[..., object]) -> Callable[..., object]:
        def refuse(*args: object, **kwargs: object) -> object:
            raise RuntimeError(f"{function.__name__} needs torchaudio's compiled part, which does not load here")

        return refuse

    extension.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=fail_if_no_align,
        _check_cuda_version=lambda: None,
    )
    sys.modules[extension.__name__] = extension
    return reason


def _mend_torchvision() -> str | None:
    """Where the library of torchvision does not load, declare the two operators whose absence breaks its import.

    The library is tried before the package: a half-done import of torchvision cannot be repeated. Gives the reason.
    """
    reason = _why_unloadable("torchvision", "_C")
    if reason is None:
        return None
    library = importlib.import_module("torch.library").Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)  # the declaration lives as long as this object
    return reason


def _why_unloadable(name: str, library: str) -> str | None:
    """The loader's message where the compiled `library` of package `name` cannot be loaded; None where it can."""
    importlib.import_module("torch")  # its libraries must be in the process before one that links to them
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(folder) / f"{library}{suffix}"
            if path.exists():
                try:
                    ctypes.CDLL(str(path))
                    return None
                except OSError as error:
                    return str(error)
    return "no library found"
