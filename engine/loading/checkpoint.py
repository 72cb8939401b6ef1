"""Where a checkpoint is: a folder, or a model on the Hub, of which what is served is downloaded. In: a name, a
revision. Out: a local folder, at first without weights, so that what can be refused is refused before they are
downloaded; or ModelError, one line. After it nothing asks the network. It does not know families.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ...errors import ModelError
from .hub import Repository

# Configuration, chat template and tokenizer; no code. Weights are taken by their names.
_SMALL = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth")


class Checkpoint:
    """A checkpoint in a local folder. `name` is what people call it: the folder, or the id with its revision."""

    def __init__(self, name: str, folder: Path, repository: Repository | None = None) -> None:
        self.name = name
        self.folder = folder
        self._repository = repository

    def fetch_weights(self) -> list[Path]:
        """See that the weights are in the folder; to be called before they are read. Returns their files. Raises
        ModelError.
        """
        names = self._weights(self._present())
        if self._repository is not None:
            self._repository.complete(names)
        return [self.folder / name for name in names]

    def local_weights(self) -> list[Path]:
        """The files of the weights, where all of them are in the folder already."""
        files = [self.folder / name for name in self._weights(self._present())]
        return files if all(file.is_file() for file in files) else []

    def check_weights(self) -> None:
        """ModelError where the weights are of a kind that is refused, by the names of the files."""
        self._shards_of(self._present())

    def _present(self) -> set[str]:
        return set(self._repository.sizes() if self._repository else (file.name for file in self.folder.iterdir()))

    def _weights(self, present: set[str]) -> list[str]:
        """The files that `transformers` reads."""
        if _WEIGHTS in present:
            return [_WEIGHTS]
        shards = self._shards_of(present)
        lost = [name for name in shards if name not in present]
        if lost:
            raise ModelError(f"{self.name}: expected the files that {_INDEX} names, got no {', '.join(lost)}")
        return shards

    def _shards_of(self, present: set[str]) -> list[str]:
        """What the index names, where there is one. Pickles are refused: reading one can run whatever its maker
        wrote."""
        shards = self._shards() if _INDEX in present else []
        pickles = [name for name in shards if not name.endswith(".safetensors")]
        if not any(name.endswith(".safetensors") for name in present):
            pickles += [name for name in present if name.endswith(_PICKLES)]
        if pickles:
            raise ModelError(
                f"{self.name}: expected weights as safetensors, got {', '.join(sorted(pickles))}: pickles can run code "
                "when they are read. Where you trust them, write them again with `save_pretrained`"
            )
        return shards

    def _shards(self) -> list[str]:
        try:
            named = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
            return sorted({str(name) for name in named})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.name}: expected a weight_map in {_INDEX}, got none ({error})") from error


def find(name: str | Path, revision: str | None, stop: threading.Event) -> Checkpoint:
    """The checkpoint of this name: a folder that exists, else a model on the Hub (`org/name`), whose small files are
    downloaded into the Hub's cache or found there. Where `stop` is set, a download ends. Raises ModelError.
    """
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"{name}: expected no revision, as it is a folder, got {revision!r}")
        found = Checkpoint(str(name), folder)
    elif isinstance(name, str) and _is_id(name):
        repository = Repository(name, revision, stop)
        found = Checkpoint(repository.name, repository.open(_SMALL), repository)
    else:
        got = "a file" if folder.exists() else "no such folder"
        raise ModelError(f"{name}: expected the folder of a checkpoint, or an id on the Hub (org/name), got {got}")
    if not (found.folder / "config.json").is_file():
        raise ModelError(f"{found.name}: expected a checkpoint with a config.json, got none")
    return found


def _is_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
