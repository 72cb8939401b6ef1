"""The laws of conservation: pages, host copies and bytes that are counted are those that a walk over the streams finds.
It changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import PenstockError
from ..conversation.kept import Kept
from ..conversation.state import StreamState
from ..pages import PagePool


def check(
    pool: PagePool, kept: Kept, host_pages: int, streams: Sequence[StreamState], copies: list[StreamState]
) -> None:
    """Raise PenstockError where held pages are not those that `streams` and `copies` reach, or counted bytes not those
    of what is laid. `host_pages`: how many pages of streams are counted in host memory."""
    everyone = [*streams, *copies]
    pool.check(table for stream in everyone for table in stream.tables)
    kept.check(everyone)
    away = sum(stream.away for stream in streams)
    if away != host_pages:
        raise PenstockError(f"host copies: expected {away} pages by walk, got {host_pages}")
    for stream in streams:
        held = sum(run.nbytes for run in stream.laid)
        if held != stream.host_bytes:
            raise PenstockError(f"stream {stream.id}: expected {held} bytes by walk, got {stream.host_bytes}")
