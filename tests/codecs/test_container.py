"""Encoded files in any cuts: the same frames, soon, in bounds, and nothing but the file itself is ever opened."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec import Codec
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.container import CODECS, MediaDecoder
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.codecs.limits import MediaLimits
from penstock.errors import DamagedError, FormatError, InputError, LimitError


def decode(data: bytes, cuts: Sequence[int] = (), **options) -> list[Frame]:
    decoder = MediaDecoder(**options)
    try:
        frames, at = [], 0
        for cut in [*sorted(cuts), len(data)]:
            frames += decoder.feed(data[at:cut])
            at = cut
        return frames + decoder.flush()
    finally:
        decoder.close()


def facts(frames: Sequence[Frame]) -> list[tuple]:
    return [
        ("pixels", frame.pts_us, frame.pixels.shape, frame.pixels.tobytes())
        if isinstance(frame, Pixels)
        else ("samples", frame.pts_us, frame.rate, frame.samples.shape, frame.samples.tobytes())
        for frame in frames
    ]


def pictures(frames: list[Frame]) -> list[Pixels]:
    return [frame for frame in frames if isinstance(frame, Pixels)]


def sounds(frames: list[Frame]) -> list[Samples]:
    return [frame for frame in frames if isinstance(frame, Samples)]


def test_frames_equal_those_of_the_whole_file_opened_by_pyav(file: bytes) -> None:
    frames = decode(file)
    with av.open(io.BytesIO(file), "r") as container:
        expected = list(container.decode(*container.streams.video[:1], *container.streams.audio[:1]))
    wanted = [frame.to_ndarray(format="rgb24") for frame in expected if isinstance(frame, av.VideoFrame)]
    got = [frame.pixels for frame in pictures(frames)]
    assert len(got) == len(wanted) and all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))
    count = sum(frame.samples for frame in expected if isinstance(frame, av.AudioFrame))
    padding = sum(frame.samples.shape[1] for frame in sounds(frames)) - count
    assert 0 <= padding < (1152 if file[:3] == b"ID3" else 1)  # FFmpeg cuts the end of an MP3 only where it can seek
    assert all(frame.samples.dtype == np.float32 and frame.samples.flags.c_contiguous for frame in sounds(frames))
    assert len(frames) >= 5


def test_every_codec_that_is_opened_has_a_file(files: dict[str, bytes]) -> None:
    """So all laws of this folder hold for it."""
    found = set()
    for data in files.values():
        with av.open(io.BytesIO(data), "r") as container:
            found |= {stream.codec_context.codec.canonical_name for stream in container.streams}
    opened = {Codec(name, "r").canonical_name for names in CODECS.values() for name in names if name != "pcm_*"}
    assert found == opened | {"pcm_s16le"}


@given(data=st.data())
def test_any_cuts_give_the_same_frames(file: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(file) - 1), max_size=40))
    assert facts(decode(file, cuts)) == facts(decode(file))


@pytest.mark.parametrize("name", ["webm-av1", "fmp4-hevc", "fmp4-h264-aac", "mp3", "ts-h264-aac"])
def test_one_byte_at_a_time(files: dict[str, bytes], name: str) -> None:
    data = files[name]
    assert facts(decode(data, list(range(1, len(data))))) == facts(decode(data))


@pytest.mark.parametrize("name", ["webm-vp8-opus", "webm-vp9-opus", "fmp4-h264-aac", "ts-h264-aac"])
def test_first_picture_comes_soon(encode, name: str, files: dict[str, bytes]) -> None:
    times = tuple(range(0, 10_000, 100))
    kind = {"fmp4": "mp4", "ts": "mpegts"}.get(name.split("-")[0], "webm")
    video = {"vp8": "libvpx", "vp9": "libvpx-vp9", "h264": "libx264"}[name.split("-")[1]]
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if kind == "mp4" else None
    data = encode(kind, video, "libopus" if kind == "webm" else "aac", options, times=times)
    decoder = MediaDecoder()
    given_bytes, frames = 0, []
    while not pictures(frames):
        frames += decoder.feed(data[given_bytes : given_bytes + 100])
        given_bytes += 100
    decoder.close()
    assert given_bytes < len(data) // 10


def test_sound_is_what_was_encoded(files: dict[str, bytes]) -> None:
    for name, tolerance in (("wav", 1e-4), ("flac", 1e-4)):
        heard = np.concatenate([frame.samples for frame in sounds(decode(files[name]))], axis=1)
        t = np.arange(48000) / 48000
        assert heard.shape == (2, 48000)
        assert np.abs(heard[0] - 0.5 * np.sin(2 * np.pi * 440 * t)).max() < tolerance
        assert np.abs(heard[1] - 0.25 * np.sin(2 * np.pi * 330 * t)).max() < tolerance


def test_pictures_show_what_was_encoded(files: dict[str, bytes]) -> None:
    for name in ("webm-vp8-opus", "webm-vp9-opus", "webm-av1", "fmp4-h264-aac", "fmp4-hevc", "ts-h264-aac"):
        for index, frame in enumerate(pictures(decode(files[name]))):
            assert frame.pixels.shape == (48, 64, 3) and frame.pixels.flags.c_contiguous
            expected = np.zeros(3)
            expected[index % 3] = 20 + 9 * index
            assert np.abs(frame.pixels[40, 50] - expected).max() < 30, (name, index)


def test_times_are_the_containers_and_may_be_uneven(encode) -> None:
    times = (0, 40, 80, 500, 510, 2000)
    for kind, options in (("webm", None), ("matroska", None)):
        data = encode(kind, "libvpx", None, options, times=times)
        assert [frame.pts_us for frame in pictures(decode(data))] == [1000 * time for time in times]
        shifted = pictures(decode(data, pts_us=7_000_000))
        assert [frame.pts_us for frame in shifted] == [7_000_000 + 1000 * time for time in times]


def test_mpeg_ts_counts_from_its_start(files: dict[str, bytes]) -> None:
    frames = decode(files["ts-h264-aac"])
    assert min(frame.pts_us for frame in frames) == 0
    steps = np.diff([frame.pts_us for frame in pictures(frames)])
    assert set(steps.tolist()) == {100_000}


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_display_matrix_turns_the_picture(encode, rotation: int) -> None:
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    plain = pictures(decode(encode("mp4", "libx264", None, options)))
    turned = pictures(decode(encode("mp4", "libx264", None, options, rotation=rotation)))
    for before, after in zip(plain, turned, strict=True):
        assert np.array_equal(np.rot90(before.pixels, rotation // 90), after.pixels)
        assert after.pixels.flags.c_contiguous


def test_only_the_wanted_kinds_are_decoded(files: dict[str, bytes]) -> None:
    data = files["webm-vp8-opus"]
    assert not pictures(decode(data, kinds=("audio",)))
    assert facts(sounds(decode(data))) == facts(decode(data, kinds=("audio",)))
    with pytest.raises(FormatError, match="expected video.*got audio"):
        decode(files["mp3"], kinds=("video",))


def test_leading_id3_tag_is_passed_over(files: dict[str, bytes]) -> None:
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)
    for name in ("adts-aac", "flac", "mp3"):
        assert facts(decode(tag + files[name], [3, 9, 100])) == facts(decode(files[name]))


@given(share=st.floats(0.001, 0.999), cut=st.floats(0, 1))
def test_truncated_files_give_what_there_was(file: bytes, share: float, cut: float) -> None:
    whole, kept = facts(decode(file)), int(len(file) * share)
    try:
        frames = facts(decode(file[:kept], [int(kept * cut)]))
    except DamagedError:
        return  # not one frame was whole
    count = sum(a == b for a, b in zip(frames, whole, strict=False))
    assert 0 < len(frames) <= len(whole) and count >= len(frames) - 8  # the last ones may be parts of frames


@given(st.binary(min_size=1, max_size=3000))
def test_noise_is_a_media_error(noise: bytes) -> None:
    for mark in (b"", b"\0\0\0\x1cftypisom", b"RIFF\0\0\0\0WAVE", b"OggS", b"fLaC", b"\xff\xf1", b"\xff\xfb\x90\x00"):
        try:
            decode(mark + noise)
        except (FormatError, DamagedError, LimitError):
            continue


def test_video_joined_late_begins_with_a_key_frame(encode) -> None:
    data = encode("mpegts", "libx264", "aac", times=tuple(range(0, 3000, 100)))
    middle = len(data) // 188 // 2 * 188
    whole, late = pictures(decode(data)), pictures(decode(data[: 188 * 3] + data[middle:]))
    assert 5 <= len(late) < len(whole)
    assert facts(late)[-1][3] == facts(whole)[-1][3]


def test_limits_say_both_numbers(files: dict[str, bytes]) -> None:
    video, wave = files["webm-vp8-opus"], files["wav"]
    for name, data, limits, numbers in (
        ("pixels", video, MediaLimits(max_pixels=1000), ("1000", "3072")),
        ("side", video, MediaLimits(max_side=50), ("50", "64 x 48")),
        ("frames", video, MediaLimits(max_frames=5), ("5", "6")),
        ("duration", wave, MediaLimits(max_duration_us=500_000), ("0.5 s", "0.512")),
        ("bytes", wave, MediaLimits(max_stream_bytes=1000), ("1000", str(len(wave)))),
        ("channels", wave, MediaLimits(max_channels=1), ("1", "2")),
        ("rate", wave, MediaLimits(max_rate=44100), ("44100", "48000")),
        ("decoded", video, MediaLimits(max_decoded_bytes=20_000), ("20000", "smaller pieces")),
    ):
        with pytest.raises(LimitError) as caught:
            decode(data, limits=limits)
        assert all(number in str(caught.value) for number in numbers), name


@pytest.mark.parametrize("rate", [0, 1, 4_000_000, 2**31 - 1, 2**32 - 1])
def test_absurd_rate_in_a_header(files: dict[str, bytes], rate: int) -> None:
    data = bytearray(files["wav"])
    at = data.index(b"fmt ") + 12
    data[at : at + 4] = struct.pack("<I", rate)
    with pytest.raises(LimitError, match=f"got {rate}"):
        decode(bytes(data), [5, 20, 27, 40])


def test_pixels_are_checked_also_where_they_grow_later(encode) -> None:
    small, large = encode("mpegts", "libx264"), encode("mpegts", "libx264", size=(320, 240))
    frames = pictures(decode(small + large))
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3), (240, 320, 3)}
    with pytest.raises(LimitError, match="76800"):
        decode(small + large, limits=MediaLimits(max_pixels=50_000))
    with pytest.raises(LimitError, match="at most 3072 pixels, got"):
        decode(small + large, limits=MediaLimits(max_pixels=64 * 48))


def test_wall_clock_is_bounded_and_the_decoder_stays_closed(files: dict[str, bytes]) -> None:
    decoder = MediaDecoder(MediaLimits(decode_seconds=1e-6))
    with pytest.raises(LimitError, match="in 1e-06 s"):
        list(decoder.read(files["ts-h264-aac"] * 200))
    with pytest.raises(LimitError):
        decoder.feed(b"more")
    decoder.close()


def _box(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def hostile(canary: Path) -> dict[str, bytes]:
    path = str(canary)
    concat = f"ffconcat version 1.0\nfile {path}\n".encode() * 60
    ebml = b"\x1aE\xdf\xa3"
    return {
        "ffconcat": concat,
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path}\n#EXT-X-ENDLIST\n".encode(),
        "hls url": f"#EXTM3U\n#EXTINF:1,\nfile://{path}\n".encode(),
        "dash": f"<MPD><BaseURL>{path}</BaseURL></MPD>".encode(),
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nu=file://{path}\n".encode(),
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{path}"/></svg>'.encode(),
        "eps": f"%!PS-Adobe-3.0 EPSF-3.0\n({path}) run\n".encode(),
        "ffconcat as webm": ebml + concat,
        "ffconcat as webm with a size": ebml + b"\x9f" + concat,
        "ffconcat as mp4": b"\0\0\0\x10ftypisom\0\0\0\0" + concat,
        "image list": f"{path}\n".encode() * 3,
    }


@pytest.mark.parametrize("kind", sorted(hostile(Path())))
def test_a_file_that_points_at_another_never_opens_it(kind: str, tmp_path: Path, files: dict[str, bytes]) -> None:
    canary = tmp_path / "canary.webm"
    canary.write_bytes(files["webm-vp8-opus"])  # playable, so that frames would come out if it were opened
    data = hostile(canary)[kind]
    for cuts in ([], [1, 7, 30]):
        frames: list[Frame] = []
        with pytest.raises(FormatError) as caught:
            frames = decode(data, cuts)
        assert frames == [] and "expected" in str(caught.value)


def test_a_mov_that_refers_to_another_file_never_opens_it(encode, tmp_path: Path) -> None:
    fragmented = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    canary = tmp_path / "canary.mp4"
    canary.write_bytes(encode("mp4", "libx264", None, fragmented))
    data = bytearray(canary.read_bytes())
    location = str(canary).encode() + b"\0"
    entry = data.index(b"url ") - 4
    data[entry : entry + 12] = (12 + len(location)).to_bytes(4, "big") + b"url \0\0\0\0" + location
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = data.index(box) - 4
        data[at : at + 4] = (_box(data, at) + len(location)).to_bytes(4, "big")
    del data[data.index(b"moof") - 4 :]
    data += b"\0\0\0\x10mdat" + bytes(8)
    with pytest.raises((FormatError, DamagedError)):
        decode(bytes(data))


def test_codec_that_is_not_opened(encode) -> None:
    with pytest.raises(FormatError, match="mpeg4"):
        decode(encode("matroska", "mpeg4"))


def test_close_ends_the_thread(files: dict[str, bytes]) -> None:
    before = set(threading.enumerate())
    data = files["webm-vp8-opus"]
    decoders = [MediaDecoder() for _ in range(5)]
    for count, decoder in enumerate(decoders):
        decoder.feed(data[: count * len(data) // 4])
    decoders[4].flush()
    for decoder in decoders:
        decoder.close()
        decoder.close()
    assert set(threading.enumerate()) == before
    for decoder in decoders:
        with pytest.raises(InputError):
            decoder.feed(b"x")


def test_nothing_at_all_is_damaged() -> None:
    for data in (b"", b"\x1aE", b"OggS"):
        with pytest.raises(DamagedError):
            decode(data)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="Linux only")
def test_encoding_leaves_the_scheduling_of_this_process_alone(encode) -> None:
    before = os.sched_getscheduler(0)
    encode("webm", video="libsvtav1")
    assert os.sched_getscheduler(0) == before
