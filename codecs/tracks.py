"""The decoding thread: parts of a source to frames. Comes in: what FFmpeg reads; goes out: frames and losses.

Knows PyAV, the codecs that are opened and the limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition

from ..errors import DamagedError, FormatError, LimitError, PenstockError
from . import avframe
from .clock import ContainerClock, Unwrapped, beside
from .damage import SoundTrack, Track, VideoTrack, memory_is_short, why
from .feeding import Feeder, FilePart
from .frame import Lost, Pixels, Samples
from .limits import MediaLimits
from .pcm import bad_samples, check_samples
from .sniff import OPENED

CODECS = {
    "video": ("vp8", "vp9", "av1", "libdav1d", "h264", "hevc"),
    "audio": ("opus", "libopus", "vorbis", "aac", "mp3", "mp3float", "flac", "pcm_*"),
}
_PCM = ("pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le")
_DECODERS = tuple(name for names in CODECS.values() for name in names if name != "pcm_*") + _PCM
_DEMUXERS = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpegts,wav,ogg,aac,mp3,flac"
_OPTIONS = {
    "probesize": "2048",
    "analyzeduration": "0",
    "format_whitelist": _DEMUXERS,
    "codec_whitelist": ",".join(_DECODERS),
    "protocol_whitelist": "none",
    "correct_ts_overflow": "0",
}
_OWN_CLOCK = ("wav", "ogg", "mp3", "aac", "flac")  # each file of these counts from its own start
_READ_BYTES = 1 << 20
_MOST_US = 1 << 53  # a time that is further away is damage
_ROUNDING_US = 5_000
_MOST_FAULTS = 32  # errors of a demuxer in a row


class TrackDecoder:
    """The first track of each of `kinds`, through all parts; `run` is the thread's life."""

    def __init__(self, limits: MediaLimits, kinds: tuple[str, ...], pts_us: int, feed: Feeder) -> None:
        self.frames = 0
        self._limits = limits
        self._kinds = kinds
        self._pts_us = pts_us
        self._feed = feed
        self._clock = ContainerClock()
        self._unwrapped = Unwrapped()
        self._times = _Times(self._clock, self._unwrapped, "", None)
        self._pictures = 0
        self._samples = 0
        self._unwanted: FormatError | None = None
        self._missed: dict[str, int] = {}  # packets and frames that were not given, of each kind
        self._given: set[str] = set()  # kinds of which a frame was given
        self._torn: set[str] = set()  # kinds of which something is missing in front of the next packet
        self._first_us: int | None = None
        self._next_us: dict[str, int] = {}  # where the newest frame or lost packet of each track ends

    def run(self) -> None:
        """Demux and decode until the bytes end; every outcome goes to the feed."""
        error: BaseException | None = None
        try:
            self._run()
        except BaseException as failure:  # raised again in the caller's thread
            error = failure
        self._feed.end(error)

    def _run(self) -> None:
        failed: tuple[str, Exception] | None = None
        faults = 0
        for part in self._feed.parts():
            before = self.frames
            try:
                self._part(part)
                failed = None
            except PenstockError:
                raise
            except Exception as failure:
                if memory_is_short(failure):
                    raise
                failed = part.demuxer, failure
                faults = 0 if self.frames > before else faults + 1
                if faults == _MOST_FAULTS or part.demuxer != "mov":
                    break
                self._feed.anew()
        if failed is not None:
            raise DamagedError(f"media ({failed[0]}): {why(failed[1])}") from failed[1]
        if self._unwanted is not None and not self.frames:
            raise self._unwanted
        for kind, count in self._missed.items():
            if count and kind not in self._given:
                raise DamagedError(
                    f"{kind}: expected at least one frame, got none in {count} packets that are damaged or stand "
                    "before a key frame"
                )

    def _part(self, part: FilePart) -> None:
        demuxer = part.demuxer
        try:
            container = av.open(
                part.source,
                mode="r",
                format=demuxer,
                options={**_OPTIONS, **({"ignore_length": "1"} if demuxer == "wav" else {})},
                metadata_errors="replace",
                buffer_size=_READ_BYTES if demuxer == "mov" else 32768,
                io_open=_refuse,
            )
        except FFmpegError as failure:
            if self._feed.ended and not isinstance(failure, MemoryError):
                raise DamagedError(f"media ({demuxer}): expected a whole header, got the end of the file") from failure
            raise
        with container:
            tracks = self._choose(container, demuxer)
            if not tracks:
                return
            self._times = _Times(self._clock, self._unwrapped, demuxer, container.start_time)
            try:
                for packet in self._packets(container, tracks):
                    self._take(packet, tracks, demuxer)
            finally:
                for track in tracks.values():
                    self._decode(track, None)

    def _take(self, packet: av.Packet, tracks: dict[int, Track], demuxer: str) -> None:
        track = tracks[packet.stream_index]
        if self._feed.torn:
            self._feed.torn, self._torn = False, {track.stream.type for track in tracks.values()}
        if self._times.mend(packet, track.stream.type, self._latest_us()):
            self._tell_gap(track, packet, gapless=demuxer == "mpegts")
            self._decode(track, packet)
        elif demuxer == "mov":
            raise ValueError(f"expected times that go on, got {packet.dts}")  # its demuxer sorts by them
        else:
            track.broken("a time that cannot be")
            self._torn.add(track.stream.type)
        if all(track.given_up for track in tracks.values()):
            raise DamagedError(
                f"media: expected at most {self._limits.max_damaged_packets} damaged packets in a row, got more in "
                f"{' and in '.join(track.stream.type for track in tracks.values())}: {track.why}"
            )

    def _packets(self, container: InputContainer, tracks: dict[int, Track]) -> Iterator[av.Packet]:
        """The packets of the tracks, also after what the demuxer stumbles over."""
        faults = 0
        while True:
            try:
                for packet in container.demux([track.stream for track in tracks.values()]):
                    if self._feed.closed or (not packet.size and packet.dts is None):  # PyAV's own, at the end
                        return
                    faults = 0
                    if packet.size:
                        yield packet
                return
            except FFmpegError as failure:
                if self._feed.ended and not isinstance(failure, MemoryError):
                    return  # what is broken is the missing end
                if isinstance(failure, MemoryError):
                    raise
                faults += 1
                if faults == _MOST_FAULTS:
                    raise
                self._feed.torn = True

    def _choose(self, container: InputContainer, demuxer: str) -> dict[int, Track]:
        """The first track of each wanted kind, checked against codecs and limits before anything is decoded."""
        chosen: dict[int, Track] = {}
        for kind in self._kinds:
            tracks = container.streams.video if kind == "video" else container.streams.audio
            for stream in tracks:
                if not stream.disposition & Disposition.attached_pic:
                    self._check_stream(stream, kind)
                    make = VideoTrack if kind == "video" else SoundTrack
                    chosen[stream.index] = make(stream, self._limits.max_damaged_packets)
                    chosen[stream.index].damaged = kind in self._given  # what a further part leaves out is missing
                    break
        if not chosen:
            if not len(container.streams):
                raise DamagedError(f"media: expected {' or '.join(self._kinds)}, got no track in what there is")
            have = ", ".join(sorted({stream.type for stream in container.streams}))
            self._unwanted = FormatError(f"media: expected {' or '.join(self._kinds)} in {OPENED}, got {have}")
            if demuxer != "mpegts":  # there, another part may bring the track
                raise self._unwanted
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

    def _decode(self, track: Track, packet: av.Packet | None) -> None:
        """Decode a packet, or what is left; what cannot be decoded is reported as lost."""
        if packet is not None and not track.takes(packet):
            self._lose(track, packet)
            return
        try:
            decoded = track.stream.decode(packet)
        except Exception as failure:
            if memory_is_short(failure):
                raise
            if packet is not None and not self._feed.ended:  # else what is broken is the missing end
                track.broken(why(failure))
                self._lose(track, packet)
            if track.refused:
                raise LimitError(f"video: expected at most {self._limits.max_pixels} pixels, got more") from failure
            return
        for frame in decoded:
            if self._feed.closed:
                return
            if not track.good(frame) or not self._put(frame, track):
                self._lose(track, frame)

    def _put(self, frame: av.VideoFrame | av.AudioFrame, track: Track) -> bool:
        """Give a frame; False where it holds no sound that can be."""
        kind = track.stream.type
        if isinstance(frame, av.VideoFrame):
            pts_us = self._time(frame, track)
            assert isinstance(track.stream, av.VideoStream)
            aspect = track.stream.sample_aspect_ratio or track.stream.codec_context.sample_aspect_ratio
            self._limits.check_size(*avframe.square_size(frame, aspect), "video")
            self._pictures += 1
            if self._pictures > self._limits.max_frames:
                raise LimitError(f"video: expected at most {self._limits.max_frames} frames, got {self._pictures}")
            self._feed.put(Pixels(pixels=avframe.pixels(frame, aspect), pts_us=pts_us + self._pts_us))
        else:
            self._limits.check_sound(frame.sample_rate, frame.layout.nb_channels, "sound")
            array = avframe.samples(frame)
            if track.stream.codec_context.name.startswith("pcm"):
                check_samples(array, frame.sample_rate, kind, first=self._samples)
            elif bad_samples(array).any():
                track.broken("samples that are no sound")
                return False
            pts_us = self._time(frame, track)
            self._samples += array.shape[1]
            self._feed.put(Samples(samples=array, rate=frame.sample_rate, pts_us=pts_us + self._pts_us))
        self.frames += 1
        self._given.add(kind)
        return True

    def _lose(self, track: Track, what: av.Packet | av.VideoFrame | av.AudioFrame) -> None:
        """Tell a packet or a frame as lost, unless it is what a late join leaves out."""
        kind = track.stream.type
        self._missed[kind] = self._missed.get(kind, 0) + 1
        if track.damaged:
            start_us = self._time(what, track) + self._pts_us
            self._feed.lose(Lost(kind, 1, start_us, self._next_us[kind] + self._pts_us))

    def _latest_us(self) -> int:
        """The latest time that may come."""
        return (self._first_us or 0) + self._limits.max_duration_us

    def _tell_gap(self, track: Track, packet: av.Packet, gapless: bool) -> None:
        """Tell what is missing in front of a packet, where something was torn out; `gapless`: if times show it."""
        kind, start_us = track.stream.type, self._next_us.get(track.stream.type)
        if kind not in self._torn:
            return
        if not gapless:  # else it is only known that packets are missing, and not where
            self._torn.discard(kind)
        track.damaged = track.damaged or not gapless
        if gapless and (start_us is None or kind == "video"):  # those packets are marked by the demuxer
            return
        stop_us = self._time(packet, track)
        start_us = stop_us if start_us is None else start_us
        stop_us = max(stop_us, start_us)
        self._next_us[kind] = stop_us
        if not gapless or stop_us - start_us > _ROUNDING_US:
            self._feed.lose(Lost(kind, 1, start_us + self._pts_us, stop_us + self._pts_us))

    def _time(self, what: av.Packet | av.VideoFrame | av.AudioFrame, track: Track) -> int:
        """The time in microseconds; where the container gives none, that at which the last frame ended."""
        kind, base = track.stream.type, what.time_base or track.stream.time_base
        if what.pts is None or base is None:
            pts_us = self._next_us.get(kind, 0)
        else:
            pts_us = _microseconds(what.pts, base) + self._times.shift_us
        length_us = 0
        if isinstance(what, av.AudioFrame):
            length_us = what.samples * 1_000_000 // max(what.sample_rate, 1)
        elif what.duration and base is not None:
            length_us = _microseconds(what.duration, base)
        if abs(pts_us) > _MOST_US:
            raise DamagedError(f"media: expected times of at most {_MOST_US} us, got {pts_us}")
        self._next_us[kind] = pts_us + length_us
        if self._first_us is None:
            self._first_us = pts_us
        if pts_us + length_us - self._first_us > self._limits.max_duration_us:
            raise LimitError(
                f"media: expected at most {self._limits.max_duration_us / 1e6:g} s, "
                f"got {(pts_us + length_us - self._first_us) / 1e6:g} s"
            )
        return pts_us


class _Times:
    """The times of the packets of one part, on the line of all parts. `shift_us` is added to those of its frames."""

    def __init__(self, clock: ContainerClock, unwrapped: Unwrapped, demuxer: str, start_us: int | None) -> None:
        self.shift_us = 0
        self._clock = clock
        self._unwrapped = unwrapped if demuxer == "mpegts" else None
        clock.begin(start_us, always=demuxer in _OWN_CLOCK, from_zero=demuxer == "mpegts")

    def mend(self, packet: av.Packet, track: str, latest_us: int) -> bool:
        """Find the packet's place. False where that is beyond `latest_us`, and an hour behind the packet before it.

        Times of MPEG-TS are put right in the packet itself: they may jump in a part.
        """
        pts, dts, base = packet.pts, packet.dts, packet.time_base
        stated = pts if dts is None else dts
        if stated is None:
            return True
        if abs(stated) * base * 1_000_000 > _MOST_US:
            return False
        decoded = stated if self._unwrapped is None else self._unwrapped.ticks(track, stated)
        shown = decoded if pts is None else pts if self._unwrapped is None else beside(pts, decoded)
        decoded_us, shown_us = _microseconds(decoded, base), _microseconds(shown, base)
        if self._unwrapped is None and self._clock.leaps(decoded_us, latest_us):
            return False
        shift_us = self._clock.shift(track, decoded_us, shown_us, restarts=self._unwrapped is not None)
        self._clock.reach(shown_us + _microseconds(packet.duration or 0, base) + shift_us)
        if self._unwrapped is None:
            self.shift_us = shift_us
        else:
            shift = round(shift_us / base / 1_000_000)
            packet.pts, packet.dts = shown + shift, decoded + shift
        return True


def _microseconds(ticks: int, time_base: Fraction) -> int:
    return round(ticks * time_base * 1_000_000)


def _refuse(url: str, flags: int, options: dict[str, str]) -> object:
    raise FormatError("media: expected a file that stands alone, got one that points at another")
