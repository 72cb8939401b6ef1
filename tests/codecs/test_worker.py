"""Worker processes: the results of the decoders in this process, and a fault that stays where it happened."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.error import MemoryError as MemoryFailure
from penstock.codecs import worker
from penstock.codecs.container import MediaDecoder
from penstock.codecs.damage import memory_is_short
from penstock.codecs.feeding import Decoded
from penstock.codecs.frame import Frame, Pixels
from penstock.codecs.limits import MediaLimits
from penstock.codecs.picture import decode_picture
from penstock.codecs.worker import WorkerPool
from penstock.errors import DamagedError, FormatError, InputError, LimitError, WorkerError
from PIL import Image


def run(decoder, data: bytes, step: int = 700) -> list[Frame]:
    frames = []
    for at in range(0, len(data), step):
        frames += decoder.feed(data[at : at + step])
    frames += decoder.flush()
    decoder.close()
    return frames


def facts(frames: list[Frame]) -> list[tuple]:
    arrays = [frame.pixels if isinstance(frame, Pixels) else frame.samples for frame in frames]
    return [
        (type(frame), frame.pts_us, getattr(frame, "rate", 0), array.shape, array.dtype, array.tobytes())
        for frame, array in zip(frames, arrays, strict=True)
    ]


def children() -> list[int]:
    return [child.pid or 0 for child in multiprocessing.active_children() if child.name.startswith("penstock-decode")]


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(2, MediaLimits(max_pixels=640 * 480))
    yield pool
    pool.close()


@pytest.fixture
def single() -> Iterator[WorkerPool]:
    pool = WorkerPool(1, wall_seconds=1.5)
    yield pool
    pool.close()


def png(size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", ["webm-vp8-opus", "fmp4-h264-aac", "flac"])
def test_equal_to_this_process(pool: WorkerPool, files: dict[str, bytes], name: str) -> None:
    kind = "audio" if name == "flac" else "video"
    frames = run(pool.decoder(kind, pts_us=5), files[name])
    assert facts(frames) == facts(run(MediaDecoder(pts_us=5), files[name]))
    assert all((frame.pixels if isinstance(frame, Pixels) else frame.samples).flags.writeable for frame in frames)


def test_audio_leaves_the_pictures_out(pool: WorkerPool, files: dict[str, bytes]) -> None:
    data = files["webm-vp8-opus"]
    assert facts(run(pool.decoder("audio"), data)) == facts(run(MediaDecoder(kinds=("audio",)), data))
    with pytest.raises(InputError, match="video, audio, got 'smell'"):
        pool.decoder("smell")


def test_pictures_and_errors_cross_over(pool: WorkerPool, files: dict[str, bytes]) -> None:
    assert np.array_equal(pool.picture(png()), decode_picture(png()))
    with pytest.raises(FormatError, match="SVG"):
        pool.picture(b"<svg></svg>")
    with pytest.raises(DamagedError):
        pool.picture(png()[:60])
    with pytest.raises(LimitError, match="307200 pixels, got 360000"):
        pool.picture(png((600, 600)))
    decoder = pool.decoder("video")
    with pytest.raises(FormatError, match="ffconcat"):
        decoder.feed(b"ffconcat version 1.0\nfile /etc/hostname\n")
    decoder.close()
    decoder.close()
    with pytest.raises(InputError):
        decoder.feed(b"x")


def test_many_decoders_at_once_from_many_threads(pool: WorkerPool, files: dict[str, bytes]) -> None:
    names = ["webm-vp8-opus", "ts-h264-aac", "mp3", "webm-vp9-opus"] * 2
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda name: facts(run(pool.decoder("video"), files[name])), names))
    for name, result in zip(names, results, strict=True):
        assert result == facts(run(MediaDecoder(), files[name]))


def test_a_worker_that_dies_takes_only_its_own_decoders(files: dict[str, bytes]) -> None:
    data = files["webm-vp8-opus"]
    pool = WorkerPool(2)
    before = set(children())
    first = pool.decoder("video")
    (victim,) = set(children()) - before
    second = pool.decoder("video")
    head = first.feed(data[:5000]), second.feed(data[:5000])
    os.kill(victim, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(WorkerError, match=f"{victim}.*SIGKILL"):
            first.feed(data[5000:])
    first.close()
    rest = [*head[1], *second.feed(data[5000:]), *second.flush()]
    assert facts(rest) == facts(run(MediaDecoder(), data))
    third = pool.decoder("video")
    assert facts(run(third, data)) == facts(rest)
    assert victim not in children() and len(set(children()) - before) == 2
    pool.close()
    assert set(children()) == before


@pytest.mark.parametrize("fault", ["while it decodes", "while it answers"])
def test_a_fault_of_ours_costs_one_call(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The process, and with it other clients' decoders, goes on."""
    perform = worker._perform

    def failing(request: Any, *rest: Any) -> Any:
        if not isinstance(request, worker._Further):
            return perform(request, *rest)
        if fault == "while it decodes":
            raise OverflowError("too large")
        return Decoded([Pixels(np.zeros((1, 1, 3), np.uint8), 1 << 70)], [], False)

    monkeypatch.setattr(worker, "_perform", failing)
    monkeypatch.setattr(worker, "_limit_memory", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=worker.serve, args=(theirs, MediaLimits(), 0))
    thread.start()
    with theirs, ours:
        started = _reply(ours)
        assert b"heads" in started
        worker._send(ours, worker._Further(decoder=1))
        assert b"OverflowError" in _reply(ours)
        worker._send(ours, worker._Picture(), png((1, 1)))
        assert b"OverflowError" not in _reply(ours)
        ours.shutdown(socket.SHUT_RDWR)
        thread.join(20)
        assert not thread.is_alive()


def _reply(peer: socket.socket) -> bytes:
    length = bytearray(worker._LENGTH.size)
    worker._receive_into(peer, memoryview(length))
    data = bytearray(worker._LENGTH.unpack(length)[0])
    worker._receive_into(peer, memoryview(data))
    return bytes(data)


@pytest.mark.parametrize("name", ["ts-h264-aac", "fmp4-h264-aac", "adts-aac"])
def test_losses_and_damage_cross_over(pool: WorkerPool, files: dict[str, bytes], name: str) -> None:
    data = bytearray(files[name])
    for at in range(len(data) * 2 // 3, len(data) * 5 // 6, 97):
        data[at] ^= 0x5A
    here, there = MediaDecoder(), pool.decoder("video")
    assert facts(run(there, bytes(data))) == facts(run(here, bytes(data)))
    assert there.lost == here.lost and here.lost
    here, there = MediaDecoder(), pool.decoder("video")
    for decoder in (here, there):
        with pytest.raises(DamagedError, match="expected"):
            run(decoder, files[name][:150])


def test_more_frames_than_one_batch_come_one_after_another(pool: WorkerPool, files: dict[str, bytes]) -> None:
    data = files["webm-vp8-opus"]
    small = WorkerPool(1, MediaLimits(max_decoded_bytes=40_000))
    for decoder in (small.decoder("video"), MediaDecoder(MediaLimits(max_decoded_bytes=40_000))):
        batches = [*decoder.read(data), *decoder.read(b"", final=True)]
        assert len(batches) > 4 and facts(sum(batches, [])) == facts(run(MediaDecoder(), data))
        decoder.close()
    small.close()


def test_a_short_memory_is_the_workers_fault_and_an_absurd_size_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = MemoryFailure(12, "Cannot allocate memory", "")
    assert memory_is_short(MemoryError()) and not memory_is_short(failure) and not memory_is_short(ValueError())

    def full(*_: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("mmap.mmap", full)
    assert memory_is_short(failure)


def test_a_worker_that_hangs_is_killed_and_replaced(single: WorkerPool, files: dict[str, bytes]) -> None:
    data = files["webm-vp8-opus"]
    before = set(children())
    for size in (2000, 8_000_000):  # the second does not even go into the socket
        decoder = single.decoder("video")
        decoder.feed(data[:1000])
        (worker,) = set(children()) - before
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(WorkerError, match="longer than 1.5 s"):
            decoder.feed(bytes(size))
        assert worker not in children()
        decoder.close()
    assert facts(run(single.decoder("video"), data)) == facts(run(MediaDecoder(), data))


def test_memory_is_bounded(files: dict[str, bytes]) -> None:
    pool = WorkerPool(1, MediaLimits(max_pixels=1 << 30, max_side=1 << 16), memory_bytes=64 << 20)
    with pytest.raises(WorkerError, match=str(64 << 20)):
        pool.picture(png((6000, 5000)))
    assert np.array_equal(pool.picture(png()), decode_picture(png()))
    data = files["webm-vp8-opus"]
    assert facts(run(pool.decoder("video"), data)) == facts(run(MediaDecoder(), data))
    pool.close()


def test_workers_start_when_needed_and_load_no_torch() -> None:
    before = set(children())
    pool = WorkerPool(2)
    assert set(children()) == before
    pool.picture(png())
    (worker,) = set(children()) - before
    maps = Path(f"/proc/{worker}/maps").read_text()
    assert "libav" in maps and "libtorch" not in maps
    pool.close()


def test_a_closed_pool(files: dict[str, bytes]) -> None:
    pool = WorkerPool(1)
    decoder = pool.decoder("video")
    pool.close()
    pool.close()
    with pytest.raises(WorkerError, match="closed"):
        decoder.feed(files["mp3"])
    decoder.close()
    with pytest.raises(WorkerError, match="closed"):
        pool.picture(png())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("penstock")]
