"""What damage costs a track. Comes in: packets and decoded frames; goes out: whether each may be decoded and given.
Knows nothing of files and times.
"""

from __future__ import annotations

import mmap

import av
from av.error import FFmpegError

_ROOM_BYTES = 256 << 20
_SETTLED = 8  # frames after which a track of sound has its rate and channels
_MOST_REORDERED = 64  # pictures that a decoder holds back at most


class Track:
    """One track that is decoded. `damaged`: what is not given now is lost to damage, not to a late join."""

    def __init__(self, stream: av.VideoStream | av.AudioStream, most: int) -> None:
        self.stream = stream
        self.damaged = False
        self.why = ""
        self._most = most
        self._lost = 0  # packets in a row

    @property
    def given_up(self) -> bool:
        """Whether more than may be was lost in a row. Nothing of the track is decoded any more."""
        return self._lost > self._most

    @property
    def refused(self) -> bool:
        """Whether what is not decoded is larger than it may be, and not damaged."""
        return False

    def takes(self, packet: av.Packet) -> bool:
        """Whether the next packet is to be decoded."""
        return not self.given_up

    def broken(self, why: str) -> None:
        """The packet that was taken last could not be decoded."""
        self.damaged, self.why = True, why
        self._lost += 1

    def good(self, frame: av.VideoFrame | av.AudioFrame) -> bool:
        """Whether a decoded frame is what was sent."""
        raise NotImplementedError


class SoundTrack(Track):
    """A packet stands for itself, up to what the codec keeps from the one before it."""

    def __init__(self, stream: av.VideoStream | av.AudioStream, most: int) -> None:
        super().__init__(stream, most)
        self._kind = (0, 0)
        self._other = (0, 0)
        self._count = 0

    def good(self, frame: av.VideoFrame | av.AudioFrame) -> bool:
        """False for one frame alone of another rate or other channels: its header is damaged."""
        assert isinstance(frame, av.AudioFrame)
        kind = frame.sample_rate, frame.layout.nb_channels
        if kind != self._kind and self._count >= _SETTLED and kind != self._other:
            self._other = kind
            self.broken(f"a frame of {kind[0]} Hz and {kind[1]} channels")
            return False
        self._count = self._count + 1 if kind == self._kind else 1
        self._kind, self._other = kind, kind
        self.damaged, self._lost = False, 0
        return True


class VideoTrack(Track):
    """A picture hangs on those before it, back to a key frame.

    Decoding begins with a key frame. After damage nothing is decoded before the next one. Pictures that a decoder
    mends by itself are damage too, and so are those that are shown before the key frame with which it began again.
    """

    def __init__(self, stream: av.VideoStream | av.AudioStream, most: int) -> None:
        super().__init__(stream, most)
        self._waiting = True
        self._number = 0  # of the newest packet, in the order in which they are decoded
        self._numbers: dict[int, int] = {}  # of packets that wait to be shown, by their time
        self._bad_from: int | None = None
        self._good_from = 0
        self._good_pts: int | None = None
        self._sizeless = 0  # key frames in a row that left the decoder without a size

    @property
    def refused(self) -> bool:
        """Whether what is not decoded is larger than it may be, and not damaged."""
        return self._sizeless > 1

    def takes(self, packet: av.Packet) -> bool:
        """Whether the next packet is to be decoded."""
        self._number += 1
        if self.given_up:
            return False
        if packet.is_corrupt:
            self._break(self._number, "a packet with a gap")
        elif self._waiting and packet.is_keyframe:
            self._waiting = False
            self._good_from, self._good_pts = self._number, packet.pts
        if self._waiting:
            self._lost += self.damaged
            return False
        if packet.pts is not None:
            self._numbers[packet.pts] = self._number
            if len(self._numbers) > _MOST_REORDERED:
                del self._numbers[next(iter(self._numbers))]
        return True

    def broken(self, why: str) -> None:
        """The packet that was taken last could not be decoded."""
        if self._good_from == self._number:  # it was a key frame
            assert isinstance(self.stream, av.VideoStream)
            self._sizeless = 0 if self.stream.codec_context.width else self._sizeless + 1
        self._break(self._number, why)
        self._lost += 1

    def good(self, frame: av.VideoFrame | av.AudioFrame) -> bool:
        """False for a picture that is mended, hangs on a damaged one, or is shown before the first key frame."""
        number = self._number if frame.pts is None else self._numbers.pop(frame.pts, self._number)
        if frame.is_corrupt and number >= self._good_from:
            self._break(number, "a picture with missing parts")
        began = self._good_from
        if self._bad_from is not None and self._bad_from <= number and (number < began or self._bad_from >= began):
            return False
        shown, first = frame.pts, self._good_pts
        if number >= began and shown is not None and first is not None and shown < first:
            return False
        if number >= began and not self._waiting:
            self.damaged, self._lost = False, 0
        return not frame.is_corrupt

    def _break(self, number: int, why: str) -> None:
        self.damaged, self.why, self._waiting = True, why, True
        if self._bad_from is None or self._bad_from < self._good_from:
            self._bad_from = number


def memory_is_short(failure: BaseException) -> bool:
    """Whether an error means that this process may take no more memory. FFmpeg gives the same for absurd sizes."""
    if not isinstance(failure, FFmpegError):
        return isinstance(failure, MemoryError)
    if not isinstance(failure, MemoryError):
        return False
    try:
        mmap.mmap(-1, _ROOM_BYTES).close()
    except OSError:
        return True
    return False


def why(failure: BaseException) -> str:
    """An error's reason in words."""
    if isinstance(failure, FFmpegError):
        return failure.strerror or str(failure)
    return f"{type(failure).__name__}: {failure}"
