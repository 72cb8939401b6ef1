"""What of one stream is on its way into the cache, and how much more may be. Numbers only."""

from __future__ import annotations

# Media of one stream that may be on its way.
CREDIT_BYTES = 32 << 20
CREDIT_MEDIA_US = 60_000_000


class OnWay:
    """Inputs in decode or encode, by number."""

    def __init__(self) -> None:
        self._bytes: dict[int, int] = {}
        self._times: dict[int, int] = {}  # media time of these, where it is known

    def __bool__(self) -> bool:
        return bool(self._bytes)

    def put(self, seq: int, size: int = 0, pts_us: int | None = None) -> None:
        """Input `seq` of so many bytes is sent on."""
        self._bytes[seq] = size
        if pts_us is not None:
            self._times[seq] = pts_us

    def arrived(self, seqs: list[int]) -> None:
        """These are in neither any more."""
        for seq in seqs:
            self._bytes.pop(seq, None)
            self._times.pop(seq, None)

    @property
    def credit_bytes(self) -> int:
        return max(0, CREDIT_BYTES - sum(self._bytes.values()))

    @property
    def credit_us(self) -> int:
        waiting_us = max(self._times.values()) - min(self._times.values()) if self._times else 0
        return max(0, CREDIT_MEDIA_US - waiting_us)
