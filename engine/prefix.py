"""Which pages can be found by what they hold. Pages and keys only: no tensors, no streams.

A key stands for what a full page holds and for all that stands before it in its sequence (conversation/keys.py). Such
a page can be found while somebody holds it, and after that: it is *idle* then, until the pool needs it for something
else. The least recently used go first, of one sequence the last.
"""

from __future__ import annotations

from ..errors import PenstockError


class PrefixCache:
    """Pages by key. The pool tells it who is held and who is not."""

    def __init__(self) -> None:
        self._pages: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}
        self._idle: dict[int, None] = {}  # in the order in which they go

    def __len__(self) -> int:
        """How many pages can be found."""
        return len(self._keys)

    @property
    def idle(self) -> int:
        """How many of them nobody holds."""
        return len(self._idle)

    def find(self, key: bytes) -> int | None:
        """The page of this key, None where there is none."""
        return self._pages.get(key)

    def remember(self, page: int, key: bytes) -> None:
        """This page, which somebody holds, has this key, unless another page has it already."""
        if key not in self._pages and page not in self._keys:
            self._pages[key] = page
            self._keys[page] = key

    def held(self, page: int) -> None:
        """Somebody holds this page again."""
        del self._idle[page]

    def released(self, page: int) -> bool:
        """Nobody holds this page any more; returns whether it can be found."""
        if page not in self._keys:
            return False
        self._idle[page] = None
        return True

    def forget(self, page: int) -> bool:
        """This page holds something else from now on. Returns whether it could be found."""
        key = self._keys.pop(page, None)
        if key is None:
            return False
        del self._pages[key]
        self._idle.pop(page, None)
        return True

    def evict(self, count: int) -> list[int]:
        """Forget the `count` idle pages that go first, or all where there are fewer. Returns them."""
        gone = [page for page, _ in zip(self._idle, range(count), strict=False)]
        for page in gone:
            self.forget(page)
        return gone

    def check(self, idle: set[int]) -> None:
        """Raise PenstockError where the idle pages are not these, or keys and pages do not belong together."""
        if set(self._idle) != idle:
            raise PenstockError(f"idle pages: expected {sorted(idle)} by walk, got {sorted(self._idle)}")
        if {page: key for key, page in self._pages.items()} != self._keys or not idle <= set(self._keys):
            raise PenstockError(f"pages with keys: expected {len(self._pages)} of {len(self._pages)} keys, got others")
