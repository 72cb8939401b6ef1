"""How large media from a client may be. Comes in: numbers; goes out: errors with numbers. Knows no decoder."""

from __future__ import annotations

import msgspec

from ..errors import LimitError


class MediaLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what one client may send.

    Each is checked before the work it bounds, where the bytes show the size early enough.

    max_bytes: of one picture file, or of one call with raw pixels or samples.
    max_stream_bytes: of one encoded video or sound, all its pieces together.
    max_pixels: width times height of one picture or frame.
    max_side: width and height, each.
    max_frames: video frames of one encoded video.
    max_duration_us: media time from the first to the last frame or sample of one encoded video or sound.
    min_rate, max_rate: samples a second.
    max_channels: channels of a sound.
    max_decoded_bytes: decoded frames that one call of a decoder may give; larger files go in as smaller pieces.
    max_index_behind_bytes: of an MP4 whose index stands after its media data; it is held until the index is there.
    max_waiting_bytes: of all such files that one process decodes, as long as they wait.
    max_lookback_bytes: of frames and sound that one stream keeps undecoded, to look back at (`Request.lookback`).
    max_lookback_total_bytes: of the same for all streams of one engine; what a copy shares with its stream counts once.
    max_damaged_packets: packets in a row that one track may lose to damage, before the track is given up.
    decode_seconds: wall clock of one call of a decoder. It bounds the caller's wait; native code that runs on is only
        ended by a worker process (worker.py).
    """

    max_bytes: int = 32 << 20
    max_stream_bytes: int = 2 << 30
    max_pixels: int = 7680 * 4320
    max_side: int = 16384
    max_frames: int = 1_000_000
    max_duration_us: int = 6 * 3600 * 1_000_000
    min_rate: int = 1000
    max_rate: int = 384_000
    max_channels: int = 8
    max_decoded_bytes: int = 1 << 30
    max_index_behind_bytes: int = 256 << 20
    max_waiting_bytes: int = 512 << 20
    max_lookback_bytes: int = 64 << 20
    max_lookback_total_bytes: int = 1 << 30
    max_damaged_packets: int = 1000
    decode_seconds: float = 20.0

    def check_bytes(self, size: int, what: str) -> None:
        """Raise LimitError where `size` bytes of `what` are more than `max_bytes`."""
        if size > self.max_bytes:
            raise LimitError(f"{what}: expected at most {self.max_bytes} bytes, got {size}")

    def check_size(self, width: int, height: int, what: str) -> None:
        """Raise LimitError where a picture of `width` x `height` has too many pixels or too long a side."""
        if width * height > self.max_pixels:
            raise LimitError(
                f"{what}: expected at most {self.max_pixels} pixels, got {width * height} ({width} x {height})"
            )
        if max(width, height) > self.max_side:
            raise LimitError(f"{what}: expected sides of at most {self.max_side} pixels, got {width} x {height}")

    def check_sound(self, rate: int, channels: int, what: str) -> None:
        """Raise LimitError where a sound's rate (Hz) or number of channels is out of bounds."""
        if not self.min_rate <= rate <= self.max_rate:
            raise LimitError(f"{what}: expected a rate of {self.min_rate} to {self.max_rate} Hz, got {rate}")
        if not 1 <= channels <= self.max_channels:
            raise LimitError(f"{what}: expected 1 to {self.max_channels} channels, got {channels}")


DEFAULT_LIMITS = MediaLimits()
