"""What all decoders of encoded files can be asked for. Comes in: bytes; goes out: frames. Knows no decoder."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import LimitError, MediaError
from .feeding import Decoded
from .frame import Frame, Lost, Pixels


class Reading:
    """`lost` collects what could not be decoded, in order; who reads it may empty it."""

    def __init__(self, max_decoded_bytes: int) -> None:
        self.lost: list[Lost] = []
        self._max_decoded_bytes = max_decoded_bytes

    def read(self, data: bytes | bytearray | memoryview, final: bool = False) -> Iterator[list[Frame]]:
        """Take the next bytes; give the frames that they complete, in batches of bounded size.

        `final` ends the file; one that is cut short gives what it has. Frames that come before an error are given
        first. After a first batch the others have to be taken too, or the decoder closed.
        """
        batch = self.begin(data, final)
        while True:
            self.lost += batch.lost
            yield batch.frames
            if not batch.more:
                return
            batch = self.further()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes; give all frames that they complete, `max_decoded_bytes` at most.

        An error after frames comes with the next call.
        """
        return self._all(data, final=False)

    def flush(self) -> list[Frame]:
        """End the file; give all frames that are left. Frames in front of an error are not given: `read` gives them."""
        return self._all(b"", final=True)

    def _all(self, data: bytes | bytearray | memoryview, final: bool) -> list[Frame]:
        frames: list[Frame] = []
        size = 0
        try:
            for batch in self.read(data, final):
                frames += batch
                size += sum((frame.pixels if isinstance(frame, Pixels) else frame.samples).nbytes for frame in batch)
                if size > self._max_decoded_bytes:
                    break
        except MediaError:
            if final or not frames:
                raise
        if size <= self._max_decoded_bytes:
            return frames
        self.close()
        most = self._max_decoded_bytes
        raise LimitError(f"media: expected at most {most} decoded bytes from one call, got {size}; feed smaller pieces")

    def close(self) -> None:
        """End the decoder; idempotent."""
        raise NotImplementedError

    def begin(self, data: bytes | bytearray | memoryview, final: bool) -> Decoded:
        """The first step of `read`."""
        raise NotImplementedError

    def further(self) -> Decoded:
        """Its next steps."""
        raise NotImplementedError
