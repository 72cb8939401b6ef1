"""An MP4 is cut at its boxes whatever they state: damage costs a fragment and is told, and nothing is held
without end.
"""

from __future__ import annotations

import functools
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from penstock.codecs.boxes import Boxes
from penstock.codecs.container import MediaDecoder
from penstock.codecs.frame import Lost, Pixels, Samples
from penstock.codecs.limits import MediaLimits
from penstock.demos.film import make_film
from penstock.errors import LimitError, MediaError

from tests.codecs.conftest import FRAGMENTED, encode_file

MIB = 1 << 20
Shown = dict[int, bytes]


@functools.cache
def film(name: str) -> bytes:
    """Ours, in which few fragments begin with a key frame, and one in which all do."""
    if name == "ours":
        return make_film(4.0)
    return encode_file("mp4", "libx264", None, FRAGMENTED, times=tuple(range(0, 2000, 100)))


def seen(data: bytes, step: int) -> tuple[Shown, list[Lost], MediaError | None]:
    """The pictures by their times, what was lost, and the error at the end."""
    decoder, shown, error = MediaDecoder(kinds=("video",)), {}, None
    try:
        for at in range(0, len(data) + step, step):
            for batch in decoder.read(data[at : at + step], final=at >= len(data)):
                shown |= {frame.pts_us: frame.pixels.tobytes() for frame in batch if isinstance(frame, Pixels)}
    except MediaError as failure:
        error = failure
    finally:
        decoder.close()
    return shown, decoder.lost, error


@functools.cache
def whole(name: str) -> Shown:
    return seen(film(name), 1500)[0]


def heads(data: bytes | bytearray, *kinds: bytes) -> list[int]:
    """Where the boxes of these kinds begin."""
    found, at = [], 0
    while at < len(data):
        if data[at + 4 : at + 8] in kinds:
            found.append(at)
        at += int.from_bytes(data[at : at + 4], "big")
    return found


def check(name: str, bad: bytes, step: int) -> Shown:
    """What comes is right, the end comes, and what is missing is told."""
    right = whole(name)
    shown, lost, error = seen(bad, step)
    assert all(right.get(time) == pixels for time, pixels in shown.items())
    assert len(shown) == len(right) or lost or error is not None
    return shown


@settings(max_examples=12)
@given(
    name=st.sampled_from(["ours", "keys"]),
    fragment=st.integers(0, 99),
    size=st.integers(0, 400) | st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, MIB, 64 * MIB, 64 * MIB + 1]),
    beyond=st.booleans(),
    step=st.sampled_from([50, 1500, 1 << 20]),
)
@example(name="ours", fragment=2, size=0x100B0, beyond=False, step=1500)
@example(name="ours", fragment=2, size=0xFFFFFF, beyond=False, step=1500)
@example(name="ours", fragment=2, size=65536, beyond=True, step=1500)
@example(name="ours", fragment=2, size=64 * MIB, beyond=False, step=1500)
@example(name="ours", fragment=2, size=0, beyond=False, step=1500)
@example(name="ours", fragment=2, size=1, beyond=False, step=1500)
@example(name="keys", fragment=0, size=24, beyond=False, step=1500)
@example(name="keys", fragment=3, size=65536, beyond=True, step=1500)
def test_a_wrong_size_of_a_fragment_costs_that_fragment(
    name: str, fragment: int, size: int, beyond: bool, step: int
) -> None:
    data = film(name)
    places = heads(data, b"moof")
    number = fragment % len(places)
    at = places[number]
    real = int.from_bytes(data[at : at + 4], "big")
    stated = min(real + size, 2**32 - 1) if beyond else size
    bad = data[:at] + struct.pack(">I", stated) + data[at + 4 :]
    shown = check(name, bad, step)
    if name == "ours":  # of which each half begins with a key frame
        assert len(shown) > 20
    else:
        assert len(shown) >= len(whole(name)) * (len(places) - 1) // len(places)


@settings(max_examples=12)
@given(
    name=st.sampled_from(["ours", "keys"]),
    box=st.integers(0, 99),
    place=st.integers(0, 7),
    value=st.integers(0, 255),
    step=st.sampled_from([50, 1500, 1 << 20]),
)
@example(name="ours", box=2, place=4, value=ord("M"), step=50)
@example(name="keys", box=3, place=5, value=ord("$"), step=1500)
def test_no_byte_of_a_head_costs_pictures_in_silence(name: str, box: int, place: int, value: int, step: int) -> None:
    data = film(name)
    places = heads(data, b"moof", b"mdat")
    at = places[box % len(places)] + place
    check(name, data[:at] + bytes([value]) + data[at + 1 :], step)


@settings(max_examples=20)
@given(
    name=st.sampled_from(["ours", "keys"]),
    fragment=st.integers(0, 99),
    place=st.integers(8, 99),
    change=st.integers(1, 255),
    step=st.sampled_from([50, 1500, 1 << 20]),
)
@example(name="ours", fragment=2, place=97, change=1, step=1500)  # samples behind the end of the fragment
@example(name="ours", fragment=1, place=37, change=31, step=1500)  # no header of a track
@example(name="keys", fragment=2, place=46, change=208, step=1500)  # no such track
@example(name="keys", fragment=2, place=87, change=2, step=1500)  # no samples
@example(name="keys", fragment=2, place=77, change=81, step=1500)  # a time far ahead
@example(name="keys", fragment=1, place=49, change=123, step=1500)  # samples that last long
def test_no_byte_of_a_fragments_boxes_costs_pictures_in_silence(
    name: str, fragment: int, place: int, change: int, step: int
) -> None:
    """Up to the table of its first track's samples. Damaged times may move pictures, and lose none."""
    data = bytearray(film(name))
    places = heads(data, b"moof")
    data[places[fragment % len(places)] + place] ^= change
    shown, lost, error = seen(bytes(data), step)
    assert set(shown.values()) <= set(whole(name).values())
    assert len(shown) == len(whole(name)) or lost or error is not None
    if name == "keys":
        assert len(shown) >= len(whole(name)) * (len(places) - 1) // len(places)


@pytest.mark.parametrize("duration", ["", "150000"])
@pytest.mark.parametrize(
    "flags",
    ["", "default_base_moof", "omit_tfhd_offset", "separate_moof", "frag_every_frame", "dash", "cmaf", "delay_moov"],
)
def test_fragments_of_all_kinds_are_whole(flags: str, duration: str) -> None:
    """As FFmpeg writes them; nothing in them is taken for damage."""
    options = {"movflags": f"frag_keyframe+empty_moov+{flags}".rstrip("+"), "write_prft": "wallclock"}
    if duration:
        options["frag_duration"] = duration
    data = encode_file("mp4", "libx264", "aac", options)
    decoder = MediaDecoder()
    frames = [frame for at in range(0, len(data), 700) for frame in decoder.feed(data[at : at + 700])]
    frames += decoder.flush()
    assert not decoder.lost and sum(isinstance(frame, Pixels) for frame in frames) == 10
    assert sum(frame.samples.shape[1] for frame in frames if isinstance(frame, Samples)) > 35_000


@given(gaps=st.lists(st.integers(-5000, 5000), min_size=1, max_size=3), step=st.sampled_from([50, 1 << 20]))
def test_a_fragment_whose_time_goes_back_is_shown(gaps: list[int], step: int) -> None:
    """Its clock was started again, as with any other file."""
    data = bytearray(film("keys"))
    for at, gap in zip(heads(data, b"moof")[1:], gaps, strict=False):
        place = data.index(b"tfdt", at) + 8
        ticks = int.from_bytes(data[place : place + 8], "big")
        data[place : place + 8] = max(0, ticks + gap).to_bytes(8, "big")
    shown, lost, error = seen(bytes(data), step)
    assert list(shown.values()) == list(whole("keys").values()) and not lost and error is None
    assert list(shown) == sorted(shown)


@pytest.mark.parametrize("kind", [b"ftyp", b"moov"])
def test_a_front_that_swallows_fragments_is_told_at_once(kind: bytes) -> None:
    """Nothing can be decoded without it, and a live source has no end."""
    data = film("ours")
    at = heads(data, kind)[0]
    bad = data[:at] + struct.pack(">I", MIB) + data[at + 4 :]
    decoder = MediaDecoder()
    with pytest.raises(MediaError, match=f"expected a {kind.decode()} box of 1048576 bytes, got a fragment in it"):
        decoder.feed(bad)
    decoder.close()


def feed(cutter: Boxes, size: int, step: int = 64 << 10) -> None:
    """Give it zeros."""
    held = bytearray()
    for _ in range(0, size, step):
        held += bytes(step)
        cutter.take(held)


def begun(kind: bytes, size: int, limits: MediaLimits) -> Boxes:
    """A file whose second box is of this kind."""
    cutter = Boxes(limits)
    cutter.take(bytearray(struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", size, kind)))
    return cutter


@pytest.mark.parametrize("kind", [b"free", b"skip", b"wide"])
def test_what_stands_in_front_of_an_index_is_bounded(kind: bytes) -> None:
    with pytest.raises(LimitError, match="an index .moov. within 67108864 bytes"):
        feed(begun(kind, 2**31 - 1, MediaLimits()), 65 * MIB)


def test_the_files_that_wait_for_their_index_share_room() -> None:
    limits = MediaLimits(max_index_behind_bytes=4 * MIB, max_waiting_bytes=6 * MIB)
    first, second, third = (begun(b"mdat", 100 * MIB, limits) for _ in range(3))
    feed(first, 3 * MIB)
    feed(second, 2 * MIB)
    with pytest.raises(LimitError, match="within 6291456 bytes of all files that wait for theirs.*faststart"):
        feed(third, 2 * MIB)
    del first  # its stream is closed
    feed(second, MIB)
    with pytest.raises(LimitError, match="within 4194304 bytes, got"):
        feed(second, 2 * MIB)
    feed(begun(b"mdat", 100 * MIB, limits), 3 * MIB)


def test_a_closed_decoder_waits_no_longer() -> None:
    limits = MediaLimits(max_waiting_bytes=2 * MIB)
    head = struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", 100 * MIB, b"mdat")
    for _ in range(3):
        decoder = MediaDecoder(limits)
        decoder.feed(head + bytes(3 * MIB // 2))
        decoder.close()


@pytest.mark.parametrize("indexed", [False, True])
def test_media_that_is_larger_than_may_be_is_told_as_that(indexed: bool) -> None:
    """Not as damage, and not as another format."""
    front = film("ours")[: heads(film("ours"), b"moof")[0]] if indexed else struct.pack(">I4s", 8, b"ftyp")
    front = front.replace(b"mvex", b"free")  # the index of a plain file
    large = struct.pack(">I4sQ", 1, b"mdat", (2 << 30) + 100)
    cutter, held = Boxes(MediaLimits()), bytearray(front + large)
    with pytest.raises(LimitError, match="expected a box of at most 2147483648 bytes, got 2147483748"):
        while cutter.take(held):  # what comes before it is given first
            pass
