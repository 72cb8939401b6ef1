"""A copy of a stream goes back to a place in its past. Nobody counts its rows yet."""

from __future__ import annotations

from .marks import Mark
from .rules import MediaLife
from .state import Begun, StreamState
from .waiting import Losses


def go_back(stream: StreamState, to_prompt: bool, mark: Mark | None) -> Begun | None:
    """Back to where the reply to the prompt begins, which is returned, or to a place, or nowhere."""
    if to_prompt:
        return _to_prompt(stream)
    if mark is not None:
        _to_mark(stream, mark)
    return None


def _to_prompt(stream: StreamState) -> Begun:
    """The prompt's last rows are fed once more, to draw from."""
    assert stream.begun is not None
    stream.cut(stream.begun.rows)
    stream.layout = stream.begun.layout.copy()
    stream.reply = None
    stream.feed_last_again()
    return stream.begun


def _to_mark(stream: StreamState, mark: Mark) -> None:
    """A reply that ran there is closed."""
    stream.reply = None
    stream.inputs.clear()
    stream.cut(mark.rows)
    stream.layout = mark.layout.copy()
    stream.media, stream.losses = MediaLife.EXPECTED, Losses()
    stream.asked = min(stream.asked, mark.rows)
    stream.turns = [row for row in stream.turns if row <= mark.rows]
    if stream.begun is not None and stream.begun.rows > mark.rows:
        stream.begun = None
    if stream.layout.replying:
        stream.lay(stream.layout.end())
