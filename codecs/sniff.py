"""Which container encoded bytes are in, told from their first bytes alone. Knows the formats' marks; opens nothing.

Comes in: the bytes of one file in arbitrary cuts. Goes out: the name of the one demuxer that may read them, and the
bytes in cuts which that demuxer can take. Leading ID3 tags are dropped.
"""

from __future__ import annotations

from .errors import DamagedError, FormatError, LimitError, MediaError
from .limits import MediaLimits

OPENED = "WebM or Matroska, MP4, MPEG-TS, WAV, Ogg, AAC (ADTS), MP3, FLAC"
SOUND = ("wav", "ogg", "flac", "aac", "mp3")  # demuxers of files that hold sound alone
_EBML_HEADER_BYTES = 1024
_MP3_FIRST_BYTES = 4096
_MARK_BYTES = 12
_WAV_BYTES = 28
_BOX_BYTES = 64 << 20
_DATA_BOXES = (b"mdat", b"free", b"skip", b"wide")
_HEADER_BOXES = tuple(b"ftyp styp moov moof sidx ssix mfra emsg prft uuid meta pdin udta".split())


class Intake:
    """The front door of one encoded file: `name` is FFmpeg's name of its demuxer, None until it is known."""

    def __init__(self, limits: MediaLimits) -> None:
        self.name: str | None = None
        self._limits = limits
        self._held = bytearray()
        self._skip = 0
        self._started = False
        self._boxes = _Boxes()

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; give those that the demuxer may read now. FormatError where the format is not opened."""
        self._held += data
        if self.name is None:
            self._drop_tag()
            self.name = sniff(self._held)
        if self.name is None:
            return b""
        if self.name == "mov":
            return self._take(self._boxes.whole(self._held))
        if self.name == "mp3" and not self._started and len(self._held) < _MP3_FIRST_BYTES:
            return b""  # its demuxer looks for the second frame's header within its first read
        if self.name == "wav" and not self._started:
            if len(self._held) < _WAV_BYTES:
                return b""
            self._check_wav()
        return self._take(len(self._held))

    def finish(self) -> bytes:
        """The bytes that were held back, without half boxes. DamagedError where the format is not known by the end."""
        if self.name is None:
            raise DamagedError(f"media: expected {OPENED}, got {len(self._held)} bytes {first_bytes(self._held)}")
        if self.name == "mov":
            return self._take(self._boxes.whole(self._held))
        return self._take(len(self._held))

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        self._started = self._started or size > 0
        return taken

    def _check_wav(self) -> None:
        """Rate and channels where the format chunk comes first; FFmpeg keeps the rate in 31 bits, the file in 32."""
        if self._held[12:16] == b"fmt ":
            channels, rate = int.from_bytes(self._held[22:24], "little"), int.from_bytes(self._held[24:28], "little")
            self._limits.check_sound(rate, channels, "sound")

    def _drop_tag(self) -> None:
        """Drop ID3v2 tags (id3.org, ID3v2.4 section 3.1: 10 bytes, then a size of four 7-bit bytes)."""
        while self._skip or (self._held[:3] == b"ID3" and len(self._held) >= 10):
            if not self._skip:
                size = 0
                for byte in self._held[6:10]:
                    size = size << 7 | byte & 0x7F
                self._skip = 10 + size + (10 if self._held[5] & 0x10 else 0)
            dropped = min(self._skip, len(self._held))
            del self._held[:dropped]
            self._skip -= dropped
            if not self._held:
                break


class _Boxes:
    """Walks the top-level boxes of an MP4 (ISO/IEC 14496-12, 4.2).

    FFmpeg's demuxer seeks back inside a header box, which a stream of short reads cannot do: all boxes but the media
    data are passed on whole.
    """

    def __init__(self) -> None:
        self._data_left = 0
        self._indexed = False

    def whole(self, held: bytearray) -> int:
        """How many of the `held` bytes may be passed on: whole boxes, and media data as it comes."""
        at = 0
        while True:
            step = min(self._data_left, len(held) - at)
            at += step
            self._data_left -= step
            if self._data_left or len(held) - at < 8:
                return at
            size, kind = int.from_bytes(held[at : at + 4], "big"), bytes(held[at + 4 : at + 8])
            if size == 1:
                if len(held) - at < 16:
                    return at
                size = int.from_bytes(held[at + 8 : at + 16], "big")
            elif size == 0:
                size = 1 << 62  # the last box: up to the end of the file
            error = self._check(kind, size)
            if error is not None:
                if at and self._indexed:
                    return at  # what comes before it is decoded first
                raise error
            if kind in _DATA_BOXES:
                self._data_left = size
            elif len(held) - at < size:
                return at
            else:
                self._indexed = self._indexed or kind == b"moov"
                at += size

    def _check(self, kind: bytes, size: int) -> MediaError | None:
        wrong = DamagedError if self._indexed else FormatError
        if kind not in _HEADER_BOXES + _DATA_BOXES:
            return wrong(f"MP4: expected a box of a known kind, got {kind!r}")
        if size < 8:
            return wrong(f"MP4: expected a box of at least 8 bytes, got one of {size} with the mark {kind!r}")
        if kind == b"mdat" and not self._indexed:
            return FormatError("MP4: expected its index (moov) in front of its media data, got it the other way")
        if kind in _HEADER_BOXES and size > _BOX_BYTES:
            return LimitError(f"MP4: expected a {kind.decode()} box of at most {_BOX_BYTES} bytes, got {size}")
        return None


def sniff(head: bytes | bytearray) -> str | None:
    """FFmpeg's name of the demuxer for a file that starts with `head`; None where more bytes are needed.

    FormatError for everything that is not one of `OPENED`, with what the first bytes look like.
    """
    if len(head) < _MARK_BYTES:
        return None
    if head[:4] == b"\x1aE\xdf\xa3":
        return _sniff_ebml(head)
    if head[0] == 0x47 and (len(head) <= 188 or head[188] == 0x47):
        return "mpegts" if len(head) > 188 else None
    if head[4:8] in (b"ftyp", b"styp", b"moov"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    for mark, name in ((b"OggS", "ogg"), (b"fLaC", "flac")):
        if head[:4] == mark:
            return name
    if head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        if head[1] & 0xF6 == 0xF0:
            return "aac"
        if head[1] & 0x06 == 0x02:
            return "mp3"
    raise FormatError(f"media: expected {OPENED}, got {first_bytes(head)}")


def _sniff_ebml(head: bytes | bytearray) -> str | None:
    """Matroska, where the EBML header (RFC 8794, section 11.2) names "webm" or "matroska" as its document type."""
    width = 9 - head[4].bit_length()
    size = int.from_bytes(head[4 : 4 + width], "big") & ~(0x80 << 8 * (width - 1)) if 1 <= width <= 8 else -1
    if not 0 <= size <= _EBML_HEADER_BYTES:
        raise FormatError(f"media: expected {OPENED}, got an EBML header without a usable size: {first_bytes(head)}")
    end = 4 + width + size
    if len(head) < end:
        return None
    at = head.find(b"\x42\x82", 4 + width, end)
    length = head[at + 2] & 0x7F if 0 <= at < end - 2 else 0
    kind = bytes(head[at + 3 : min(at + 3 + length, end)]).rstrip(b"\0")
    if at < 0 or kind not in (b"webm", b"matroska"):
        raise FormatError(f'media: expected an EBML document of type "webm" or "matroska", got {first_bytes(kind)}')
    return "matroska"


_LOOKS = (
    (b"ffconcat", "an ffconcat list"),
    (b"#EXTM3U", "an HLS playlist"),
    (b"<MPD", "a DASH manifest"),
    (b"<svg", "an SVG picture"),
    (b"<?xml", "an XML document"),
    (b"%!PS", "a PostScript document"),
    (b"%PDF", "a PDF document"),
    (b"v=0", "a session description"),
    (b"GIF8", "a GIF picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
)


def first_bytes(data: bytes | bytearray | memoryview) -> str:
    """What `data` looks like, for an error message: the name of a known mark, if any, and the first 12 bytes."""
    head = bytes(data[:64])
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    for mark, name in _LOOKS:
        if start.startswith(mark):
            return f"{name} ({head[:_MARK_BYTES]!r})"
    return repr(head[:_MARK_BYTES])
