"""Streams whose pages are in host memory: who goes there, who comes back, and how many pages it has. Numbers only."""

from __future__ import annotations

from ..conversation.state import StreamState


class HostMemory:
    """Room for `most` pages. What has to be done about copies is collected until the next plan takes it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.used = 0
        self._twins: list[tuple[int, int]] = []
        self._drops: list[int] = []

    @property
    def room(self) -> int:
        """How many more pages it takes."""
        return self._most - self.used

    def move(self, stream: StreamState) -> tuple[int, list[int]] | None:
        """Take a stream's pages: to host memory, or, where that is full or it has computed none of them, to be fed
        again from what it keeps."""
        found = stream.whole and stream.fed == stream.found
        if found or stream.pages > self.room:
            stream.lose()
            return None
        pages = stream.save()
        self.used += len(pages)
        return stream.id, pages

    def bring(self, stream: StreamState) -> tuple[int, list[int]]:
        """Its pages come back."""
        self.used -= stream.away
        return stream.id, stream.come_back()

    def fork(self, stream: StreamState, twin: int) -> None:
        """The twin has the same copies, as far as there are any."""
        if stream.away:
            self._twins.append((stream.id, twin))
            self.used += stream.away

    def thaw(self, stream: StreamState) -> None:
        """A stream begins whose pages were brought there."""
        self.used += stream.away

    def forget(self, stream: StreamState) -> None:
        """The stream has ended."""
        if stream.away:
            self.drop(stream.id)
            self.used -= stream.away

    def drop(self, number: int) -> None:
        """Copies under this number are of no use any more."""
        self._drops.append(number)

    def taken(self) -> tuple[list[tuple[int, int]], list[int]]:
        """Host copies that a twin has as well, and those to be dropped, since the last call."""
        taken = self._twins, self._drops
        self._twins, self._drops = [], []
        return taken
