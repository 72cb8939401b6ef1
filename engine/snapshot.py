"""A frozen stream as a file, and back.

The file is one of safetensors: tensors and a header of text, nothing that is run when it is read. It is written whole
under another name and then renamed, so a file with its name is complete. It holds what was said and shown, as ids and
as rows of the KV cache.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import InputError
from .frozen import Frozen, Snapshot

_FORMAT = "penstock snapshot 1"
# To write a tensor, safetensors makes a ctypes type for its number of bytes, and ctypes keeps each for ever: what has
# any size is filled up, so that there are few of them.
_PADDED = 1 << 16


def write(path: Path, snapshot: Snapshot, fingerprint: str, kv_dtype: str) -> None:
    """Write a frozen stream of the model with this fingerprint and a cache of this type. Raises InputError where the
    file cannot be written, and then a file that was there is still there."""
    said = msgspec.msgpack.encode(snapshot.frozen)
    tensors = {"frozen": torch.frombuffer(bytearray(said) + bytes(-len(said) % _PADDED), dtype=torch.uint8)}
    for layer, (keys, values) in enumerate(snapshot.layers):
        tensors |= {f"keys.{layer}": keys, f"values.{layer}": values}
    for number, state in enumerate(snapshot.states):
        for layer, kept in state.items():
            tensors |= {f"state.{number}.{layer}.{kind}.{place}": tensor for (kind, place), tensor in kept.items()}
    for id, (rows, deep) in snapshot.embeds.items():
        tensors |= {f"rows.{id}": rows} | ({} if deep is None else {f"deep.{id}": deep})
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = {"format": _FORMAT, "penstock": metadata.version("penstock"), "model": fingerprint, "kv_dtype": kv_dtype}
    header |= {"said": str(len(said)), "sum": _sum(tensors)}
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise InputError(
            f"{path.name}: expected a folder that can be written, got one that cannot: {_why(error)}"
        ) from error
    try:
        save_file(tensors, name, header)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path.name}: expected a file that can be written, got one that cannot: {_why(error)}"
        ) from error
    finally:
        Path(name).unlink(missing_ok=True)


def read(path: Path, fingerprint: str, page_tokens: int, kv_dtype: str) -> Snapshot:
    """The frozen stream of a file, for a model with this fingerprint and a cache with such pages. Raises InputError for
    a file that is not there, is damaged, or is of another model, version, size of page or type of cache."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            _check("format", header.get("format"), _FORMAT, path)
            _check("Penstock", header.get("penstock"), metadata.version("penstock"), path)
            _check("model", header.get("model"), fingerprint, path)
            _check("kv_dtype", header.get("kv_dtype"), kv_dtype, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path.name}: expected a snapshot, got none: {_why(error)}") from error
    _check("sum", header.get("sum"), _sum(tensors), path)
    try:
        said = tensors.pop("frozen").numpy().tobytes()[: int(header["said"])]
        frozen = msgspec.msgpack.decode(said, type=Frozen)
        _check("rows a page", frozen.page_tokens, page_tokens, path)
        return Snapshot(0, 0, frozen, _layers(tensors), _embeds(tensors, frozen), states=_states(tensors))
    except (LookupError, ValueError, msgspec.DecodeError) as error:
        raise InputError(f"{path.name}: expected a snapshot, got one without {error}") from error


def _why(error: Exception) -> str:
    """What went wrong, without the folder, which a client of a server need not know."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder"
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)


def _layers(tensors: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    count = sum(name.startswith("keys.") for name in tensors)
    return [(tensors[f"keys.{layer}"], tensors[f"values.{layer}"]) for layer in range(count)]


def _states(tensors: dict[str, torch.Tensor]) -> list[dict[int, dict[tuple[str, int], Any]]]:
    states: dict[int, dict[int, dict[tuple[str, int], Any]]] = {}
    for name, tensor in tensors.items():
        if name.startswith("state."):
            _, number, layer, kind, place = name.split(".")
            states.setdefault(int(number), {}).setdefault(int(layer), {})[kind, int(place)] = tensor
    return [states[number] for number in sorted(states)]


def _embeds(tensors: dict[str, torch.Tensor], frozen: Frozen) -> dict[int, tuple[Any, Any]]:
    return {id: (tensors[f"rows.{id}"], tensors.get(f"deep.{id}")) for id in frozen.entries}


def _check(what: str, got: Any, expected: Any, path: Path) -> None:
    if got != expected:
        raise InputError(f"{path.name}: {what}: expected {expected}, got {got}")


def _sum(tensors: dict[str, torch.Tensor]) -> str:
    """A digest of all that is in the file."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
