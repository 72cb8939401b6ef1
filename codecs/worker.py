"""Decoding of client media in worker processes with bounded memory and time. Comes in: bytes; goes out: frames.

Knows processes and the decoders of this folder; knows no torch, no asyncio and no streams. Each worker is a spawned
process that serves many decoders, one call at a time, over a socket pair: a msgspec message with its length in front,
then the media as raw bytes. A program that opens a pool needs the usual `if __name__ == "__main__"` of spawned
processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np

from .. import errors
from ..errors import InputError, WorkerError
from .container import MediaDecoder
from .feeding import Decoded
from .frame import Lost, Pixels, Samples
from .limits import DEFAULT_LIMITS, MediaLimits
from .picture import decode_picture
from .reading import Reading

KINDS = {"video": ("video", "audio"), "audio": ("audio",)}
_LENGTH = struct.Struct("<Q")
_START_SECONDS = 120.0


class _Open(msgspec.Struct, tag="open"):
    decoder: int
    kinds: tuple[str, ...]
    pts_us: int


class _Feed(msgspec.Struct, tag="feed"):
    decoder: int
    final: bool


class _Further(msgspec.Struct, tag="further"):
    decoder: int


class _Close(msgspec.Struct, tag="close"):
    decoder: int


class _Picture(msgspec.Struct, tag="picture"):
    pass


class _Head(msgspec.Struct):
    """What describes one array that follows as raw bytes: pixels where `rate` is 0, else samples."""

    shape: tuple[int, ...]
    rate: int
    pts_us: int


class _Frames(msgspec.Struct, tag="frames"):
    heads: list[_Head]
    lost: list[Lost]
    more: bool


class _Failed(msgspec.Struct, tag="failed"):
    error: str
    message: str


_Request = _Open | _Feed | _Further | _Close | _Picture
_Reply = _Frames | _Failed
_ENCODER = msgspec.msgpack.Encoder()


class WorkerPool:
    """Up to `size` processes that decode; each is started when it is first needed, and again after it died.

    `memory_bytes`: what a worker may add to the address space that it starts with (where the platform has RLIMIT_AS).
    `wall_seconds`: the longest that one call may take in the worker; after that it is killed. Safe to use from several
    threads. A worker that dies takes only the decoders with it that it served: their calls raise WorkerError.
    """

    def __init__(
        self,
        size: int = 2,
        limits: MediaLimits = DEFAULT_LIMITS,
        memory_bytes: int = 2 << 30,
        wall_seconds: float = 30.0,
    ) -> None:
        if size < 1:
            raise InputError(f"worker pool: expected a size of at least 1, got {size}")
        self._limits = limits
        self._memory_bytes = memory_bytes
        self._wall_seconds = wall_seconds
        self._workers: list[_Worker | None] = [None] * size
        self._closed = False
        self._lock = threading.Lock()

    def decoder(self, kind: str = "video", pts_us: int = 0) -> RemoteDecoder:
        """A decoder of one file in the least busy worker: "video" (with its sound) or "audio"; see `MediaDecoder`."""
        if kind not in KINDS:
            raise InputError(f"decoder: expected a kind of {', '.join(KINDS)}, got {kind!r}")
        return RemoteDecoder(self._reserve(), KINDS[kind], pts_us, self._limits.max_decoded_bytes)

    def picture(self, data: bytes | bytearray | memoryview) -> np.ndarray:
        """`decode_picture` in the least busy worker; the same errors, and WorkerError."""
        worker = self._reserve()
        try:
            frame = worker.call(_Picture(), data).frames[0]
        finally:
            worker.release()
        assert isinstance(frame, Pixels)
        return frame.pixels

    def close(self) -> None:
        """Kill all workers; calls that run raise WorkerError. Idempotent."""
        with self._lock:
            self._closed = True
            workers = [worker for worker in self._workers if worker is not None]
            self._workers.clear()
        for worker in workers:
            worker.end("the pool was closed")

    def _reserve(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise WorkerError("worker pool: expected an open pool, got one that was closed")
            places = range(len(self._workers))
            place = min(places, key=lambda place: self._load(self._workers[place]))
            worker = self._workers[place]
            if worker is None or worker.why is not None:
                worker = _Worker(place, self._limits, self._memory_bytes, self._wall_seconds)
                self._workers[place] = worker
            worker.reserve()
            return worker

    @staticmethod
    def _load(worker: _Worker | None) -> int:
        return 0 if worker is None or worker.why is not None else worker.users


class RemoteDecoder(Reading):
    """A `MediaDecoder` that lives in a worker: the same calls, frames, losses and errors, and WorkerError."""

    def __init__(self, worker: _Worker, kinds: tuple[str, ...], pts_us: int, max_decoded_bytes: int) -> None:
        super().__init__(max_decoded_bytes)
        self._worker = worker
        self._id = next(worker.ids)
        self._open = True
        try:
            worker.call(_Open(self._id, kinds, pts_us))
        except BaseException:
            self._open = False
            worker.release()
            raise

    def close(self) -> None:
        """Let go of the decoder in the worker; idempotent, and silent where the worker is dead."""
        if self._open:
            self._open = False
            with contextlib.suppress(WorkerError):
                self._worker.call(_Close(self._id))
            self._worker.release()

    def begin(self, data: bytes | bytearray | memoryview, final: bool) -> Decoded:
        return self._call(_Feed(self._id, final), data)

    def further(self) -> Decoded:
        return self._call(_Further(self._id))

    def _call(self, request: _Request, data: bytes | bytearray | memoryview = b"") -> Decoded:
        if not self._open:
            raise InputError("media: expected an open decoder, got one that was closed")
        return self._worker.call(request, data)


class _Worker:
    """One process, seen from the parent. `why` says why it is dead; `users` counts its decoders and pictures."""

    def __init__(self, place: int, limits: MediaLimits, memory_bytes: int, wall_seconds: float) -> None:
        self.why: str | None = None
        self.users = 0
        self.ids = itertools.count()
        self._wall_seconds = wall_seconds
        self._lock = threading.Lock()
        self._count_lock = threading.Lock()
        self._replies = msgspec.msgpack.Decoder(_Reply)
        self._socket, theirs = socket.socketpair()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(theirs, limits, memory_bytes), name=f"penstock-decode-{place}", daemon=True
        )
        with theirs:
            self._process.start()
        self.pid = self._process.pid or 0
        self._started = False

    def reserve(self) -> None:
        """Count one more decoder or picture; `release` counts it off."""
        with self._count_lock:
            self.users += 1

    def release(self) -> None:
        with self._count_lock:
            self.users -= 1

    def call(self, request: _Request, data: bytes | bytearray | memoryview = b"") -> Decoded:
        """One request and its reply. Kills the worker where it does not answer in time or breaks the exchange."""
        with self._lock:
            if self.why is None:
                try:
                    if not self._started:
                        self._receive_frames(time.monotonic() + _START_SECONDS)  # its first message: it has started
                        self._started = True
                    deadline = time.monotonic() + self._wall_seconds
                    self._socket.settimeout(self._wall_seconds)
                    _send(self._socket, request, data)
                    return self._receive_frames(deadline)
                except TimeoutError:
                    self.end(f"one call took longer than {self._wall_seconds} s")
                except (OSError, EOFError):
                    self._process.join(5)
                    self.end(f"it ended with {_ending(self._process.exitcode)}")
            raise WorkerError(f"decoding process {self.pid}: {self.why}")

    def end(self, why: str) -> None:
        """Kill the process; a call that waits in another thread ends."""
        self.why = self.why or why
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._process.kill()
        self._process.join()
        self._socket.close()

    def _receive_frames(self, deadline: float) -> Decoded:
        reply = self._replies.decode(_receive(self._socket, deadline))
        if isinstance(reply, _Failed):
            raise getattr(errors, reply.error)(reply.message)
        frames = []
        for head in reply.heads:
            array = np.empty(head.shape, np.float32 if head.rate else np.uint8)
            _receive_into(self._socket, array.reshape(-1).view(np.uint8).data, deadline)
            if head.rate:
                frames.append(Samples(samples=array, rate=head.rate, pts_us=head.pts_us))
            else:
                frames.append(Pixels(pixels=array, pts_us=head.pts_us))
        return Decoded(frames, reply.lost, reply.more)


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit code {exitcode}"


def _send(peer: socket.socket, message: msgspec.Struct, data: bytes | bytearray | memoryview = b"") -> None:
    """A message with its length, then `data` with its length."""
    head = _ENCODER.encode(message)
    peer.sendall(b"".join((_LENGTH.pack(len(head)), head, _LENGTH.pack(len(data)))))
    peer.sendall(data)


def _receive(peer: socket.socket, deadline: float | None = None) -> bytearray:
    """Bytes with their length in front. EOFError where the other side is gone, TimeoutError after `deadline`."""
    length = bytearray(_LENGTH.size)
    _receive_into(peer, memoryview(length), deadline)
    data = bytearray(_LENGTH.unpack(length)[0])
    _receive_into(peer, memoryview(data), deadline)
    return data


def _receive_into(peer: socket.socket, view: memoryview, deadline: float | None = None) -> None:
    while len(view):
        if deadline is not None:
            peer.settimeout(max(deadline - time.monotonic(), 1e-3))
        count = peer.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]


def serve(peer: socket.socket, limits: MediaLimits, memory_bytes: int) -> None:
    """The life of a worker process: answer requests until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the socket
    _limit_memory(memory_bytes)
    requests = msgspec.msgpack.Decoder(_Request)
    decoders: dict[int, MediaDecoder] = {}
    _answer(peer, *_packed(Decoded([], [], False)))
    with contextlib.suppress(EOFError, OSError):
        while True:
            request, data = requests.decode(_receive(peer)), _receive(peer)
            try:
                head, arrays = _packed(_perform(request, data, decoders, limits))
            except MemoryError:
                message = f"decoding needed more than the {memory_bytes} bytes of memory that a worker may add"
                _refuse(peer, WorkerError(message))
            except errors.PenstockError as error:
                _refuse(peer, error)
            except Exception as error:  # ours: others have decoders here, which go on
                _refuse(peer, WorkerError(f"decoding failed: {type(error).__name__}: {error}"))
            else:
                _answer(peer, head, arrays)


def _perform(request: _Request, data: bytearray, decoders: dict[int, MediaDecoder], limits: MediaLimits) -> Decoded:
    nothing = Decoded([], [], False)
    if isinstance(request, _Picture):
        return nothing._replace(frames=[Pixels(pixels=decode_picture(data, limits), pts_us=0)])
    if isinstance(request, _Open):
        decoders[request.decoder] = MediaDecoder(limits, request.kinds, request.pts_us)
        return nothing
    if isinstance(request, _Feed):
        return decoders[request.decoder].begin(data, request.final)
    if isinstance(request, _Further):
        return decoders[request.decoder].further()
    decoders.pop(request.decoder).close()
    return nothing


def _packed(batch: Decoded) -> tuple[bytes, list[np.ndarray]]:
    """The reply that describes a batch, and its pixels and samples, which follow it."""
    arrays, heads = [], []
    for frame in batch.frames:
        array = frame.pixels if isinstance(frame, Pixels) else frame.samples
        rate = 0 if isinstance(frame, Pixels) else frame.rate
        heads.append(_Head(shape=array.shape, rate=rate, pts_us=frame.pts_us))
        arrays.append(array)
    return _ENCODER.encode(_Frames(heads, batch.lost, batch.more)), arrays


def _answer(peer: socket.socket, head: bytes, arrays: list[np.ndarray]) -> None:
    peer.sendall(_LENGTH.pack(len(head)) + head)
    for array in arrays:
        peer.sendall(array.reshape(-1).view(np.uint8).data)


def _refuse(peer: socket.socket, error: Exception) -> None:
    head = _ENCODER.encode(_Failed(error=type(error).__name__, message=str(error)))
    peer.sendall(_LENGTH.pack(len(head)) + head)


def _limit_memory(memory_bytes: int) -> None:
    """Bound the address space to what is mapped now and `memory_bytes` more, where the platform can."""
    if sys.platform == "win32":
        return
    import resource

    statistics = Path("/proc/self/statm")
    mapped = int(statistics.read_text().split()[0]) * resource.getpagesize() if statistics.exists() else 0
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(-8, 1)  # M_ARENA_MAX: glibc maps 64 MiB for each thread that allocates otherwise
    limit = mapped + memory_bytes
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
