"""What `penstock ask` may show: files and what comes on stdin, as items. Knows PyAV; no sockets, no asyncio, no models.

In come words of the command line; out go `Source`s, whose pieces are items with the media time that is reached with
them. Cameras and microphones are in capture.py.
"""

from __future__ import annotations

import contextlib
import errno
import io
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

import av
from av.error import FFmpegError
from av.stream import Disposition

from ..codecs.picture import is_file
from ..codecs.sniff import OPENED, SOUND, first_bytes, sniff
from ..errors import FormatError, InputError
from ..streams.item import AudioBytes, Image, Item, VideoBytes

PICTURES = "a picture (JPEG, PNG, WebP, GIF)"
_HEAD_BYTES = 64 << 10
_BEHIND = -1
_VIDEO_PIECE_BYTES = 256 << 10
# A sound up to this size is decoded as one clip, like in the model's own processor.
_SOUND_PIECE_BYTES = 8 << 20
_PACED_US = 40_000
_STEP_US = {"video": 1_000_000, "audio": 1 << 62}


class TimedItem(NamedTuple):
    """An item and the media time, in microseconds on the stream's clock, that is reached with it (None: no time)."""

    item: Item
    stop_us: int | None


class Source(Protocol):
    """One MEDIA of the command line."""

    name: str
    live: bool  # It has a pace of its own and no end.

    def check(self) -> None:
        """Raise InputError or FormatError where it cannot be shown; says what to do. Opens nothing for good."""
        ...

    def pieces(self, start_us: int, paced: bool) -> Generator[TimedItem]:
        """Its items, on the stream's clock from `start_us` on; in small steps of media where `paced`. Blocks."""
        ...


class File:
    """A file: a picture, a video with its sound, or a sound."""

    live = False

    def __init__(self, path: Path, name: str | None = None) -> None:
        self.name = name or str(path)
        self._path = path

    def check(self) -> None:
        """Look at its first bytes and its tracks."""
        with self._open() as file:
            _kind(file, self.name)

    def pieces(self, start_us: int, paced: bool) -> Generator[TimedItem]:
        """A picture whole; else the file's bytes, cut by the times of its packets."""
        with self._open() as file:
            kind = _kind(file, self.name)
            if kind == "picture":
                yield TimedItem(Image(file.read()), None)
            elif _index_bytes(file) != _BEHIND:
                yield from _cut(self._path, self.name, kind, start_us, paced)
            else:
                with _index_moved(self._path, self.name) as path:
                    yield from _cut(path, self.name, kind, start_us, paced)

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            raise InputError(
                f"{self.name}: no such file; MEDIA is a file, camera, microphone, or - for what comes on stdin"
            ) from None
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror}") from None


class Stdin:
    """What comes on stdin, passed on while it comes. Once it is whole: an MP4 with a long index, or one at its end; and
    what is `followed` by another source, which begins where this one stops."""

    name = "-"
    live = False

    def __init__(self, followed: bool = False) -> None:
        self._followed = followed
        self._head = b""

    def check(self) -> None:
        """Refuse a terminal, and first bytes that are no media. Waits for these bytes."""
        if sys.stdin is None or sys.stdin.isatty():
            raise InputError(
                '-: expected media on stdin, got a terminal; for example: penstock ask - "What happens?" < clip.mp4'
            )
        while True:
            more = _stdin().read(_HEAD_BYTES - len(self._head))
            self._head += more
            try:
                if not self._index_is_far():
                    _kind(io.BytesIO(self._head), self.name)
                return
            except FormatError:
                if not more or len(self._head) == _HEAD_BYTES:
                    raise

    def pieces(self, start_us: int, paced: bool) -> Generator[TimedItem]:
        """What has been looked at by `check`, then the rest; the times of what is passed on at once are not known."""
        stdin, head = _stdin(), self._head
        if self._followed or self._index_is_far():
            yield from self._whole(start_us, paced)
            return
        kind = _kind(io.BytesIO(head), self.name)
        if kind == "picture":
            yield TimedItem(Image(head + stdin.readall()), None)
            return
        make = VideoBytes if kind == "video" else AudioBytes
        while head:
            yield TimedItem(make(head, pts_us=start_us), None)
            head = stdin.read(_VIDEO_PIECE_BYTES)
        yield TimedItem(make(b"", final=True, pts_us=start_us), None)

    def _index_is_far(self) -> bool:
        index_bytes = _index_bytes(io.BytesIO(self._head))
        return index_bytes == _BEHIND or index_bytes > len(self._head)

    def _whole(self, start_us: int, paced: bool) -> Iterator[TimedItem]:
        with _copy(self.name) as whole:
            with _room(self.name):
                whole.write(self._head)
                shutil.copyfileobj(_stdin(), whole)
                whole.flush()
            yield from File(Path(whole.name), self.name).pieces(start_us, paced)


def _stdin() -> io.FileIO:
    """Stdin without a buffer: its lock could not be had at the end where a thread still waits for bytes."""
    return cast(io.FileIO, cast(io.BufferedReader, sys.stdin.buffer).raw)


def _kind(file: BinaryIO, name: str) -> str:
    """ "picture", "video" (with or without sound) or "audio", by the content; the file is at its start again."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if not head:
        raise FormatError(f"{name}: expected {PICTURES} or {OPENED}, got an empty file")
    if is_file(head):
        return "picture"
    if head[:3] == b"ID3":
        return "audio"
    try:
        demuxer = sniff(head)
    except FormatError:
        demuxer = None
    if demuxer is None:
        convert = "convert it, for example: ffmpeg -i IN out.mp4"
        raise FormatError(f"{name}: expected {PICTURES} or {OPENED}, got {first_bytes(head)}; {convert}")
    if demuxer in SOUND:
        return "audio"
    kind = _kind_of_tracks(file, demuxer, name)
    file.seek(0)
    return kind


def _kind_of_tracks(file: BinaryIO, demuxer: str, name: str) -> str:
    try:
        with av.open(file, "r", format=demuxer) as container:
            pictures = [t for t in container.streams.video if not t.disposition & Disposition.attached_pic]
            sounds = container.streams.audio
    except FFmpegError as error:
        raise FormatError(f"{name}: expected a whole file, got one that cannot be read: {error.strerror}") from None
    if not pictures and not sounds:
        raise FormatError(f"{name}: expected pictures or sound in it, got neither")
    return "video" if pictures else "audio"


def _index_bytes(file: BinaryIO) -> int:
    """Where the index of an MP4 stops; `_BEHIND` where it stands after media data, 0 where the file is no MP4.

    The file is at its start again.
    """
    at, found = 0, 0
    file.seek(0)
    while len(head := file.read(16)) >= 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if at == 0 and kind not in (b"ftyp", b"styp", b"moov"):
            break
        if kind in (b"moov", b"mdat"):
            found = at + size if kind == b"moov" else _BEHIND
            break
        at += max(size, 8)
        file.seek(at)
    file.seek(0)
    return found


@contextlib.contextmanager
def _room(name: str) -> Iterator[None]:
    """InputError where the disk has no room for a copy."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{name}: expected room for a copy of it in {tempfile.gettempdir()}, got none: "
            "make room, or set TMPDIR to another disk"
        ) from None


@contextlib.contextmanager
def _copy(name: str) -> Iterator[Any]:
    """An empty file that is gone afterwards."""
    try:
        file = tempfile.NamedTemporaryFile(suffix=".mp4")
    except OSError as error:
        raise InputError(f"{name}: expected a folder for a copy of it, got {error}: set TMPDIR to one") from None
    with file:
        yield file


@contextlib.contextmanager
def _index_moved(path: Path, name: str) -> Iterator[Path]:
    """A copy of an MP4 with its index in front; packets and times stay. Gone afterwards."""
    with _copy(name) as copy:
        try:
            with (
                _room(name),
                av.open(path, "r", format="mov") as source,
                av.open(copy.name, "w", format="mp4", options={"movflags": "faststart"}) as target,
            ):
                pictures = [t for t in source.streams.video if not t.disposition & Disposition.attached_pic]
                tracks = [*pictures[:1], *source.streams.audio[:1]]
                copies = {track.index: target.add_stream_from_template(track) for track in tracks}
                for packet in source.demux(tracks):
                    if packet.dts is not None:
                        packet.stream = copies[packet.stream_index]
                        target.mux(packet)
        except (FFmpegError, ValueError) as error:
            raise FormatError(f"{name}: expected a whole MP4, got one that cannot be read: {error}") from None
        yield Path(copy.name)


def _cut(path: Path, name: str, kind: str, start_us: int, paced: bool) -> Iterator[TimedItem]:
    """The bytes of a file in pieces; each says up to where in time its packets go."""
    make, most_bytes = (VideoBytes, _VIDEO_PIECE_BYTES) if kind == "video" else (AudioBytes, _SOUND_PIECE_BYTES)
    step_us = _PACED_US if paced else _STEP_US[kind]
    left = path.stat().st_size
    with path.open("rb") as file:
        for end, time_us in _ends(path, name, step_us):
            while file.tell() < end and (data := file.read(min(most_bytes, end - file.tell()))):
                left -= len(data)
                yield TimedItem(make(data, final=not left, pts_us=start_us), start_us + time_us)
    if left:
        raise InputError(f"{name}: expected {left} more bytes, got the end of the file; it has changed meanwhile")


def _ends(path: Path, name: str, step_us: int) -> Iterator[tuple[int, int]]:
    """(bytes from the file's start, media time that is reached with them) about every `step_us`; last the whole."""
    end = time_us = told_us = 0
    first_us: int | None = None
    try:
        with av.open(path, "r") as container:
            # MPEG-TS has a clock that starts anywhere: the engine counts from its start, and so do we.
            floating = container.format.name == "mpegts"
            for packet in container.demux():
                if packet.pts is None or packet.time_base is None or packet.pos is None or packet.pos < 0:
                    continue
                stop = round((packet.pts + (packet.duration or 0)) * packet.time_base * 1_000_000)
                if first_us is None:
                    first_us = round(packet.pts * packet.time_base * 1_000_000) if floating else 0
                end, time_us = max(end, packet.pos + packet.size), max(time_us, stop - first_us)
                if time_us >= told_us + step_us:
                    told_us = time_us
                    yield end, time_us
    except FFmpegError as error:
        if not end:
            raise FormatError(f"{name}: expected media, got a file that cannot be read: {error.strerror}") from None
        # What is broken further on is found by who decodes it.
    yield path.stat().st_size, time_us
