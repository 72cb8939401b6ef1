"""A small film of Brook's world, and any film in pieces.

In come a length and a container; out go the bytes of a real file (H.264 and AAC in fragmented MP4, or VP8 and Opus in
WebM), and for any such file the pieces in which it is played. Knows PyAV and numpy; no engine, no sockets.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np
from av.error import FFmpegError

from .brook.draw import Painter
from .brook.film import SIZE, encode
from .brook.sound import Bank
from .brook.world import Change, Scene, Sound, Thing

_CIRCLE = Thing(0, "circle", "red", "large", 0.15, 1 / 6, 0.5, 3)
_SQUARE = Thing(1, "square", "yellow", "small", 0.1, 0.5, 5 / 6, 7)
_STAR = Thing(2, "star", "green", "large", 0.15, 0.5, 1 / 6, 1)
STORY = Scene(
    seed=3,
    seconds=12.0,
    things=(_CIRCLE, _SQUARE),
    changes=(
        Change("moved", 2.0, 2.9, _CIRCLE, _CIRCLE._replace(x=5 / 6, place=5), "right"),
        Change("turned", 4.2, 4.2, _SQUARE, _SQUARE._replace(colour="blue")),
        Change("came", 6.2, 6.2, _STAR, _STAR),
        Change("left", 8.2, 8.2, _SQUARE._replace(colour="blue"), _SQUARE._replace(colour="blue")),
        Change(
            "turned", 10.2, 10.2, _CIRCLE._replace(x=5 / 6, place=5), _CIRCLE._replace(x=5 / 6, place=5, colour="white")
        ),
    ),
    sounds=(Sound("beep", "high", 1.3, 1.5, 1), Sound("beep", "low", 5.3, 5.5, 2), Sound("beep", "high", 9.3, 9.5, 3)),
)


def draw(time_s: float) -> np.ndarray:
    """The picture at `time_s`, `(224, 224, 3)` uint8 RGB: a circle that moves, a square that changes its colour."""
    return _painter().picture(time_s)


@functools.cache
def _painter() -> Painter:
    return Painter(STORY, SIZE)


def make_film(seconds: float, container: str = "mp4") -> bytes:
    """The first `seconds` of the story as the bytes of a file that can be played while it arrives."""
    sounds = tuple(sound for sound in STORY.sounds if sound.stop < seconds)
    return encode(STORY._replace(seconds=seconds, sounds=sounds), Bank((), half=0), container)


class FilmPiece(NamedTuple):
    """The next bytes of a file and the media time, in microseconds from its start, that is reached with them."""

    data: bytes
    time_us: int


def pieces(file: bytes, step_us: int = 40_000) -> Iterator[FilmPiece]:
    """Cut a file into pieces of about `step_us` of media, by the times of its packets.

    ValueError where it cannot be read as a film.
    """
    ends: list[tuple[int, int]] = []  # (where a packet ends in the file, its time in us)
    try:
        with av.open(io.BytesIO(file), "r") as container:
            for packet in container.demux():
                if packet.pos is None or packet.pos < 0 or packet.pts is None or packet.time_base is None:
                    continue
                ends.append((packet.pos + packet.size, round(packet.pts * packet.time_base * 1_000_000)))
    except FFmpegError as error:
        raise ValueError(f"expected a film, got a file that cannot be read: {error}") from None
    if not ends:
        raise ValueError("expected a film, got a file without packets")
    zero_us = min(time_us for _, time_us in ends)
    start = reached_us = 0
    for end, time_us in sorted(ends):
        if time_us - zero_us >= reached_us + step_us and end > start:
            reached_us = time_us - zero_us
            yield FilmPiece(file[start:end], reached_us)
            start = end
    last_us = max(time_us for _, time_us in ends) - zero_us
    yield FilmPiece(file[start:], last_us)


class Film(NamedTuple):
    """A film that can be played: what it is made of, in words, and its pieces."""

    contents: str
    pieces: list[FilmPiece]


def read_film(file: bytes) -> Film:
    """The film in the bytes of a file. ValueError where it cannot be read as one."""
    cut = list(pieces(file))
    with av.open(io.BytesIO(file), "r") as container:
        pictures = [f"{track.codec_context.name} {track.width} x {track.height}" for track in container.streams.video]
        sounds = [track.codec_context.name for track in container.streams.audio]
    return Film(" and ".join(pictures + sounds), cut)
