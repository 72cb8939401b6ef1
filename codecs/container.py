"""Encoded video and sound files to frames. Comes in: bytes of one file in any cuts; goes out: Pixels and Samples.

Knows PyAV and the limits; knows neither sampling rates of models nor what a stream does with the frames. Only the
formats named in `sniff.OPENED` are opened, each by its own demuxer, and no file can make it open another one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from . import avframe
from .errors import DamagedError, FormatError, InputError, LimitError
from .frame import Frame, Pixels, Samples
from .limits import DEFAULT_LIMITS, MediaLimits
from .sniff import OPENED, Intake

CODECS = {
    "video": ("vp8", "vp9", "av1", "libdav1d", "h264", "hevc"),
    "audio": ("opus", "libopus", "vorbis", "aac", "mp3", "mp3float", "flac", "pcm_*"),
}
_PCM = ("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le")
_DECODERS = tuple(name for names in CODECS.values() for name in names if name != "pcm_*") + _PCM
_DEMUXERS = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpegts,wav,ogg,aac,mp3,flac"
_READ_BYTES = 1 << 20
_MOST_US = 1 << 53  # a time that is further away is damage


class MediaDecoder:
    """Decodes one encoded file that arrives in pieces.

    `feed` gives the frames that the bytes so far allow: any cuts of a file give the same frames in the same order. The
    first video frame comes soon: FFmpeg's probing is kept to the first packets, none of which is lost. Of each kind in
    `kinds` ("video", "audio") the first track is decoded, video from its first key frame on; covers, subtitles and
    other tracks are passed over.

    Times are those of the container, in microseconds, plus `pts_us`; those of MPEG-TS, whose clock starts anywhere,
    count from its start. A variable frame rate stays. Video is turned as its display matrix says.

    Demuxing and decoding run in one thread of the decoder's own, which runs only while a call waits for it. Calls come
    from one thread at a time; `close` may come from any. There is nothing to cancel but by `close`.

    Errors, raised by `feed` and `flush`: FormatError (not a format or codec that is opened), LimitError, DamagedError
    (a broken part, unless it is the end that is missing), InputError (a call after `flush` or `close`). Frames that
    were decoded before the broken part are given first; the error comes with the next call, and with every later one.
    Damage that FFmpeg's demuxer passes over by itself (Matroska, MPEG-TS, Ogg look for the next whole part) is a gap.
    """

    def __init__(
        self, limits: MediaLimits = DEFAULT_LIMITS, kinds: Iterable[str] = ("video", "audio"), pts_us: int = 0
    ) -> None:
        self._limits = limits
        self._intake = Intake(limits)
        self._bytes = 0
        self._feed = _Feed(limits.max_decoded_bytes)
        self._tracks = _Tracks(limits, tuple(kinds), pts_us, self._feed)
        self._thread: threading.Thread | None = None
        self._finished = False

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take the next bytes; give the frames that they complete."""
        self._check_open()
        self._bytes += len(data)
        if self._bytes > self._limits.max_stream_bytes:
            raise LimitError(f"media: expected at most {self._limits.max_stream_bytes} bytes, got {self._bytes}")
        return self._run(self._intake.feed(bytes(data)), final=False)

    def flush(self) -> list[Frame]:
        """End the file; give the frames that are left. A file that is cut short gives what it has.

        DamagedError where not one frame could be decoded from all the bytes.
        """
        self._check_open()
        frames = self._run(self._intake.finish(), final=True)
        self._finished = True
        if not self._tracks.frames:
            raise DamagedError(f"media: expected at least one frame, got none in {self._bytes} bytes")
        return frames

    def close(self) -> None:
        """End the decoder and its thread; idempotent. A call that waits in another thread ends with InputError."""
        self._finished = True
        self._feed.close()
        if self._thread is not None:
            self._thread.join(self._limits.decode_seconds)

    def _check_open(self) -> None:
        if self._feed.error is not None:
            raise self._feed.error
        if self._finished:
            raise InputError("media: expected no call after the end of the file, got one more")

    def _run(self, data: bytes, final: bool) -> list[Frame]:
        if self._thread is None and self._intake.name is not None:
            name = f"penstock-decode-{self._intake.name}"
            self._thread = threading.Thread(target=self._tracks.run, args=(self._intake.name,), name=name, daemon=True)
            self._thread.start()
        if self._thread is None:
            return []
        frames = self._feed.push(data, final, self._limits.decode_seconds)
        if self._feed.error is not None and (final or not frames):
            raise self._feed.error
        return frames


class _Feed:
    """Bytes towards the decoding thread and frames back. The file-like object that FFmpeg reads; it cannot seek."""

    def __init__(self, max_decoded_bytes: int) -> None:
        self.error: BaseException | None = None
        self.ended = False  # the reader has been told that there are no more bytes
        self.closed = False
        self._data = b""
        self._at = 0
        self._final = False
        self._waiting = False
        self._done = False
        self._frames: list[Frame] = []
        self._frame_bytes = 0
        self._max_frame_bytes = max_decoded_bytes
        self._changed = threading.Condition()

    def read(self, size: int) -> bytes:
        """At most `size` of the bytes that are there; waits for the first one; b"" for ever after the end."""
        with self._changed:
            while self._at == len(self._data) and not self._final and not self.closed:
                self._waiting = True
                self._changed.notify_all()
                self._changed.wait()
            if self.closed or self._at == len(self._data):
                self.ended = True
                return b""
            piece = self._data[self._at : self._at + size]
            self._at += len(piece)
            return piece

    def push(self, data: bytes, final: bool, seconds: float) -> list[Frame]:
        """Hand `data` over and wait until the thread has used it up or has ended; give the frames decoded meanwhile."""
        with self._changed:
            if data or final:
                self._data, self._at, self._final = data, 0, final
                self._waiting = False
                self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._waiting or self._done or self.closed, seconds):
                self.error = LimitError(f"media: expected {len(data)} bytes to be decoded in {seconds} s, got no end")
                self.closed = True
            elif self.closed and self.error is None:
                self.error = InputError("media: expected an open decoder, got one that was closed meanwhile")
            frames, self._frames, self._frame_bytes = self._frames, [], 0
            return frames

    def put(self, frame: Frame) -> None:
        """Called by the decoding thread. LimitError where one call would give too many bytes of frames."""
        size = (frame.pixels if isinstance(frame, Pixels) else frame.samples).nbytes
        with self._changed:
            self._frame_bytes += size
            if self._frame_bytes > self._max_frame_bytes:
                raise LimitError(
                    f"media: expected at most {self._max_frame_bytes} decoded bytes from one call, got "
                    f"{self._frame_bytes}; feed smaller pieces"
                )
            self._frames.append(frame)

    def end(self, error: BaseException | None) -> None:
        """Called by the decoding thread, last."""
        with self._changed:
            self.error = self.error or error
            self._done = True
            self._changed.notify_all()

    def close(self) -> None:
        """Give up: reads end, waiting calls return."""
        with self._changed:
            self.closed = True
            self._frames = []
            self._changed.notify_all()


class _Tracks:
    """The tracks of one container that are decoded; runs in the decoding thread."""

    def __init__(self, limits: MediaLimits, kinds: tuple[str, ...], pts_us: int, feed: _Feed) -> None:
        self.frames = 0
        self._limits = limits
        self._kinds = kinds
        self._pts_us = pts_us
        self._feed = feed
        self._pictures = 0
        self._origin_us: int | None = None
        self._first_us: int | None = None
        self._keyed: set[int] = set()
        self._next_us: dict[int, int] = {}

    def run(self, demuxer: str) -> None:
        """Demux and decode until the bytes end; every outcome goes to the feed."""
        error: BaseException | None = None
        try:
            self._demux(demuxer)
        except FFmpegError as failure:
            error = (
                failure if isinstance(failure, MemoryError) else DamagedError(f"media ({demuxer}): {failure.strerror}")
            )
        except BaseException as failure:  # raised again in the caller's thread
            error = failure
        self._feed.end(error)

    def _demux(self, demuxer: str) -> None:
        try:
            container = av.open(
                self._feed,
                mode="r",
                format=demuxer,
                options={
                    "probesize": "2048",
                    "analyzeduration": "0",
                    "format_whitelist": _DEMUXERS,
                    "codec_whitelist": ",".join(_DECODERS),
                    "protocol_whitelist": "none",
                },
                metadata_errors="replace",
                buffer_size=_READ_BYTES if demuxer == "mov" else 32768,
                io_open=_refuse,
            )
        except FFmpegError as failure:
            if self._feed.ended:
                raise DamagedError(f"media ({demuxer}): expected a whole header, got the end of the file") from failure
            raise
        with container:
            streams = self._choose(container)
            chosen = {stream.index: stream for stream in streams}
            packets = container.demux(streams)
            while not self._feed.closed:
                try:
                    packet = next(packets, None)
                except FFmpegError:
                    if not self._feed.ended:
                        raise
                    packet = None
                if packet is None:
                    break
                if demuxer == "mpegts" and self._origin_us is None and packet.pts is not None:
                    first_us = _microseconds(packet.pts, packet.time_base)
                    self._origin_us = min(first_us, first_us if container.start_time is None else container.start_time)
                if packet.size and self._begun(packet):
                    self._decode(chosen[packet.stream_index], packet)
            for stream in streams:
                self._decode(stream, None)

    def _choose(self, container: InputContainer) -> list[av.VideoStream | av.AudioStream]:
        """The first track of each wanted kind, checked against codecs and limits before anything is decoded."""
        chosen = []
        for kind in self._kinds:
            tracks = container.streams.video if kind == "video" else container.streams.audio
            for stream in tracks:
                if not stream.disposition & Disposition.attached_pic:
                    self._check_stream(stream, kind)
                    chosen.append(stream)
                    break
        if not chosen:
            if not len(container.streams):
                raise DamagedError(f"media: expected {' or '.join(self._kinds)}, got no track in what there is")
            have = ", ".join(sorted({stream.type for stream in container.streams}))
            raise FormatError(f"media: expected {' or '.join(self._kinds)} in {OPENED}, got {have}")
        return chosen

    def _check_stream(self, stream: av.VideoStream | av.AudioStream, kind: str) -> None:
        context = stream.codec_context
        name = context.name if context is not None else "no known codec"
        if name not in _DECODERS:
            raise FormatError(f"{kind} codec: expected one of {', '.join(CODECS[kind])}, got {name}")
        context.thread_count = 1
        if isinstance(stream, av.VideoStream):
            self._limits.check_size(stream.codec_context.width, stream.codec_context.height, "video")
            context.options = {"max_pixels": str(min(2 * self._limits.max_pixels + 65536, 2**31 - 1))}
        elif stream.codec_context.sample_rate:
            self._limits.check_sound(stream.codec_context.sample_rate, stream.codec_context.channels or 1, "sound")

    def _begun(self, packet: av.Packet) -> bool:
        """Whether a track may be decoded yet: video begins with a key frame, also where a stream is joined late."""
        if packet.is_keyframe or packet.stream.type != "video":
            self._keyed.add(packet.stream_index)
        return packet.stream_index in self._keyed

    def _decode(self, stream: av.VideoStream | av.AudioStream, packet: av.Packet | None) -> None:
        try:
            decoded = stream.decode(packet)
        except MemoryError:
            raise
        except FFmpegError as failure:
            if self._feed.ended:
                return  # what is broken is the missing end
            larger = f", or more than {self._limits.max_pixels} pixels" if stream.type == "video" else ""
            raise DamagedError(f"{stream.type} after {self.frames} frames: {failure.strerror}{larger}") from failure
        for frame in decoded:
            if self._feed.closed:
                return
            self._put(frame, stream.index)

    def _put(self, frame: av.VideoFrame | av.AudioFrame, track: int) -> None:
        pts_us = self._time(frame, track)
        if isinstance(frame, av.VideoFrame):
            self._limits.check_size(frame.width, frame.height, "video")
            self._pictures += 1
            if self._pictures > self._limits.max_frames:
                raise LimitError(f"video: expected at most {self._limits.max_frames} frames, got {self._pictures}")
            self._feed.put(Pixels(pixels=avframe.pixels(frame), pts_us=pts_us + self._pts_us))
        else:
            self._limits.check_sound(frame.sample_rate, frame.layout.nb_channels, "sound")
            array = avframe.samples(frame)
            self._feed.put(Samples(samples=array, rate=frame.sample_rate, pts_us=pts_us + self._pts_us))
        self.frames += 1

    def _time(self, frame: av.VideoFrame | av.AudioFrame, track: int) -> int:
        """The frame's time in microseconds; where the container gives none, that at which the last one ended."""
        if frame.pts is None or frame.time_base is None:
            pts_us = self._next_us.get(track, 0)
        else:
            pts_us = _microseconds(frame.pts, frame.time_base) - (self._origin_us or 0)
        length_us = 0
        if isinstance(frame, av.AudioFrame):
            length_us = frame.samples * 1_000_000 // max(frame.sample_rate, 1)
        elif frame.duration and frame.time_base is not None:
            length_us = _microseconds(frame.duration, frame.time_base)
        if abs(pts_us) > _MOST_US:
            raise DamagedError(f"media: expected times of at most {_MOST_US} us, got {pts_us}")
        self._next_us[track] = pts_us + length_us
        if self._first_us is None:
            self._first_us = pts_us
        if pts_us + length_us - self._first_us > self._limits.max_duration_us:
            raise LimitError(
                f"media: expected at most {self._limits.max_duration_us / 1e6:g} s, "
                f"got {(pts_us + length_us - self._first_us) / 1e6:g} s"
            )
        return pts_us


def _microseconds(ticks: int, time_base: Fraction) -> int:
    return round(ticks * time_base * 1_000_000)


def _refuse(url: str, flags: int, options: dict[str, str]) -> object:
    raise FormatError("media: expected a file that stands alone, got one that points at another")
