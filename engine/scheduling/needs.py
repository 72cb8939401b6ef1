"""What one stream needs of the next step, from its state. Pure; it changes nothing."""

from __future__ import annotations

import msgspec

from ..conversation.state import StreamState
from .policy import ONE_TOKEN, Need

# Of a stream that only comes back: as if one row were to be fed.
_BACK = ((1, False),)


def own_need(stream: StreamState, ahead: int, page_tokens: int, step_rows: int) -> Need:
    """A stream's need, without what others could take from it: the waiting rows after those in the `ahead` pages that
    it is to join, (count, atomic) each, and whether the first of them is a sampled token."""
    fed, reply = stream.fed, stream.reply
    if stream.away and stream.returns and (stream.rows == fed or stream.pausing):
        return Need(stream.id, stream.since, _BACK, away=stream.away)
    first = fed + ahead * page_tokens
    token = reply is not None and bool(reply.places) and reply.places[-1] == first
    if token and stream.rows == first + 1:
        pieces = ONE_TOKEN
    else:
        pieces = tuple((len(run), run.atomic) for run in stream.waiting(step_rows, ahead * page_tokens))
    copy = int(stream.table.copies)
    need = Need(stream.id, stream.since, pieces, token, -fed % page_tokens, copy, stream.away)
    return msgspec.structs.replace(need, ahead=ahead) if ahead else need


def whole_needs(streams: list[tuple[StreamState, Need, bool]], room: int) -> list[Need]:
    """Needs with what others could take: of each stream its own need, and whether something of it may be fed now. Those
    that cannot be fed again are movable as far as `room`, pages of host memory, reaches for all."""
    needs = []
    for stream, own, feeds in streams:
        pages = stream.pages
        movable = stream.whole or pages <= room
        room -= pages if movable and not stream.whole else 0
        needs.append(_whole(stream, own, feeds, movable))
    return needs


def _whole(stream: StreamState, own: Need, feeds: bool, movable: bool) -> Need:
    tables = stream.tables
    held, shared = sum(table.own for table in tables), [pair for table in tables for pair in table.shared]
    if not feeds:
        own = msgspec.structs.replace(own, pieces=(), token=False)
    return msgspec.structs.replace(own, own=held, shared=tuple(shared), movable=movable)
