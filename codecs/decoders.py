"""Where client media is decoded: in this process, or in worker processes with limits. In: bytes of files. Out: decoders
of files that come in pieces, and pixels of pictures. It knows no streams.
"""

from __future__ import annotations

import numpy as np

from .container import MediaDecoder
from .limits import MediaLimits
from .picture import decode_picture
from .reading import Reading
from .worker import KINDS, WorkerPool

Buffer = bytes | bytearray | memoryview


class Decoders:
    """Makes decoders; `pool` None: they work in this process. Safe to use from several threads."""

    def __init__(self, limits: MediaLimits, pool: WorkerPool | None) -> None:
        self.limits = limits
        self.pool = pool

    def container(self, kind: str, pts_us: int) -> Reading:
        """For a "video" with its sound, or for "audio" alone."""
        if self.pool is not None:
            return self.pool.decoder(kind, pts_us)
        return MediaDecoder(self.limits, KINDS[kind], pts_us)

    def picture(self, data: Buffer) -> np.ndarray:
        """The picture in a file, `(h, w, 3)` uint8; errors as those of `decode_picture`."""
        return decode_picture(data, self.limits) if self.pool is None else self.pool.picture(data)

    def close(self) -> None:
        """End the workers, if there are any."""
        if self.pool is not None:
            self.pool.close()
