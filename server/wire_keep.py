"""Messages of the wire `/v1/stream` about the connection itself, which may be lost and gone on with. Plain data."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Keep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="keep"):
    """Keep the streams for a while if this connection is lost. Answered with `kept`."""


class Resume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="resume"):
    """Go on here with the connection of this token, of which `received` messages have come. Answered with `resumed`."""

    token: Annotated[str, msgspec.Meta(max_length=128)]
    received: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class KeptMessage(msgspec.Struct, frozen=True, kw_only=True, tag="kept"):
    """The connection can be gone on with by this token, until so many seconds after it was lost."""

    token: str
    seconds: float


class ResumedMessage(msgspec.Struct, frozen=True, kw_only=True, tag="resumed"):
    """The connection goes on; the server has received so many messages on it."""

    received: int
