"""Pictures and raw frames to RGB. Comes in: one file's bytes, raw planes or an array; goes out: `(h, w, 3)` uint8.

Knows Pillow and the limits. Opens JPEG, PNG, WebP and GIF and nothing else; knows no video files.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import DamagedError, FormatError, InputError, LimitError
from .limits import DEFAULT_LIMITS, MediaLimits
from .metadata import bare_jpeg, bare_png, orientation, raw_profile
from .sniff import first_bytes

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_MARKS = ((0, b"\xff\xd8\xff"), (0, b"\x89PNG\r\n\x1a\n"), (8, b"WEBP"), (0, b"GIF87a"), (0, b"GIF89a"))
_TURNS = {  # what brings a picture of each EXIF orientation upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RAW_BYTES = {"rgb24": (3, 1), "yuv420p": (3, 2), "nv12": (3, 2)}  # bytes per pixel, as a fraction


def decode_picture(data: bytes | bytearray | memoryview, limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
    """The picture in `data`, a JPEG, PNG, WebP or GIF file: `(h, w, 3)` uint8 RGB, contiguous.

    Of an animation the first frame. Turned and mirrored as its EXIF orientation says. What is transparent is laid over
    white. 16 bits become 8 by their high byte. CMYK is converted without a colour profile.

    Errors: FormatError for every other format, LimitError for too many bytes or pixels (before pixels are decoded),
    DamagedError for a broken or short file.
    """
    limits.check_bytes(len(data), "picture")
    if not is_file(data):
        raise FormatError(f"picture: expected {', '.join(FORMATS)}, got {first_bytes(data)}")
    declared = _declared_size(bytes(data[:30]))
    if declared is not None:
        limits.check_size(*declared, "picture")  # Pillow's WebP plugin takes memory for its canvas on opening the file
    try:
        if data[:2] == b"\xff\xd8":
            return _opened(*bare_jpeg(bytes(data)), limits)
        return _opened(bytes(data), None, limits)
    except (LimitError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise many types on broken files
        if data[:4] == b"\x89PNG":  # or on what they do not like beside the pixels
            try:
                return _opened(bare_png(bytes(data)), None, limits)
            except Exception:  # then it is the pixels: the first error says more
                pass
        raise DamagedError(f"picture: broken or cut short at {len(data)} bytes: {error}") from error


def _opened(data: bytes, exif: bytes | None, limits: MediaLimits) -> np.ndarray:
    """`exif`: the block of a file that is given without it."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            limits.check_size(*picture.size, "picture")
            return _rgb(_upright(picture, exif))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LimitError(f"picture: expected at most {limits.max_pixels} pixels, got more: {error}") from error
    except UnidentifiedImageError as error:
        raise DamagedError(f"picture: expected a whole header, got {len(data)} bytes {first_bytes(data)}") from error


def raw_picture(
    data: bytes | bytearray | memoryview, encoding: str, width: int, height: int, limits: MediaLimits = DEFAULT_LIMITS
) -> np.ndarray:
    """The raw frame in `data` as `(height, width, 3)` uint8 RGB; for "rgb24" a view of `data`, not a copy.

    "yuv420p" (planes Y, U, V) and "nv12" (Y, then U and V interleaved) need even sides and are read as BT.601 with
    limited range. Errors: FormatError for another encoding, InputError for sides that cannot be, LimitError,
    DamagedError where the number of bytes is not the one that the size needs.
    """
    if encoding not in _RAW_BYTES:
        raise FormatError(f"raw picture: expected one of {', '.join(_RAW_BYTES)}, got {encoding!r}")
    if width < 1 or height < 1 or (encoding != "rgb24" and (width % 2 or height % 2)):
        kind = "positive" if encoding == "rgb24" else "positive even"
        raise InputError(f"raw picture ({encoding}): expected {kind} width and height, got {width} x {height}")
    limits.check_size(width, height, "raw picture")
    view = memoryview(data).cast("B")
    numerator, denominator = _RAW_BYTES[encoding]
    expected = width * height * numerator // denominator
    if len(view) != expected:
        raise DamagedError(f"raw picture ({encoding}, {width} x {height}): expected {expected} bytes, got {len(view)}")
    if encoding == "rgb24":
        return np.frombuffer(view, np.uint8).reshape(height, width, 3)
    import av
    from av.video.reformatter import Colorspace

    from . import avframe

    planes = np.frombuffer(view, np.uint8).reshape(height * 3 // 2, width)
    frame = av.VideoFrame.from_ndarray(planes, format=encoding)
    frame.colorspace = Colorspace.ITU601
    return avframe.pixels(frame)


def check_pixels(pixels: np.ndarray, limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
    """`pixels` made contiguous, if it is `(h, w, 3)` uint8 with at least one pixel; else InputError, or LimitError."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(f"pixels: expected (h, w, 3) uint8, got {pixels.shape} {pixels.dtype}")
    limits.check_size(pixels.shape[1], pixels.shape[0], "pixels")
    return np.ascontiguousarray(pixels)


def is_file(data: bytes | bytearray | memoryview) -> bool:
    """Whether `data` starts as a picture file of one of the formats that are opened."""
    return any(data[at : at + len(mark)] == mark for at, mark in _MARKS)


def pixels_of(value: object) -> np.ndarray | None:
    """The pixels of a PIL image, `(h, w, 3)` uint8, as `decode_picture` gives them for its file; None for another.

    Raises DamagedError where its file, which PIL reads only now, is broken.
    """
    if not isinstance(value, Image.Image):
        return None
    try:
        return _rgb(_upright(value, None))
    except (OSError, SyntaxError, ValueError) as error:
        raise DamagedError(f"picture: expected a whole one, got a broken file: {error}") from error


def _upright(picture: Image.Image, exif: bytes | None) -> Image.Image:
    """The picture turned and mirrored as its EXIF block says."""
    if exif is None:
        profile = picture.info.get("Raw profile type exif")
        exif = picture.info.get("exif") or (None if profile is None else raw_profile(profile))
    turn = _TURNS.get(orientation(exif))
    return picture if turn is None else picture.transpose(turn)


def _rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode in ("I", "I;16", "I;16L", "I;16B"):
        high = np.clip(np.asarray(picture).astype(np.int64), 0, 65535) >> 8
        return np.repeat(high.astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (255, 255, 255, 255)), picture)
    return np.array(picture.convert("RGB"))


def _declared_size(head: bytes) -> tuple[int, int] | None:
    """Width and height where the first 30 bytes give them: PNG, GIF and WebP (RFC 9649, sections 2.5 to 2.7)."""
    if head[:4] == b"\x89PNG":
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head[:3] == b"GIF":
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head[8:12] != b"WEBP" or len(head) < 30:
        return None
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
