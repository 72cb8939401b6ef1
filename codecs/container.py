"""Encoded video and sound files to frames. Comes in: bytes in any cuts; goes out: Pixels and Samples.

Knows the limits and the thread that decodes; knows neither sampling rates of models nor what a stream does with the
frames. Only the formats named in `sniff.OPENED` are opened, each by its own demuxer, and no file can make it open
another one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..errors import DamagedError, InputError, LimitError, MediaError
from .feeding import Decoded, Feeder
from .limits import DEFAULT_LIMITS, MediaLimits
from .parts import Parts
from .reading import Reading
from .tracks import CODECS, TrackDecoder

__all__ = ["CODECS", "MediaDecoder"]


class MediaDecoder(Reading):
    """Decodes one encoded source that arrives in pieces: a file, or files of one format in a row.

    `read`, `feed` and `flush` give the frames that the bytes so far allow: any cuts of a file give the same frames in
    the same order. The first video frame comes soon: FFmpeg's probing is kept to the first packets, none of which is
    lost. Of each kind in `kinds` ("video", "audio") the first track is decoded, video from its first key frame on;
    covers, subtitles and other tracks are passed over. MPEG-TS, MP3 and AAC may be joined anywhere.

    Times are those of the container, in microseconds, plus `pts_us`; those of MPEG-TS, whose clock starts anywhere,
    count from its start. Where a file or a clock begins again, times go on after what was there. A variable frame rate
    stays. Video is turned as its display matrix says, its pixels are made square; see avframe.py for colours.

    Damage costs the packets that it hits, and of video those up to the next key frame: `lost` tells them. A track that
    loses `max_damaged_packets` in a row is given up.

    Demuxing and decoding run in one thread of the decoder's own, which runs only while a call waits for it. Calls come
    from one thread at a time; `close` may come from any. There is nothing to cancel but by `close`.

    Errors: FormatError (not a format or codec that is opened), LimitError, DamagedError (damage beyond single packets,
    except a missing end; no track that is left; a track without one frame), InputError (a call after the end or
    `close`). Frames that were decoded before the broken part are given first. An error stays: every later call raises
    it too.
    """

    def __init__(
        self, limits: MediaLimits = DEFAULT_LIMITS, kinds: Iterable[str] = ("video", "audio"), pts_us: int = 0
    ) -> None:
        super().__init__(limits.max_decoded_bytes)
        self._limits = limits
        self._parts = Parts(limits)
        self._bytes = 0
        self._feed = Feeder(limits.max_decoded_bytes)
        self._tracks = TrackDecoder(limits, tuple(kinds), pts_us, self._feed)
        self._thread: threading.Thread | None = None
        self._final = False
        self._finished = False
        self._error: MediaError | None = None  # of the bytes, to be raised after the frames in front of it

    def close(self) -> None:
        """End the decoder and its thread; idempotent. A call that waits in another thread ends with InputError."""
        self._finished = True
        self._parts = Parts(self._limits)  # lets go of what waits there
        self._feed.close()
        if self._thread is not None:
            self._thread.join(self._limits.decode_seconds)

    def begin(self, data: bytes | bytearray | memoryview, final: bool) -> Decoded:
        self._check_open()
        self._bytes += len(data)
        pieces = []
        try:
            if self._bytes > self._limits.max_stream_bytes:
                raise LimitError(f"media: expected at most {self._limits.max_stream_bytes} bytes, got {self._bytes}")
            if len(data):
                pieces += self._parts.feed(bytes(data))
            if final:
                pieces += self._parts.finish()
        except MediaError as error:
            self._error = error
        self._final = final
        if self._thread is None and pieces:
            name = f"penstock-decode-{self._parts.name}"
            self._thread = threading.Thread(target=self._tracks.run, name=name, daemon=True)
            self._thread.start()
        self._feed.push(pieces, final or self._error is not None)
        return self.further()

    def further(self) -> Decoded:
        batch = Decoded([], [], False) if self._thread is None else self._feed.wait(self._limits.decode_seconds)
        if batch.more:
            return batch
        error = self._feed.error or self._error
        if error is None and self._final:
            self._finished = True
            if not self._tracks.frames:
                error = DamagedError(f"media: expected at least one frame, got none in {self._bytes} bytes")
        if error is None:
            return batch
        self._feed.error = error
        if batch.frames or batch.lost:
            return batch._replace(more=True)  # the error comes with the next batch
        raise error

    def _check_open(self) -> None:
        if self._feed.error is not None:
            raise self._feed.error
        if self._finished:
            raise InputError("media: expected no call after the end of the file, got one more")
