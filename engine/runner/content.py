"""What the media of a whole prompt is, as digests: equal only where the towers make the same of it.

What comes in: the prompt as a client gave it, decoded, and how its rows are laid. What goes out: for each run of rows
what `Rows.content` has. It knows no towers: a family says which pieces of media a run shows.
"""

from __future__ import annotations

import hashlib

import numpy as np

from ...streams.requests.prompt import Content, Media
from ..embeddings import EncodedPrompt


class Contents:
    """The media of one prompt. `worn`: the fingerprint of the adapter that changes the towers. `whole`: all of it, and
    the options with which it is made; None where there is none."""

    def __init__(self, content: Content, worn: str = "") -> None:
        said = f"{sorted(content.options.items())} {content.video_fps} {content.audio_in_video}"
        self._options = f"{said} {worn}".encode()
        self._pieces = [_digest(piece) for piece in content.media if isinstance(piece, Media)]
        self.whole = self._of(self._pieces) if self._pieces else None

    def runs(self, prompt: EncodedPrompt) -> list[bytes | None]:
        """The content of each run of rows: that of the pieces it shows; empty for text, None for media of which the
        family does not say which it is."""
        found: list[bytes | None] = []
        for part, shown in zip(prompt.embeds, prompt.shown or [()] * len(prompt.embeds), strict=True):
            pieces = [self._pieces[place] + rows.to_bytes(8) for place, rows in shown]
            found.append(b"" if part is None else self._of(pieces) if pieces else None)
        return found

    def _of(self, pieces: list[bytes]) -> bytes:
        return hashlib.blake2b(b"".join([*pieces, self._options]), digest_size=32).digest()


def _digest(piece: Media) -> bytes:
    data = piece.data
    told = f"{piece.kind} {data.shape} {data.dtype} {piece.rate} {piece.times_us} {piece.stop_us}"
    digest = hashlib.blake2b(told.encode() + b"\0", digest_size=32)
    digest.update(np.ascontiguousarray(data).data)
    return digest.digest()
