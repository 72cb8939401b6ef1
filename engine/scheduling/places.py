"""Which streams may be open: the numbers of their page tables, and the rows that they have reserved. Numbers only."""

from __future__ import annotations

from ...errors import InputError, OverloadError
from ...streams.requests.request import Request
from ..conversation.laying import Limits
from ..plan import TABLES


class Places:
    """Room for `slots` streams, whose rows and positions have these `limits`."""

    def __init__(self, slots: int, limits: Limits) -> None:
        self._slots = slots
        self._limits = limits
        self._free = list(range(slots - 1, -1, -1))
        self._reserved: dict[int, int] = {}  # rows that streams have declared as their most

    def check(self) -> None:
        """Raise OverloadError where no more streams may be open."""
        if not self._free:
            raise OverloadError(f"expected at most {self._slots} open streams, got one more")

    def limits(self, request: Request) -> Limits:
        """The limits of a stream with this request."""
        declared = request.reserve_tokens
        return self._limits if declared is None else Limits(declared, self._limits.positions)

    def take(self, id: int, request: Request) -> tuple[list[int], Limits]:
        """The numbers of a new stream's page tables, and its limits. What it declares as its most is reserved. Raises
        OverloadError as `check` does, and InputError with the numbers where that is more than is left."""
        self.check()
        declared = request.reserve_tokens
        if declared is not None:
            free = self._limits.rows - sum(self._reserved.values())
            if declared > free:
                raise InputError(
                    f"reserve_tokens: expected at most {free} of {self._limits.rows} tokens, got {declared}"
                )
            self._reserved[id] = declared
        slot = self._free.pop()
        return [slot + self._slots * place for place in range(TABLES)], self.limits(request)

    def give(self, id: int, slot: int) -> None:
        """A stream has ended."""
        self._reserved.pop(id, None)
        self._free.append(slot)
