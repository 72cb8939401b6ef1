"""Bytes towards the decoding thread and frames back. Comes in: pieces and frames; goes out: the file-like object that
FFmpeg reads, and batches of frames. Knows no formats.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import InputError, LimitError
from .frame import Frame, Lost, Pixels
from .piece import Piece

_MOST_BATCH_BYTES = 64 << 20


class Decoded(NamedTuple):
    """Frames, and what was lost among them. `more`: the same bytes give further batches."""

    frames: list[Frame]
    lost: list[Lost]
    more: bool


class FilePart(NamedTuple):
    """One file: the name of its demuxer, and what that reads."""

    demuxer: str
    source: Feeder | io.BytesIO


class Feeder:
    """The two sides of a decoder: `push` and `wait` for its caller; `parts`, `read` and `put` for its thread.

    The thread stops in `put` while a batch is full, and in `read` while there are no bytes. It cannot seek.
    """

    def __init__(self, max_decoded_bytes: int) -> None:
        self.error: BaseException | None = None
        self.ended = False  # the reader has been told that its part has no more bytes
        self.torn = False  # the reader has passed a place where something was lost
        self.closed = False
        self._pieces: deque[Piece] = deque()
        self._data = b""
        self._at = 0
        self._final = False
        self._anew = False
        self._waiting = False
        self._full = False
        self._done = False
        self._frames: list[Frame] = []
        self._lost: list[Lost] = []
        self._frame_bytes = 0
        self._most_bytes = min(_MOST_BATCH_BYTES, max_decoded_bytes)
        self._changed = threading.Condition()

    # The thread's side.

    def parts(self) -> Iterator[FilePart]:
        """The parts, one after another. Bytes that one has left are dropped."""
        while True:
            with self._changed:
                self._data, self._at = b"", 0
                while self._more() and not (self._pieces[0].starts or (self._anew and self._pieces[0].anew)):
                    self._pieces.popleft()
                if self.closed or not self._pieces:
                    return
                piece = self._pieces.popleft()
                self.ended = piece.whole
                self.torn, self._anew = piece.torn or self._anew, False
                if not piece.whole:
                    self._data = piece.data if piece.starts else piece.anew + piece.data
            yield FilePart(piece.starts or "mov", io.BytesIO(piece.data) if piece.whole else self)

    def anew(self) -> None:
        """The demuxer cannot go on: the next part begins at the next place where one may."""
        self._anew = True

    def read(self, size: int) -> bytes:
        """At most `size` of the bytes that are there; waits for the first one; b"" for ever after the end of a part."""
        with self._changed:
            while not self.ended and self._at == len(self._data):
                if not self._more() or self._pieces[0].starts:
                    self.ended = True
                else:
                    piece = self._pieces.popleft()
                    self._data, self._at = piece.data, 0
                    self.torn = self.torn or piece.torn
            if self.ended or self.closed:
                return b""
            taken = self._data[self._at : self._at + size]
            self._at += len(taken)
            return taken

    def put(self, frame: Frame) -> None:
        """Give a frame; waits while the batch is full."""
        size = (frame.pixels if isinstance(frame, Pixels) else frame.samples).nbytes
        with self._changed:
            while self._frames and self._frame_bytes + size > self._most_bytes and not self.closed:
                self._full = True
                self._changed.notify_all()
                self._changed.wait()
            self._frames.append(frame)
            self._frame_bytes += size

    def lose(self, lost: Lost) -> None:
        """Tell a loss. One that follows the last one of its track is reported with it."""
        with self._changed:
            if self._lost and self._lost[-1].modality == lost.modality and self._lost[-1].stop_us == lost.start_us:
                last = self._lost.pop()
                lost = Lost(lost.modality, last.count + lost.count, last.start_us, lost.stop_us)
            self._lost.append(lost)

    def end(self, error: BaseException | None) -> None:
        """The thread ends; called last."""
        with self._changed:
            self.error = self.error or error
            self._done = True
            self._changed.notify_all()

    def _more(self) -> bool:
        """Wait for a piece; False where there will be none."""
        while not self._pieces and not self._final and not self.closed:
            self._waiting = True
            self._changed.notify_all()
            self._changed.wait()
        return bool(self._pieces) and not self.closed

    # The caller's side.

    def push(self, pieces: list[Piece], final: bool) -> None:
        """Hand pieces over, before a `wait`."""
        with self._changed:
            self._pieces.extend(pieces)
            self._final = final
            if pieces or final:
                self._waiting = False
                self._changed.notify_all()

    def wait(self, seconds: float) -> Decoded:
        """Wait until the thread has used the pieces up, has ended or has filled a batch; give what was decoded."""
        with self._changed:
            if self._full:
                self._full = False
                self._changed.notify_all()

            def idle() -> bool:
                return self._waiting or self._done or self._full or self.closed

            if not self._changed.wait_for(idle, seconds):
                self.error = LimitError(f"media: expected the bytes of a call to be decoded in {seconds} s, got no end")
                self.closed = True
            elif self.closed and self.error is None:
                self.error = InputError("media: expected an open decoder, got one that was closed meanwhile")
            batch = Decoded(self._frames, self._lost, self._full and not self.closed)
            self._frames, self._lost, self._frame_bytes = [], [], 0
            return batch

    def close(self) -> None:
        """Give up: reads end, waiting calls return."""
        with self._changed:
            self.closed = True
            self._frames = []
            self._changed.notify_all()
