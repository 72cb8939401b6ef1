"""Downloads from the Hub into its own cache. In: a model's id, a revision, names of files. Out: a local folder, or
ModelError: one line that says what to do. It does not know which files a model needs.

Only files in the root of a repository are taken. Progress is shown where stderr is a terminal.
"""

from __future__ import annotations

import errno
import glob
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_cached_repo_tree, scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    CacheNotFound,
    GatedRepoError,
    HfHubHTTPError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import enable_progress_bars, tqdm

from ...errors import ModelError
from .compute import amount

_LOGIN = "log in with `hf auth login` or set HF_TOKEN"
_SHOWN = 3  # names of files in a message


class Repository:
    """A model's repository at one revision (None: its main branch). `name` is what people call it. Where `stop` is set,
    a download ends at its next piece."""

    def __init__(self, id: str, revision: str | None, stop: threading.Event) -> None:
        self.id = id
        self.name = id if revision is None else f"{id}@{revision}"
        self._revision = revision
        self._stop = stop
        self._folder: Path | None = None

    def open(self, patterns: Iterable[str]) -> Path:
        """The local folder, with all files that fit a pattern. Without the Hub it is what the cache has.

        Raises ModelError.
        """
        self._folder = self._download(patterns, self._revision)
        return self._folder

    def sizes(self) -> dict[str, int]:
        """Bytes of each file in the repository's root, downloaded or not; of those in the cache alone where it was
        filled by a library that kept no list."""
        assert self._folder is not None
        try:
            tree = get_cached_repo_tree(self.id, revision=self._folder.name)
        except CachedRepoTreeNotFoundError:
            return {file.name: file.stat().st_size for file in self._folder.iterdir() if file.is_file()}
        return {file.path: file.size for file in tree if "/" not in file.path}

    def complete(self, names: Iterable[str]) -> None:
        """Download those of the named files that are not in the cache. Raises ModelError, before anything is downloaded
        where the disk has no room."""
        assert self._folder is not None
        missing = self._missing = [name for name in names if not (self._folder / name).exists()]
        if not missing:
            return
        sizes = self.sizes()
        need = sum(sizes[name] for name in missing)
        if need > shutil.disk_usage(self._folder).free:
            raise ModelError(f"{self.name}: {_full(need)}")
        self._download([glob.escape(name) for name in missing], self._folder.name, missing, need)

    def _download(
        self, patterns: Iterable[str], revision: str | None, missing: list[str] | None = None, need: int = 0
    ) -> Path:
        stop = self._stop
        bars: list[tqdm] = []

        class Bar(tqdm):
            """The Hub's bar, which is seen on terminals only and ends a download that nobody waits for."""

            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **{"disable": None} | options)
                bars.append(self)

            def update(self, n: float | None = 1) -> bool | None:
                if stop.is_set():
                    raise ModelError("the load was cancelled")
                return super().update(n)

        if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
            enable_progress_bars("huggingface_hub.snapshot_download")  # library.py puts out all bars
        try:
            return Path(
                snapshot_download(
                    self.id,
                    revision=revision,
                    allow_patterns=list(patterns),
                    ignore_patterns=["*/*"],
                    tqdm_class=Bar,
                    library_name="penstock",
                )
            )
        except ModelError as error:
            raise ModelError(f"{self.name}: {error}") from None
        except Exception as error:  # whatever the Hub's library and those below it raise
            raise ModelError(f"{self.name}: {' '.join(self._why(error, missing or [], need).split())}") from error
        finally:
            for bar in bars:
                bar.close()

    def _why(self, error: Exception, missing: list[str], need: int) -> str:
        page = f"{constants.ENDPOINT}/{self.id}"
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
        if isinstance(error, GatedRepoError):
            got = "no login" if status == 401 else f"{status} for this account"
            return f"expected access to a gated model, got {got}: ask for it at {page}, then {_LOGIN}"
        if isinstance(error, RevisionNotFoundError):
            return f"expected a branch, tag or commit, got {self._revision!r}, which the Hub does not know: see {page}"
        if status == 401 and "Invalid credentials" in str(error):
            return f"expected a token that the Hub takes, got 401: {_LOGIN} again"
        if status == 401 or isinstance(error, RepositoryNotFoundError):
            known = f"expected a folder or a model on {constants.ENDPOINT}, got neither ({status}): check the name"
            return known if status == 404 else f"{known}; if it is private, {_LOGIN}"
        if isinstance(error, LocalEntryNotFoundError):
            return self._unreached(error, missing)
        if status:
            return f"expected files, got {status} from {page}: {error}"
        if _is_full(error):
            return _full(need)
        return (
            f"expected a whole download, got one that broke off ({_named(error)}): load it again; files that are "
            "complete are kept"
        )

    def _unreached(self, error: LocalEntryNotFoundError, missing: list[str]) -> str:
        """The Hub was not asked or did not answer, and the cache does not have everything."""
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            have = f"a copy in the cache without {', '.join(missing[:_SHOWN])}{more}"
        elif isinstance(error, IncompleteSnapshotError):
            have = "an incomplete copy in the cache"
        else:
            revisions = self._cached()
            have = f"in the cache revision {', '.join(revisions)}" if revisions else "nothing of it in the cache"
        if constants.is_offline_mode():
            return (
                f"expected it in the cache, as HF_HUB_OFFLINE is set, got {have}: unset HF_HUB_OFFLINE to download it"
            )
        cause = error.__cause__ or error
        return f"expected an answer from {constants.ENDPOINT}, got {_named(cause)}, and {have}: look at the network"

    def _cached(self) -> list[str]:
        """The revisions in the cache: their branches and tags, or the commit."""
        try:
            repositories = scan_cache_dir().repos
        except CacheNotFound:
            return []
        found = [one for one in repositories if one.repo_type == "model" and one.repo_id == self.id]
        revisions = [revision for one in found for revision in one.revisions]
        return sorted(name for revision in revisions for name in (revision.refs or {revision.commit_hash}))


def _full(need: int) -> str:
    """The disk has no room for `need` bytes; 0: nobody knows for how many."""
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = amount(shutil.disk_usage(there).free)
    wanted = f"{amount(need)} of room" if need else "room"
    return f"expected {wanted} for the download, got {free} free in {cache}: make room, or set HF_HOME to another disk"


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _named(error: BaseException) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"{error.response.status_code}"
    return f"{type(error).__name__}: {error}"
