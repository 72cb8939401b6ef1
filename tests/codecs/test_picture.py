"""Picture files and raw frames: right pixels for every kind that is opened, and an error with numbers for the rest."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.limits import MediaLimits
from penstock.codecs.picture import check_pixels, decode_picture, raw_picture
from penstock.errors import DamagedError, FormatError, InputError, LimitError, MediaError
from PIL import Image

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
SMOOTH = np.stack(np.meshgrid(np.arange(30) * 8, np.arange(20) * 12, indexing="xy"), axis=-1).astype(np.uint8)
SMOOTH = np.concatenate([SMOOTH, np.full((20, 30, 1), 90, np.uint8)], axis=2)


def saved(picture: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_files_give_their_pixels(kind: str, options: dict) -> None:
    pixels = decode_picture(saved(RGB, kind, **options))
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and np.array_equal(pixels, RGB)


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"quality": 95}), ("GIF", {})])
def test_lossy_files_come_close(kind: str, options: dict) -> None:
    pixels = decode_picture(bytearray(saved(SMOOTH, kind, **options)))
    assert pixels.shape == (20, 30, 3) and np.abs(pixels.astype(int) - SMOOTH).mean() < 8


def test_grey_palette_and_one_bit() -> None:
    grey = RGB[:, :, 0]
    assert np.array_equal(decode_picture(saved(grey, "PNG")), np.repeat(grey[:, :, None], 3, axis=2))
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(decode_picture(saved(palette, "PNG")), np.array(palette.convert("RGB")))
    bits = Image.fromarray(grey > 100)
    assert set(np.unique(decode_picture(saved(bits, "PNG"))).tolist()) == {0, 255}


def test_sixteen_bits_keep_their_high_byte() -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (9, 7), dtype=np.uint16)
    pixels = decode_picture(saved(Image.fromarray(deep), "PNG"))
    assert np.array_equal(pixels, np.repeat((deep >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_sixteen_bit_colour_png_from_another_encoder() -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (8, 16, 3), dtype=np.uint16)
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 8, "rgb48be", Fraction(1)
    frame = av.VideoFrame.from_ndarray(deep, format="rgb48be")
    packets = encoder.encode(frame) + encoder.encode(None)
    assert np.array_equal(decode_picture(bytes(packets[0])), (deep >> 8).astype(np.uint8))


def test_transparency_is_laid_over_white() -> None:
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[:, 10:20] = 128
    alpha[:, 20:] = 255
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True})):
        pixels = decode_picture(saved(np.concatenate([RGB, alpha], axis=2), kind, **options))
        assert (pixels[:, :10] == 255).all() and np.array_equal(pixels[:, 20:], RGB[:, 20:])
        mixed = (RGB[:, 10:20] * (128 / 255) + 255 * (127 / 255)).round()
        assert np.abs(pixels[:, 10:20] - mixed).max() <= 1
    clear = Image.fromarray(RGB[:, :, 0]).convert("P")
    pixels = decode_picture(saved(clear, "GIF", transparency=int(RGB[3, 4, 0])))
    assert (pixels[3, 4] == 255).all()


def test_cmyk_jpeg() -> None:
    pixels = decode_picture(saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    pixels = decode_picture(saved(SMOOTH, kind, exif=exif, **options))
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}[orientation]
    expected = np.rot90(SMOOTH, turns)
    if orientation in (2, 4, 5, 7):
        expected = expected[:, ::-1]
    assert pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert pixels.shape == (6, 8, 3) and (pixels == (255, 0, 0)).all()


def test_other_formats_are_refused_and_named(tmp_path: Path) -> None:
    canary = tmp_path / "canary.png"
    canary.write_bytes(saved(RGB, "PNG"))
    for data, looks in (
        (f'<svg><image href="file://{canary}"/></svg>'.encode(), "SVG"),
        (f'<?xml version="1.0"?><svg><image href="{canary}"/></svg>'.encode(), "XML"),
        (f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({canary}) run\n".encode(), "PostScript"),
        (f"ffconcat version 1.0\nfile {canary}\n".encode(), "ffconcat"),
        (f"#EXTM3U\n{canary}\n".encode(), "HLS"),
        (saved(RGB, "BMP"), "BMP"),
        (saved(RGB, "TIFF"), "TIFF"),
        (b"plain words", "plain words"),
        (b"", "b''"),
    ):
        with pytest.raises(FormatError, match="JPEG, PNG, WEBP, GIF") as caught:
            decode_picture(data)
        assert looks in str(caught.value)


def test_a_mark_alone_opens_nothing(tmp_path: Path) -> None:
    for mark in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a"):
        with pytest.raises(MediaError):
            decode_picture(mark + b"%!PS-Adobe-3.0 EPSF-3.0\n" * 4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_limits_hold_before_pixels_are_decoded(kind: str) -> None:
    data = saved(RGB, kind)
    with pytest.raises(LimitError, match="at most 500 pixels, got 600 .30 x 20"):
        decode_picture(data[: 3 * len(data) // 4], MediaLimits(max_pixels=500))  # its pixels are not even there
    with pytest.raises(LimitError, match="at most 25"):
        decode_picture(data, MediaLimits(max_side=25))
    with pytest.raises(LimitError, match=f"at most 50 bytes, got {len(data)}"):
        decode_picture(data, MediaLimits(max_bytes=50))


def test_a_huge_declared_size_takes_no_memory() -> None:
    png = bytearray(saved(RGB, "PNG"))
    png[16:24] = (60_000).to_bytes(4, "big") * 2
    webp = b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + (16382).to_bytes(3, "little") * 2 + bytes(200)
    for data in (bytes(png), webp):
        with pytest.raises(LimitError):
            decode_picture(data)


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.floats(0.0, 0.9))
def test_short_files_are_damaged(kind: str, share: float) -> None:
    data = saved(RGB, kind)
    with pytest.raises((DamagedError, FormatError)):
        decode_picture(data[: int(len(data) * share)])


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.data())
def test_broken_files_raise_only_media_errors(kind: str, data: st.DataObject) -> None:
    file = bytearray(saved(RGB, kind))
    for _ in range(5):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_picture(bytes(file)).ndim == 3
    except MediaError:
        pass


def test_raw_rgb_is_a_view() -> None:
    data = bytearray(RGB.tobytes())
    pixels = raw_picture(data, "rgb24", 30, 20)
    assert np.array_equal(pixels, RGB) and np.shares_memory(pixels, np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("encoding", ["yuv420p", "nv12"])
def test_raw_yuv_equals_swscale(encoding: str) -> None:
    frame = av.VideoFrame.from_ndarray(RGB, format="rgb24").reformat(format=encoding)
    planes = frame.to_ndarray()
    assert np.array_equal(raw_picture(planes.tobytes(), encoding, 30, 20), frame.to_ndarray(format="rgb24"))


def test_raw_yuv_black_and_white() -> None:
    for luma, expected in ((16, 0), (235, 255)):
        data = bytes([luma]) * 64 + bytes([128]) * 32
        for encoding in ("yuv420p", "nv12"):
            assert np.abs(raw_picture(data, encoding, 8, 8).astype(int) - expected).max() <= 3


def test_raw_pictures_of_the_wrong_size() -> None:
    for encoding, expected in (("rgb24", 192), ("yuv420p", 96), ("nv12", 96)):
        with pytest.raises(DamagedError, match=f"expected {expected} bytes, got {expected - 1}"):
            raw_picture(bytes(expected - 1), encoding, 8, 8)
    with pytest.raises(InputError, match="even.*7 x 8"):
        raw_picture(bytes(84), "nv12", 7, 8)
    with pytest.raises(InputError, match="0 x 8"):
        raw_picture(b"", "rgb24", 0, 8)
    with pytest.raises(FormatError, match="rgb24, yuv420p, nv12, got 'bgr24'"):
        raw_picture(bytes(192), "bgr24", 8, 8)
    with pytest.raises(LimitError, match="10000000000"):
        raw_picture(b"", "rgb24", 100_000, 100_000)


def test_arrays_are_checked() -> None:
    assert check_pixels(RGB) is RGB
    assert check_pixels(RGB[:, ::-1]).flags.c_contiguous
    for array in (RGB.astype(np.float32), RGB[:, :, 0], RGB[None], RGB[:0], RGB[:, :, :2]):
        with pytest.raises(InputError, match=r"expected \(h, w, 3\) uint8, got"):
            check_pixels(array)
    with pytest.raises(LimitError, match="600"):
        check_pixels(RGB, MediaLimits(max_pixels=500))
