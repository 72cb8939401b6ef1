"""What an encoded file is cut into on its way to the demuxer. Plain data."""

from __future__ import annotations

from typing import NamedTuple


class Piece(NamedTuple):
    """The next bytes.

    `starts`: a new part begins with them, for FFmpeg's demuxer of this name. `whole`: they are all of that part, which
    its demuxer may read in any order. `torn`: something in front of that part was lost. `anew`: where a part may begin
    here too, what its demuxer needs in front.
    """

    data: bytes
    starts: str = ""
    whole: bool = False
    torn: bool = False
    anew: bytes = b""
