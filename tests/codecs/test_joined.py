"""Sources that are joined anywhere, started again or put in a row: what is there is decoded, and times go on."""

from __future__ import annotations

import io
import struct
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.codecs.frame import Samples
from penstock.codecs.limits import MediaLimits
from penstock.errors import DamagedError, LimitError

from tests.codecs.conftest import FRAGMENTED, RECIPES, encode_file
from tests.codecs.test_container import decode, facts, pictures, sounds

IN_A_ROW = {
    "webm": {"container": "webm", "video": "libvpx", "sound": "libopus"},
    "fmp4": {"container": "mp4", "video": "libx264", "sound": "aac", "options": FRAGMENTED},
    "mp4 with its index behind": {"container": "mp4", "video": "libx264", "sound": "aac"},
    "ts": {"container": "mpegts", "video": "libx264", "sound": "aac"},
}
FILES = {name: encode_file(**RECIPES[name]) for name in ("ts-h264-aac", "fmp4-h264-aac", "mp3", "adts-aac")}
LONG_TS = encode_file("mpegts", "libx264", "aac", size=(96, 64), times=tuple(range(0, 4000, 100)))
SOUND_IN_A_ROW = ("wav", "ogg-opus", "ogg-vorbis", "adts-aac", "mp3", "flac", "webm-opus")


def cut(data: bytes, step: int) -> list[int]:
    return list(range(step, len(data), step))


def steps(frames: list) -> list[int]:
    return np.diff([frame.pts_us for frame in frames]).tolist()


def gaps(frames: list[Samples]) -> list[int]:
    """Microseconds between the end of each run of samples and the start of the next."""
    ends = [frame.pts_us + frame.samples.shape[1] * 1_000_000 // frame.rate for frame in frames]
    return [frame.pts_us - end for frame, end in zip(frames[1:], ends[:-1], strict=True)]


def length(frames: list[Samples]) -> int:
    return sum(frame.samples.shape[1] for frame in frames)


@settings(max_examples=25)
@given(data=st.data())
def test_mpeg_ts_joined_at_any_byte(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(LONG_TS) // 2))
    frames = decode(LONG_TS[first:], cut(LONG_TS[first:], 5000))
    shown, whole = pictures(frames), pictures(decode(LONG_TS))
    assert len(shown) >= len(whole) // 3 and sounds(frames)
    assert facts(shown)[-1][3] == facts(whole)[-1][3] and set(steps(shown)) == {100_000}


@pytest.mark.parametrize("name", ["mp3", "adts-aac"])
@settings(max_examples=15)
@given(data=st.data())
def test_sound_without_a_container_joined_at_any_byte(name: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(FILES[name]) // 2))
    late, whole = length(sounds(decode(FILES[name][first:]))), length(sounds(decode(FILES[name])))
    assert whole / 3 < late <= whole + 1200  # the first frame of an MP3 says what to leave out of it
    padded = decode(bytes(data.draw(st.integers(16, 9000))) + FILES[name])
    assert abs(length(sounds(padded)) - whole) < 2400


@pytest.mark.parametrize("kind", sorted(IN_A_ROW))
def test_a_second_file_of_another_size_follows_the_first(kind: str) -> None:
    first, second = encode_file(**IN_A_ROW[kind]), encode_file(**IN_A_ROW[kind], size=(96, 64))
    alone, behind = decode(first), decode(second)
    for step in (len(first + second), 997):
        frames = decode(first + second, cut(first + second, step))
        shown = pictures(frames)
        wanted = [frame.pixels for frame in pictures(alone) + pictures(behind)]
        assert len(shown) == 20 and all(np.array_equal(a.pixels, b) for a, b in zip(shown, wanted, strict=True))
        assert length(sounds(frames)) == length(sounds(alone)) + length(sounds(behind))
        between = shown[10].pts_us - shown[9].pts_us
        assert 60_000 <= between < 250_000
        assert steps(shown[:10]) == steps(pictures(alone)) and steps(shown[10:]) == steps(pictures(behind))
        assert all(abs(gap) < 100_000 for gap in gaps(sounds(frames)))


@pytest.mark.parametrize("name", SOUND_IN_A_ROW)
def test_sounds_in_a_row(files: dict[str, bytes], name: str) -> None:
    one, three = files[name], files[name] * 3
    whole = length(sounds(decode(one)))
    for step in (len(three), 613):
        frames = sounds(decode(three, cut(three, step)))
        assert abs(length(frames) - 3 * whole) <= 1200
        assert all(abs(gap) < 60_000 for gap in gaps(frames))


def test_another_rate_in_a_row() -> None:
    for container, codec in (("wav", "pcm_s16le"), ("ogg", "libopus"), ("flac", "flac"), ("mp3", "libmp3lame")):
        rates = (48000, 48000) if codec == "libopus" else (16000, 44100)
        data = b"".join(tone(container, codec, rate) for rate in rates)
        frames = sounds(decode(data, cut(data, 777)))
        for rate in set(rates):
            seconds = length([frame for frame in frames if frame.rate == rate]) / rate
            assert abs(seconds - rates.count(rate) * 0.5) < 0.07, (container, rate)


def tone(container: str, codec: str, rate: int, seconds: float = 0.5) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        track: Any = output.add_stream(codec, rate=rate, layout="mono")
        wave = (8000 * np.sin(0.05 * np.arange(int(rate * seconds)))).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        fit = av.AudioResampler(format=track.format.name, layout="mono", rate=rate, frame_size=track.frame_size)
        for piece in [*fit.resample(frame), *fit.resample(None)]:
            output.mux(track.encode(piece))
        output.mux(track.encode(None))
    return file.getvalue()


def wav(samples: np.ndarray, stated: int | None = None, behind: bytes = b"") -> bytes:
    data = samples.astype("<i2").tobytes()
    size = len(data) if stated is None else stated
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16) + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(head) + len(data)) + head + data + behind


@settings(max_examples=20)
@given(
    count=st.integers(40, 3000), stated=st.one_of(st.none(), st.integers(0, 4000), st.just(0xFFFFFFFF)), data=st.data()
)
def test_no_sample_behind_the_stated_end_of_a_wav_is_lost(count: int, stated: int | None, data: st.DataObject) -> None:
    samples = np.arange(1, count + 1)
    chunk = data.draw(st.sampled_from([b"", b"LIST" + struct.pack("<I", 5) + b"words\0"]))
    whole = wav(samples, stated if stated is None else stated // 2 * 2, chunk if stated is None else b"") * 2
    cuts = data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=6))
    heard = np.concatenate([frame.samples[0] for frame in sounds(decode(whole, cuts))])
    assert np.array_equal(np.round(heard * 32768), np.concatenate([samples, samples]))


def test_a_wav_for_each_chunk() -> None:
    samples = (np.arange(16000) % 1000).astype(np.int16)
    data = b"".join(wav(samples[at : at + 1600]) for at in range(0, 16000, 1600))
    frames = sounds(decode(data, cut(data, 500)))
    assert np.array_equal(np.round(np.concatenate([frame.samples[0] for frame in frames]) * 32768), samples)
    assert max(map(abs, gaps(frames))) <= 1


def restamped(data: bytes, shift: int) -> bytes:
    """A transport stream whose clock is ahead by `shift` ticks of 90 kHz, in 33 bits."""
    mended = bytearray(data)
    for packet in range(0, len(data), 188):
        at = packet + 4 + (1 + data[packet + 4] if data[packet + 3] & 0x20 else 0)
        if not data[packet + 1] & 0x40 or data[at : at + 3] != b"\0\0\1" or data[at + 3] < 0xC0:
            continue
        for place in (at + 9, at + 14)[: (data[at + 7] >> 6) - 1 if data[at + 7] >> 6 > 1 else 0]:
            five = data[place : place + 5]
            ticks = (five[0] >> 1 & 7) << 30 | five[1] << 22 | five[2] >> 1 << 15 | five[3] << 7 | five[4] >> 1
            ticks = (ticks + shift) % (1 << 33)
            mended[place : place + 5] = bytes(
                [
                    five[0] & 0xF0 | ticks >> 29 & 0x0E | 1,
                    ticks >> 22 & 255,
                    ticks >> 14 & 0xFE | 1,
                    ticks >> 7 & 255,
                    ticks << 1 & 0xFE | 1,
                ]
            )
    return bytes(mended)


@settings(max_examples=15)
@given(before=st.integers(0, 4 * 90_000))
def test_the_clock_of_mpeg_ts_wraps(before: int) -> None:
    wrapped = restamped(LONG_TS, (1 << 33) - 126_000 - before)
    assert facts(decode(wrapped, cut(wrapped, 4000))) == facts(decode(LONG_TS))


@settings(max_examples=15)
@given(shift=st.integers(0, (1 << 33) - 1) | st.integers(-400_000, 400_000).map(lambda ticks: ticks % (1 << 33)))
def test_a_clock_that_starts_again_goes_on(shift: int) -> None:
    """Where it starts further ahead than an hour, or before where it was. In between it is a gap, and stays one."""
    once = FILES["ts-h264-aac"]
    frames = decode(once + restamped(once, shift), cut(once + once, 3000))
    shown, alone = pictures(frames), pictures(decode(once))
    assert [frame.pixels.tobytes() for frame in shown] == [frame.pixels.tobytes() for frame in alone] * 2
    between = shown[len(alone)].pts_us - shown[len(alone) - 1].pts_us
    gap = shift * 100 // 9 - 900_000
    if not 0 < gap <= 3600 * 1_000_000:
        assert 0 < between < 400_000
    else:
        assert abs(between - gap) < 200_000
    apart = [frame.pts_us for frame in sounds(frames)][-1] - shown[-1].pts_us
    assert abs(apart - (sounds(decode(once))[-1].pts_us - alone[-1].pts_us)) < 150_000


def test_a_track_that_appears_later_is_taken() -> None:
    alone = encode_file("mpegts", "libx264", times=tuple(range(0, 1000, 100)))
    both = encode_file("mpegts", "libx264", "aac", times=tuple(range(0, 1000, 100)))
    later = restamped(both, 90_000)
    frames = decode(alone + later, cut(alone + later, 1000))
    shown = pictures(frames)
    assert len(shown) == 20 and set(steps(shown[:10]) + steps(shown[10:])) == {100_000}
    assert 100_000 <= shown[10].pts_us - shown[9].pts_us < 150_000
    assert length(sounds(frames)) == length(sounds(decode(both)))
    assert abs(sounds(frames)[0].pts_us - 1_000_000) < 100_000
    assert not pictures(decode(alone + later, kinds=("audio",)))


def test_m2ts_and_parity_between_packets(files: dict[str, bytes]) -> None:
    data = files["ts-h264-aac"]
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    for odd in (b"".join(bytes(4) + packet for packet in packets), b"".join(packet + bytes(16) for packet in packets)):
        assert facts(decode(odd, cut(odd, 700))) == facts(decode(data))


@pytest.mark.parametrize("bframes", ["0", "2"])
@pytest.mark.parametrize("kind", ["mp4", "mpegts", "matroska"])
def test_every_frame_has_its_time_to_the_end(kind: str, bframes: str) -> None:
    """Frames that the decoder holds back for their order come at the end, and at their own time."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=FRAGMENTED if kind == "mp4" else {}) as output:
        video: Any = output.add_stream("libx264", rate=2, options={"bf": bframes})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(9):
            picture = np.roll(np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3)), number * 5, 1)
            output.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        output.mux(video.encode(None))
    shown = pictures(decode(file.getvalue()))
    assert len(shown) == 9 and set(steps(shown)) == {500_000}


def boxes(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at : at + size])
        at += size
    return found


@settings(max_examples=20)
@given(letters=st.text("abcxyz", min_size=3, max_size=3), place=st.integers(0, 99), size=st.integers(8, 300))
def test_boxes_of_unknown_kinds_are_skipped(letters: str, place: int, size: int) -> None:
    data = FILES["fmp4-h264-aac"]
    parts = boxes(data)
    at = place % (len(parts) + 1)
    odd = struct.pack(">I", size) + letters.encode() + b"Z" + bytes(size - 8)
    # in front of all others it would be no MP4, and a fragment's samples are found by their distance from its header
    if at and parts[at - 1][4:8] != b"moof":
        odd = b"".join([*parts[:at], odd, *parts[at:]])
        assert facts(decode(odd, cut(odd, 500))) == facts(decode(data))


@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("odd", [b"", struct.pack(">I", 28) + b"abcd" + bytes(20)])
def test_a_plain_mp4_is_decoded_wherever_its_index_stands(front: bool, odd: bytes) -> None:
    data = encode_file("mp4", "libx264", "aac")
    with av.open(io.BytesIO(data), "r") as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    parts = {box[4:8]: box for box in boxes(data)}
    if front:  # samples are found by their place in the file: they move by what now stands in front of them
        moov = bytearray(parts[b"moov"])
        shift = len(moov) + len(odd)
        at = moov.find(b"stco")
        while at >= 0:
            count = int.from_bytes(moov[at + 8 : at + 12], "big")
            for place in range(at + 12, at + 12 + 4 * count, 4):
                moov[place : place + 4] = (int.from_bytes(moov[place : place + 4], "big") + shift).to_bytes(4, "big")
            at = moov.find(b"stco", at + 4)
        data = parts[b"ftyp"] + odd + bytes(moov) + parts[b"free"] + parts[b"mdat"]
    else:
        data += odd
    frames = decode(data, cut(data, 700))
    shown = pictures(frames)
    assert len(shown) == 10 and all(np.array_equal(a.pixels, b) for a, b in zip(shown, expected, strict=True))
    assert length(sounds(frames)) > 40_000


def test_an_index_behind_is_waited_for_within_bounds() -> None:
    data = encode_file("mp4", "libx264", "aac")
    with pytest.raises(LimitError, match="at most|within 5000 bytes.*faststart"):
        decode(data, cut(data, 700), limits=MediaLimits(max_index_behind_bytes=5000))
    with pytest.raises(DamagedError, match="expected an index .moov. behind its media data, got the end after"):
        decode(data[: data.index(b"moov") - 4])
