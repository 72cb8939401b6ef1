"""What of one stream is on its way into the cache, and how much more may be. Media goes to decode here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..streams.item import AudioChunk, Item, VideoFrame
from . import clock
from .messages import Flush, Hear, Take

if TYPE_CHECKING:
    from ..streams.requests.turns import TurnDetection
    from .lookback import Clip
    from .mailbox import Mailbox
    from .messages import DecodeMessage

# Media of one stream that may be on its way.
CREDIT_BYTES = 32 << 20
CREDIT_MEDIA_US = 60_000_000


class OnWay:
    """Inputs of stream `id` in decode or encode, by number. `prompt`: the one that is sent on already."""

    def __init__(self, id: int, decode: Mailbox[DecodeMessage], prompt: int | None = None) -> None:
        self._id = id
        self._decode = decode
        self._bytes: dict[int, int] = {} if prompt is None else {prompt: 0}
        self._times: dict[int, int] = {}  # media time of these, where it is known

    def __bool__(self) -> bool:
        return bool(self._bytes)

    def take(self, seq: int, item: Item | Clip, size: int, arrived_us: int, asked: bool) -> None:
        """Send media on, which counts as so many bytes; `asked` as in `Take`."""
        self._bytes[seq] = size
        if isinstance(item, VideoFrame | AudioChunk) and item.pts_us is not None:
            self._times[seq] = item.pts_us
        self._decode.put_now(Take(self._id, seq, item, arrived_us, asked), size)

    def flush(self, seq: int, ends: bool = False) -> None:
        """Send on that what is held goes out with input `seq`. `ends`: no more media will come."""
        self._bytes[seq] = 0
        self._decode.put_now(Flush(self._id, seq, clock.now_us(), ends))

    def listen(self, seq: int, turns: TurnDetection | None) -> None:
        """Send on how to listen from input `seq` on."""
        self._bytes[seq] = 0
        self._decode.put_now(Hear(self._id, seq, turns, clock.now_us()))

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
