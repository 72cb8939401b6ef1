"""Cuts MPEG-TS (ISO/IEC 13818-1) at its tables. Comes in: bytes from anywhere in a stream; goes out: pieces that begin
with the tables, which the demuxer needs first. Knows no codecs and no times.
"""

from __future__ import annotations

import numpy as np

from ..errors import DamagedError
from .piece import Piece

PACKET = 188
STRIDES = (PACKET, 192, 204)  # plain; with a clock in front (M2TS); with parity behind (DVB)
_SYNC = 0x47


def synced(data: bytes | bytearray, strides: tuple[int, ...] = STRIDES) -> tuple[int, int] | None:
    """Where the first packet begins and how far packets are apart, by three sync bytes; None where none is."""
    array = np.frombuffer(bytes(data), np.uint8) == _SYNC
    for stride in strides:
        count = len(array) - 2 * stride
        if count > 0:
            found = np.flatnonzero(array[:count] & array[stride : stride + count] & array[2 * stride :])
            if len(found):
                return int(found[0]), stride
    return None


class Transport:
    """Drops what comes before the first table of programs (PAT) and the map of one program (PMT).

    A program map that lists other tracks begins a new part, and so do tables that both stop being counted on: another
    stream begins there. The tracks of other programs are left to the demuxer.
    """

    def __init__(self) -> None:
        self._stride = 0
        self._programs = _Section(0)
        self._map: _Section | None = None
        self._tracks: tuple = ()  # the PID of the map, then kind and PID of each track
        self._started = False
        self._counts: dict[int, int] = {}  # the newest continuity counter of each PID

    def take(self, held: bytearray) -> list[Piece]:
        """The pieces that are complete at the front of `held`, which are removed from it."""
        pieces: list[Piece] = []
        while True:
            if not self._align(held):
                return pieces
            count = len(held) // self._stride
            if not count:
                return pieces
            packets = np.frombuffer(bytes(held[: count * self._stride]), np.uint8).reshape(count, self._stride)
            good = int(np.argmin(packets[:, 0] == _SYNC)) if (packets[:, 0] != _SYNC).any() else count
            self._pass(packets[:good, :PACKET], pieces)
            del held[: good * self._stride]

    def finish(self, held: bytearray) -> list[Piece]:
        """The last packet, where its end is missing only by what stands between packets."""
        last = bytes(held[:PACKET]) if self._stride and len(held) >= PACKET and held[0] == _SYNC else b""
        held.clear()
        pieces: list[Piece] = []
        if last:
            self._pass(np.frombuffer(last, np.uint8).reshape(1, PACKET), pieces)
        if not self._started:
            raise DamagedError("MPEG-TS: expected its tables (PAT and PMT), got none up to the end")
        return pieces

    def _align(self, held: bytearray) -> bool:
        """Drop what is in front of the next packet. False where more bytes are needed to find it."""
        if self._stride and (not held or held[0] == _SYNC):
            return True
        if self._stride and len(held) > self._stride and held[self._stride] == _SYNC:
            del held[: self._stride]  # one packet that has lost its mark
            return True
        found = synced(held, (self._stride,) if self._stride else STRIDES)
        if found is None:
            del held[: max(0, len(held) - 3 * max(STRIDES))]
            return False
        del held[: found[0]]
        self._stride = found[1]
        return True

    def _pass(self, packets: np.ndarray, pieces: list[Piece]) -> None:
        pids = (packets[:, 1].astype(np.int64) & 0x1F) << 8 | packets[:, 2]
        at = 0
        while True:
            wanted = pids[at:] == 0
            if self._map is not None:
                wanted |= pids[at:] == self._map.pid
            found = np.flatnonzero(wanted)
            stop = at + int(found[0]) if len(found) else len(packets)
            if self._started and stop > at:
                torn = self._skips(packets[at:stop], pids[at:stop])
                pieces.append(Piece(packets[at:stop].tobytes(), torn=torn))
            if stop == len(packets):
                return
            pieces += self._table(int(pids[stop]), packets[stop].tobytes())
            at = stop + 1

    def _skips(self, packets: np.ndarray, pids: np.ndarray) -> bool:
        """Whether packets of a PID are missing, by their continuity counters (2.4.3.3)."""
        skips = False
        filled = packets[:, 3] & 0x10 != 0
        for pid in np.unique(pids[filled]).tolist():
            counts = packets[filled & (pids == pid), 3] & 0x0F
            before = np.concatenate(([self._counts.get(pid, int(counts[0]) - 1)], counts[:-1].astype(np.int64)))
            skips = skips or bool(np.any((counts - before) % 16 > 1))
            self._counts[pid] = int(counts[-1])
        return skips

    def _table(self, pid: int, packet: bytes) -> list[Piece]:
        """A packet of a table: passed on, or the start of a part where it completes a map of other tracks."""
        if pid == 0:
            section = self._programs.take(packet)
            program = None if section is None else _map_pid(section)
            if program is not None and (self._map is None or program != self._map.pid):
                self._map = _Section(program)
        elif self._map is not None:
            section = self._map.take(packet)
            tracks = () if section is None else _tracks(section)
            again = self._programs.jumped and self._map.jumped and bool(self._map.packets)
            if again or (tracks and (pid, *tracks) != self._tracks):
                self._programs.jumped = self._map.jumped = False
                tracks = tracks or self._tracks[1:]
                self._tracks = (pid, *tracks)
                self._started = True
                return [Piece(self._programs.packets + self._map.packets, starts="mpegts")]
        return [Piece(packet)] if self._started else []


class _Section:
    """Collects the packets of one table. `packets`: those of the newest whole section."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.packets = b""
        self._open = b""
        self._data = b""
        self._done = b""
        self._next = -1  # the count that its next packet has
        self.jumped = False  # whether the newest packet had another one

    def take(self, packet: bytes) -> bytes | None:
        """The section that the packet completes, where it is whole and not the same as the last one; else None."""
        at = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        self.jumped = self._next not in (-1, packet[3] & 0x0F)
        self._next = (packet[3] + 1) & 0x0F
        if not packet[3] & 0x10 or at >= PACKET:
            return None
        if packet[1] & 0x40:  # a section begins, after a pointer
            self._open, self._data = b"", b""
            at += 1 + packet[at]
        elif not self._open:
            return None
        self._open += packet
        self._data += packet[at:]
        size = 3 + ((self._data[1] & 0x0F) << 8 | self._data[2]) if len(self._data) >= 3 else 1 << 12
        if len(self._data) < size:
            return None
        section, packets = self._data[:size], self._open
        self._open, self._data = b"", b""
        if section == self._done or size < 12 or _crc32(section):
            return None
        self._done, self.packets = section, packets
        return section


def _map_pid(section: bytes) -> int | None:
    """The PID of the first program's map."""
    if section[0] != 0:
        return None
    for at in range(8, len(section) - 4 - 3, 4):
        if section[at] << 8 | section[at + 1]:
            return (section[at + 2] & 0x1F) << 8 | section[at + 3]
    return None


def _tracks(section: bytes) -> tuple[tuple[int, int], ...]:
    """Kind and PID of each track that the map lists."""
    if section[0] != 2:
        return ()
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    tracks = []
    while at + 5 <= len(section) - 4:
        tracks.append((section[at], (section[at + 1] & 0x1F) << 8 | section[at + 2]))
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return tuple(tracks)


def _crc32(data: bytes) -> int:
    """The check of a section (ISO/IEC 13818-1, annex A); 0 where it is whole."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc
