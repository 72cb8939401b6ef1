"""Which container encoded bytes are in, by their first bytes alone. Knows the formats' marks; opens nothing."""

from __future__ import annotations

from ..errors import FormatError
from .transport import synced

OPENED = "WebM or Matroska, MP4, MPEG-TS, WAV, Ogg, AAC (ADTS), MP3, FLAC"
SOUND = ("wav", "ogg", "flac", "aac", "mp3")  # demuxers of files that hold sound alone
_EBML_HEADER_BYTES = 1024
HEADER_BYTES = 6  # of an MP3 or ADTS frame, as far as its length and kind need
_MARK_BYTES = 12
# How far into a stream that was joined somewhere its first whole packets are looked for.
_SEARCH_BYTES = 16 << 10
_BITRATES = {  # kbit/s of MPEG-1 and of MPEG-2 and 2.5, layer III (ISO/IEC 11172-3, 2.4.2.3; 13818-3, 2.4.2.3)
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_RATES = {3: (44100, 48000, 32000, 0), 2: (22050, 24000, 16000, 0), 0: (11025, 12000, 8000, 0)}


def sniff(head: bytes | bytearray) -> str | None:
    """FFmpeg's name of the demuxer for a file that starts with `head`; None where more bytes are needed.

    MPEG-TS, MP3 and AAC may begin anywhere; see `joined`. FormatError for everything that is not one of `OPENED`, with
    what the first bytes look like.
    """
    if len(head) < _MARK_BYTES:
        return None
    if head[:4] == b"\x1aE\xdf\xa3":
        return _sniff_ebml(head)
    if head[4:8] in (b"ftyp", b"styp", b"moov"):
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    for mark, name in ((b"OggS", "ogg"), (b"fLaC", "flac")):
        if head[:4] == mark:
            return name
    if head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "aac"
    if head[0] == 0xFF and head[1] & 0xE6 == 0xE2:
        return "mp3"
    found = joined(head)
    if found is not None:
        return found[1]
    if len(head) >= _SEARCH_BYTES or not _binary(head):
        raise unopened(head)
    return None


def unopened(head: bytes | bytearray) -> FormatError:
    """The error for a file that starts with `head` and is none of `OPENED`."""
    return FormatError(f"media: expected {OPENED}, got {first_bytes(head)}")


def joined(head: bytes | bytearray) -> tuple[int, str] | None:
    """Where MPEG-TS packets, MP3 or AAC (ADTS) frames begin in `head`, three in a row at least, and their demuxer."""
    head = bytes(head[:_SEARCH_BYTES])
    packets = synced(head)
    at = head.find(b"\xff")
    while at >= 0 and (packets is None or at < packets[0]):
        step, first = frame(head, at)
        then, second = frame(head, at + step) if step else (0, None)
        if then and first == second and first == frame(head, at + step + then)[1]:
            return at, "mp3" if head[at + 1] & 0x06 else "aac"
        at = head.find(b"\xff", at + 1)
    return None if packets is None else (packets[0], "mpegts")


def frame(data: bytes | bytearray, at: int) -> tuple[int, object]:
    """Length in bytes of the MP3 or ADTS frame whose header is at `at`, and what all frames of its kind share.

    A length of 0: there is no header, or not a whole one.
    """
    if len(data) < at + HEADER_BYTES or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return 0, None
    kind, mode = data[at + 1] & 0xFE, data[at + 2]
    if kind & 0xF6 == 0xF0:
        length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        return (length, (kind, mode & 0xFC)) if length > 7 and mode >> 2 & 15 < 13 else (0, None)
    version = kind >> 3 & 3
    if kind & 0x06 != 0x02 or version == 1:
        return 0, None
    bitrate, rate = _BITRATES[3 if version == 3 else 2][mode >> 4], _RATES[version][mode >> 2 & 3]
    if not bitrate or not rate:
        return 0, None
    return (144 if version == 3 else 72) * bitrate * 1000 // rate + (mode >> 1 & 1), (kind, mode & 0x0C)


def _binary(head: bytes | bytearray) -> bool:
    """Whether it may be the middle of a stream: neither words nor a file of a kind that is known and not opened."""
    start = bytes(head[:64])
    return any(byte >= 0x80 or byte == 0 for byte in start) and not any(start.startswith(mark) for mark, _ in _LOOKS)


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
