"""Keys of a stream's full pages: equal where the rows of a page, and all rows before it, are the same.

What comes in: rows as they are laid. What goes out: a key a page, each made from the one before it and from the ids,
the positions and, of media, the content of the page's rows. It knows no pool and no tensors.
"""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_right

import numpy as np

from ..plan import Wears
from ..span import Rows


class Keys:
    """The keys of one stream's pages of `page_tokens` rows. Streams with different salts, or that wear different
    adapters, have no key in common."""

    def __init__(self, salt: str | None, page_tokens: int, wears: Wears | None = None) -> None:
        self._root = hashlib.blake2b(b"" if salt is None else b"salt" + salt.encode()).digest()
        if wears is not None:
            self._root = hashlib.blake2b(self._root + wears.fingerprint.encode()).digest()
        self._size = page_tokens
        self._keys: list[bytes] = []

    def copy(self) -> Keys:
        twin = object.__new__(Keys)
        twin.__dict__.update(self.__dict__)
        twin._keys = list(self._keys)
        return twin

    def up_to(self, pages: int, laid: list[Rows], starts: list[int]) -> list[bytes]:
        """The keys of the first `pages` pages, and of others that were asked for before. Fewer where a page has media
        of which the content is not known: it and those after it have none. `starts`: the first row of each run."""
        while len(self._keys) < pages:
            key = self._next(laid, starts)
            if key is None:
                break
            self._keys.append(key)
        return self._keys

    def cut(self, row: int) -> None:
        """What is laid from `row` on may be something else from now on."""
        del self._keys[row // self._size :]

    def _next(self, laid: list[Rows], starts: list[int]) -> bytes | None:
        row = start = len(self._keys) * self._size
        place = bisect_right(starts, start) - 1
        ids, positions, media = [], [], []
        while row < start + self._size:
            run, first = laid[place], starts[place]
            if run.content is None or (run.stored is not None and not run.content):
                return None
            here = slice(row - first, min(start + self._size - first, len(run)))
            ids.append(run.ids[here])
            positions.append(run.positions[:, here])
            if run.content:
                media.append(struct.pack("<4q", row - start, here.start, here.stop, len(run.content)) + run.content)
            row, place = first + here.stop, place + 1
        key = hashlib.blake2b(self._keys[-1] if self._keys else self._root)
        key.update(np.concatenate(ids).tobytes())
        key.update(np.concatenate(positions, axis=1).tobytes())
        key.update(b"".join(media))
        return key.digest()
