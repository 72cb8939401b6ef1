"""What followed the same words earlier in a stream: guesses without a model (prompt lookup).

In: the runs that a stream has laid. Out: ids that may come next. It reads what is laid, and changes nothing.
"""

from __future__ import annotations

import numpy as np

from ..conversation.state import StreamState
from ..span import Rows

# The newest ids of a stream that are looked at; the longest part of which a place before is looked for. Two are the
# shortest: one word is followed by too many others.
_MOST, _LONGEST = 8192, 4
# Stands between two texts, where media is.
_GAP = -1


class Script:
    """The newest ids of one stream's text, in order, as far as they were read."""

    def __init__(self) -> None:
        self._ids = np.empty(0, dtype=np.int64)
        self._read: Rows | None = None  # the last run that was read

    def read(self, stream: StreamState) -> np.ndarray:
        """The ids up to the stream's last row. Where the end of what was read is not there any more, all are read
        again."""
        new: list[np.ndarray] = []
        count = 0
        for run in reversed(stream.laid):
            if run is self._read or count >= _MOST:
                break
            new.append(run.ids if run.seen is None and run.stored is None else np.array([_GAP]))
            count += len(new[-1])
        else:
            self._ids = self._ids[:0]
        if new:
            self._ids = np.concatenate([self._ids, *reversed(new)])[-_MOST:]
            self._read = stream.laid[-1]
        return self._ids


def continued(ids: np.ndarray, most: int) -> tuple[int, ...]:
    """Up to `most` ids that followed the newest place where the last ids of `ids` `(n,)` stood before. Where that place
    reaches to the end, what is found goes on from itself. Of the longest part that stood before; () where none did."""
    last = len(ids) - 1
    if last < 1 or ids[last] == _GAP:
        return ()
    places, found = np.flatnonzero(ids[:last] == ids[last]), -1
    for before in range(1, _LONGEST):  # so many ids before the last one are the same, too
        places = places[places >= before]
        places = places[ids[places - before] == ids[last - before]]
        if not len(places) or ids[last - before] == _GAP:
            break
        found = int(places[-1])
    if found < 0:
        return ()
    guesses = np.resize(ids[found + 1 :], most).tolist()
    return tuple(guesses[: guesses.index(_GAP)] if _GAP in guesses else guesses)
