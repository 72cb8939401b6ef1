"""The towers of a checkpoint alone, for an encoder that runs in a process of its own; and what names them, by the
checkpoint's files, so that an engine without their weights can tell whether they are its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open

from ..config import EngineConfig
from ..encoding import encode
from ..families import is_tried, rehearse
from ..families.findings import TrialFindings
from ..families.parts import only
from ..family import Towers
from .checkpoint import Checkpoint
from .fingerprint import LEFT
from .first_run import check_runs
from .open import known, opened
from .placement import check_room, place
from .quantised import quantisation
from .weights import of_decoder, read

# So many rows of each tensor, spread over it, stand for it, with so many numbers of each.
_ROWS, _NUMBERS = 8, 64
# What says how media becomes numbers.
_PROCESSOR = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_WHOLE = "thinker_config"


class LoadedTowers(NamedTuple):
    """Towers that are ready. `model`: what people call the checkpoint. `why` its device and dtype were taken. `kinds`
    of media that they take. `nbytes`: their weights. `findings`: of a model that is tried, what was found."""

    towers: Towers
    model: str
    family: str
    device: str
    dtype: str
    why: str
    kinds: tuple[str, ...]
    nbytes: int
    fingerprint: str
    findings: TrialFindings | None = None


def load_towers(path: str | Path, config: EngineConfig, revision: str | None = None) -> LoadedTowers:
    """The towers of the checkpoint at `path`, a folder or an id on the Hub, without its decoder. One that is tried is
    opened whole, and its decoder's layers are let go of. ModelError where it has no towers, and as `open.load` raises
    it."""
    return opened(path, config, _load, revision)


def _load(checkpoint: Checkpoint, config: EngineConfig) -> LoadedTowers:
    named, load_family = known(checkpoint)
    files = checkpoint.fetch_weights()
    placement = place(config, read(files))  # by the whole: as an engine decides, so that both compute in one type
    tried = is_tried(named.model_type)
    if tried:
        rehearse(named.model_type, checkpoint.folder)
    check_room(read(files, None if tried else "towers"), placement)
    with only("towers"):
        loaded = load_family(checkpoint.folder, getattr(torch, placement.dtype), torch.device(placement.device))
    if quantisation(named) is not None:
        check_runs(loaded)
    family = loaded.family
    towers: Any = loaded.towers
    found: TrialFindings | None = getattr(towers, "findings", None)
    tensors = (tensor for tensor in (*towers.model.parameters(), *towers.model.buffers()) if not tensor.is_meta)
    return LoadedTowers(
        loaded.towers,
        checkpoint.name,
        family.data.name,
        placement.device,
        placement.dtype,
        placement.why,
        family.modalities,
        sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values()),
        tower_fingerprint(files, named, checkpoint.folder, found),
        found,
    )


def tower_fingerprint(files: Iterable[Path], named: Any, folder: Path, found: TrialFindings | None = None) -> str:
    """Equal for the same towers, configuration of towers and processor; the decoder does not matter. Of a model that
    was tried: for the same model, of which the same was `found`."""
    said = json.loads(named.to_json_string(use_diff=False))
    said = said.get(_WHOLE, said)
    of_towers = [name for name in said if name != "text_config" and _of_media(name)]
    kept = {name: said[name] for name in (of_towers if found is None else said) if name not in LEFT}
    processor = {name: _json(folder / name) for name in _PROCESSOR if (folder / name).is_file()}
    digest = hashlib.blake2b(json.dumps([kept, processor], sort_keys=True).encode(), digest_size=16)
    for name, value in sorted(_samples(files, found is not None)):
        digest.update(name.encode() + value)
    digest.update(b"" if found is None else encode(found))
    return digest.hexdigest()


def _of_media(name: str) -> bool:
    """Whether a field of a configuration is about media: other fields hang on the decoder and its words."""
    return name.endswith("_config") or any(word in name for word in ("vision", "image", "video", "audio", "projector"))


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _samples(files: Iterable[Path], whole: bool) -> Iterable[tuple[str, bytes]]:
    """The name of each tensor of the towers, or of the whole, and some of its numbers with its shape and type."""
    for file in files:
        with safe_open(file, framework="pt") as opened_file:
            for name in opened_file.keys():
                if of_decoder(name) and not whole:
                    continue
                part = opened_file.get_slice(name)
                shape = part.get_shape()
                what = f" {part.get_dtype()} {shape} ".encode()
                if not shape:
                    yield name, what + _bytes(opened_file.get_tensor(name))
                    continue
                places = range(0, shape[0], max(1, shape[0] // _ROWS))
                rows = [part[place : place + 1].reshape(-1)[:_NUMBERS] for place in places]
                yield name, what + b"".join(map(_bytes, rows))


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
