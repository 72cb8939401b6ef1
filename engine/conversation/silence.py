"""When a reply that speaks can wait for media without a loss. Pure; knows no time.

A reply whose media is overdue says less, so that it speaks of what is there now. It may wait only where the next piece
of media would go in at once: else waiting would hold up both.
"""

from __future__ import annotations

from .conversation import Conversation
from .rules import Life


def can_wait(talk: Conversation) -> bool:
    """Whether the reply of a stream has nothing to feed but its newest token, has said enough for the next piece of
    media to go in, and none is there."""
    stream, reply = talk.stream, talk.stream.reply
    if reply is None or reply.life is not Life.SPEAKING or stream.rows != stream.past + 1:
        return False
    format = stream.layout.format
    takes = not format.rests and stream.layout.step("media") is not None and reply.since >= talk.between
    is_token = bool(reply.places) and reply.places[-1] == stream.past
    return takes and is_token and not reply.text.open and not any(input.spans for input in stream.inputs)
