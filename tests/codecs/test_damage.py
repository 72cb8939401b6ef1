"""A fault costs what it hits: the rest comes, the loss is told, and nothing but media errors ever comes out."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import pytest
from penstock.codecs.container import MediaDecoder
from penstock.codecs.frame import Frame, Lost, Pixels, Samples
from penstock.codecs.limits import MediaLimits
from penstock.demos.film import make_film
from penstock.errors import DamagedError, FormatError, LimitError, MediaError

from tests.codecs.conftest import FRAGMENTED, RECIPES, encode_file
from tests.codecs.test_container import pictures, sounds

FILES = {name: encode_file(**recipe) for name, recipe in RECIPES.items() if name != "webm-av1"}
TIMES = tuple(range(0, 4000, 100))


def heard(data: bytes, step: int = 1500, **options) -> tuple[list[Frame], list[Lost], MediaError | None]:
    """The frames, the losses, and the error that ended it, if one did."""
    decoder, frames, error = MediaDecoder(**options), [], None
    try:
        for at in range(0, len(data), step):
            for batch in decoder.read(data[at : at + step]):
                frames += batch
        for batch in decoder.read(b"", final=True):
            frames += batch
    except MediaError as failure:
        error = failure
    finally:
        decoder.close()
    return frames, decoder.lost, error


def seconds(frames: list[Frame]) -> float:
    return sum(frame.samples.shape[1] / frame.rate for frame in sounds(frames))


@pytest.fixture(scope="module")
def tones() -> dict[str, bytes]:
    recipes = {
        "adts": ("adts", "aac", None),
        "mpegts": ("mpegts", "aac", None),
        "mp4": ("mp4", "aac", {**FRAGMENTED, "frag_duration": "300000"}),
        "mp3": ("mp3", "libmp3lame", None),
        "webm": ("webm", "libopus", None),
        "ogg": ("ogg", "libopus", {"page_duration": "100000"}),
        "flac": ("flac", "flac", None),
    }
    return {name: encode_file(kind, None, *rest, times=TIMES) for name, (kind, *rest) in recipes.items()}


@pytest.mark.parametrize("name", ["adts", "mpegts", "mp4", "mp3", "webm", "ogg", "flac"])
def test_one_bad_byte_costs_a_moment_of_sound(tones: dict[str, bytes], name: str) -> None:
    data, whole = tones[name], seconds(heard(tones[name])[0])
    for seed in range(12):
        noise = np.random.default_rng(seed)
        bad = bytearray(data)
        bad[int(noise.integers(len(data) // 4, len(data) * 3 // 4))] ^= int(noise.integers(1, 256))
        frames, _, error = heard(bytes(bad))
        assert error is None and seconds(frames) > 0.88 * whole, (name, seed)


def test_pictures_behind_damage_are_right_and_the_sound_goes_on() -> None:
    """Nothing is shown between the damage and the next key frame, and how much that is is told."""
    data = encode_file("mpegts", "libx264", "aac", size=(160, 120), times=TIMES)
    frames, _, _ = heard(data)
    right = {frame.pts_us: frame.pixels.tobytes() for frame in pictures(frames)}
    for seed in range(6):
        noise = np.random.default_rng(seed)
        packets = [data[at : at + 188] for at in range(0, len(data), 188)]
        kept = [packet for packet in packets[:20] if packet] + [p for p in packets[20:] if noise.random() > 0.02]
        some, lost, error = heard(b"".join(kept))
        shown = pictures(some)
        assert error is None and len(shown) > 5, seed
        assert all(right.get(frame.pts_us) == frame.pixels.tobytes() for frame in shown), seed
        missed = sum(loss.count for loss in lost if loss.modality == "video")
        assert missed and abs(len(right) - len(shown) - missed) <= 3, seed  # some are gone whole
        # what is missing at the very end nothing tells
        told = sum(loss.stop_us - loss.start_us for loss in lost if loss.modality == "audio") / 1e6
        assert seconds(some) > 0.6 * seconds(frames) and abs(seconds(frames) - seconds(some) - told) < 0.3, seed


def test_a_bad_packet_of_sound_leaves_the_picture_alone() -> None:
    data = bytearray(encode_file("matroska", "libx264", "aac", times=TIMES))
    at = len(data) // 2
    with av.open(io.BytesIO(bytes(data)), "r") as container:
        packet = next(packet for packet in container.demux(audio=0) if (packet.pos or 0) > at)
        start = data.index(bytes(packet))
        pts_us = round((packet.pts or 0) * packet.time_base * 1_000_000)
        data[start : start + packet.size] = b"\xff" * packet.size
    frames, lost, error = heard(bytes(data))
    assert error is None and len(pictures(frames)) == len(TIMES)
    assert [(loss.modality, loss.count) for loss in lost] == [("audio", 1)]
    assert lost[0].start_us == pts_us and 15_000 < lost[0].stop_us - pts_us < 30_000
    _, lost, _ = heard(bytes(data), pts_us=5_000_000)
    assert lost[0].start_us == 5_000_000 + pts_us


def test_a_stretch_of_damage_is_given_up_after_as_many_packets_as_may_be() -> None:
    data = bytearray(encode_file("matroska", None, "aac", times=TIMES))
    with av.open(io.BytesIO(bytes(data)), "r") as container:
        for packet in list(container.demux(audio=0))[40:-1]:
            start = data.index(bytes(packet))
            data[start : start + packet.size] = b"\xff" * packet.size
    frames, lost, error = heard(bytes(data), limits=MediaLimits(max_damaged_packets=20))
    assert isinstance(error, DamagedError) and "at most 20 damaged packets in a row" in str(error)
    assert seconds(frames) > 0.7 and sum(loss.count for loss in lost) == 21
    assert heard(bytes(data))[2] is None


def test_a_video_that_never_shows_a_key_frame_is_told() -> None:
    data = FILES["ts-h264-aac"]
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    kept = [p for p in packets if not (p[1] & 0x1F == 1 and p[2] == 0 and p[3] & 0x20 and p[5] & 0x40)]
    frames, _, error = heard(b"".join(kept))
    assert sounds(frames) and not pictures(frames)
    assert isinstance(error, DamagedError) and "video: expected at least one frame" in str(error)


@pytest.mark.parametrize("name", list(FILES))
def test_mutated_files_raise_media_errors_alone(name: str) -> None:
    """Bytes changed, removed, doubled and put in, 16 times for each kind of file; the seed is in the failure."""
    data = FILES[name]
    for seed in range(16):
        noise = np.random.default_rng([seed, len(data)])
        bad = bytearray(data)
        for _ in range(int(noise.integers(1, 12))):
            at, size = int(noise.integers(0, len(bad))), int(noise.integers(1, 40))
            match int(noise.integers(0, 4)):
                case 0:
                    bad[at : at + size] = noise.bytes(size)
                case 1:
                    del bad[at : at + size]
                case 2:
                    bad[at:at] = bad[at : at + size]
                case _:
                    bad[at : at + 4] = b"\xff\xff\xff\xff"
        try:
            frames, _, error = heard(bytes(bad), int(noise.integers(50, 4000)))
        except Exception as failure:
            raise AssertionError(f"{name}, seed {seed}") from failure
        assert error is None or isinstance(error, DamagedError | FormatError | LimitError), (name, seed, error)
        assert all(isinstance(frame, Pixels | Samples) for frame in frames)
        assert error is not None or frames, (name, seed)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -17.0])
@pytest.mark.parametrize("kind", ["wav", "matroska"])
def test_float_samples_that_are_no_sound_are_refused_with_their_place(kind: str, value: float) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as output:
        track: Any = output.add_stream("pcm_f32le", rate=16000, layout="mono")
        wave = np.full((1, 8000), 0.25, np.float32)
        wave[0, 4000:4003] = value
        frame = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        output.mux(track.encode(frame))
        output.mux(track.encode(None))
    frames, _, error = heard(file.getvalue())
    assert isinstance(error, DamagedError) and "sample 4000 (0.250 s)" in str(error) and "got 3 of" in str(error)
    assert all(np.isfinite(frame.samples).all() for frame in sounds(frames))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_fragment_whose_size_is_wrong_costs_that_fragment(size: int) -> None:
    film = bytearray(make_film(4.0))
    places = [at for at in range(len(film)) if film.startswith(b"moof", at)]
    film[places[2] - 4 : places[2]] = size.to_bytes(4, "big")
    decoder = MediaDecoder(kinds=("video",))
    times = [frame.pts_us for frame in [*decoder.feed(bytes(film)), *decoder.flush()]]
    whole = MediaDecoder(kinds=("video",))
    expected = [frame.pts_us for frame in [*whole.feed(make_film(4.0)), *whole.flush()]]
    assert set(times) < set(expected) and times[0] == expected[0] and times[-1] == expected[-1]
