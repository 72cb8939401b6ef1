"""A copy of a stream goes back to a place in its past. Nobody counts its rows yet."""

from __future__ import annotations

from ...errors import InputError
from .marks import Mark
from .rules import MediaLife
from .state import Begun, StreamState
from .waiting import Losses


def check_reach(stream: StreamState, to_prompt: bool, mark: Mark | None) -> None:
    """InputError where a copy cannot go back there. If layers keep states, some rows are fed once more, and
    the embeddings of some may be gone."""
    if to_prompt and stream.begun is None:
        raise InputError("again: expected a stream whose prompt has a reply, got one that has none any more or yet")
    row = stream.begun.rows - 1 if to_prompt and stream.begun else stream.rows if mark is None else mark.rows
    if stream.carried is not None and not stream.carried.reaches(row):
        raise InputError(
            f"expected a place from row {stream.carried.least_row} on, since the model keeps a state of all rows and "
            f"media before it cannot be fed once more, got row {row}; more span_bytes keeps more"
        )


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
    _feed_last_again(stream)
    return stream.begun


def _feed_last_again(stream: StreamState) -> None:
    """Its last rows are fed once more, to draw from."""
    place = len(stream.laid) - 1
    row = stream.starts[place] if stream.laid[place].atomic else stream.rows - 1
    stream.cold, stream.found = min(stream.cold, row), min(stream.found, row)
    stream.head = min(stream.head, place)
    stream.take_out(row)


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
