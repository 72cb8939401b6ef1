"""What stands beside the pixels never costs them: odd EXIF, long texts; and a PIL image is the picture its file is."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.metadata import orientation
from penstock.codecs.picture import decode_picture, pixels_of
from penstock.errors import DamagedError
from PIL import Image, ImageOps

RGB = np.random.default_rng(3).integers(0, 256, (10, 16, 3), dtype=np.uint8)
SMOOTH = Image.fromarray(np.tile(np.arange(0, 160, 10, dtype=np.uint8)[None, :, None], (10, 1, 3)))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_exif(exif: bytes) -> bytes:
    data = saved(SMOOTH, "JPEG", quality=95)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@given(st.integers(0, 9), st.sampled_from("<>"), st.integers(1, 3), st.sampled_from([3, 4]), st.binary(max_size=60))
def test_orientation_is_read_whatever_is_around(turn: int, order: str, headers: int, kind: int, odd: bytes) -> None:
    value = struct.pack(order + ("HH" if kind == 3 else "I"), *((turn, 0) if kind == 3 else (turn,)))
    entries = [
        struct.pack(order + "HHI", 0x010F, 2, 1 << 31) + b"\xff" * 4,  # a name far beyond the end
        struct.pack(order + "HHIi", 0x0213, 9, 1, -1),
        struct.pack(order + "HHI", 0x0112, kind, 1) + value,
        struct.pack(order + "HHII", 0x8769, 4, 1, 0xFFF0),  # a directory beyond the end
    ]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    exif = b"Exif\0\0" * headers + head + b"".join(entries) + odd
    assert orientation(exif) == (turn if 1 <= turn <= 8 else 1)
    assert decode_picture(with_exif(exif)).shape == ((16, 10, 3) if 5 <= turn <= 8 else (10, 16, 3))


@given(st.binary(max_size=200))
def test_metadata_of_any_bytes_costs_no_picture(odd: bytes) -> None:
    for exif in (odd, b"Exif\0\0" + odd, b"Exif\0\0II*\0\x08\0\0\0" + odd):
        assert sorted(decode_picture(with_exif(exif)).shape) == [3, 10, 16]
        assert 1 <= orientation(exif) <= 8


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    data = saved(Image.fromarray(RGB), "PNG")
    made = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return data[:33] + b"".join(made) + data[33:]


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"zTXt", b"words\0\0" + zlib.compress(bytes(3 << 20)))],
        [(b"zTXt", b"words\0\0" + zlib.compress(bytes(1_000_000)))] * 70,
        [(b"iTXt", b"broken")],
        [(b"tEXt", b"Raw profile type exif\0\nexif\n  2\nzz")],
        [(b"eXIf", b"nothing of the kind")],
        [(b"iCCP", b"name\0\0no profile")],
    ],
)
def test_texts_and_profiles_cost_no_picture(chunks: list[tuple[bytes, bytes]]) -> None:
    data = png_with(*chunks)
    assert np.array_equal(decode_picture(data), RGB)
    torn = bytearray(data)
    torn[33 + 8 + len(chunks[0][1])] ^= 1  # the chunk's check
    assert np.array_equal(decode_picture(bytes(torn)), RGB)


def images() -> list[tuple[str, bytes]]:
    rgba = np.dstack([RGB, np.tile(np.arange(0, 256, 16, dtype=np.uint8), (10, 1))])
    made = [
        ("RGBA", saved(Image.fromarray(rgba), "PNG")),
        ("palette with alpha", saved(Image.fromarray(rgba).quantize(16), "PNG")),
        ("one colour transparent", saved(Image.fromarray(RGB), "PNG", transparency=tuple(RGB[0, 0].tolist()))),
        ("grey with alpha", saved(Image.fromarray(rgba).convert("LA"), "PNG")),
        ("16 bits", saved(Image.fromarray(RGB[:, :, 0].astype(np.uint16) * 257), "PNG")),
        ("CMYK", saved(Image.fromarray(RGB).convert("CMYK"), "JPEG")),
        ("GIF", saved(Image.fromarray(RGB), "GIF", transparency=3)),
    ]
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        for kind, options in (("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True})):
            made.append((f"{kind} turned {turn}", saved(Image.fromarray(RGB), kind, exif=exif, **options)))
    return made


@pytest.mark.parametrize(("name", "data"), images(), ids=[name for name, _ in images()])
def test_an_image_of_pil_is_the_picture_its_file_is(name: str, data: bytes) -> None:
    image = Image.open(io.BytesIO(data))
    expected = decode_picture(data)
    got = pixels_of(image)
    assert got is not None and np.array_equal(got, expected)
    upright = pixels_of(ImageOps.exif_transpose(image))
    assert upright is not None and np.array_equal(upright, expected)


def test_a_picture_that_pil_has_not_read_yet_may_be_broken() -> None:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    with pytest.raises(DamagedError, match="picture: expected a whole one"):
        pixels_of(Image.open(io.BytesIO(file.getvalue()[:-900])))
