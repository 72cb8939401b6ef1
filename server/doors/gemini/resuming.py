"""Handles by which a Gemini Live client comes back. In: the messages of one connection on their way to the client.
Out: the same, and after the end of each turn a handle.

A handle names a place in what the client is told: who comes back by it is told all that came after it, and the session
goes on as it is. It knows neither the conversation nor the connection.
"""

from __future__ import annotations

import re
from typing import Any

from .wire import POLICY, GeminiFault, encode

_HANDLE = re.compile(r"([\w-]{1,100})\.(\d{1,15})", re.ASCII)
UNKNOWN = "setup.sessionResumption.handle: no session is kept for it, or not all that came after it: begin a new one"


def place_of(handle: str) -> tuple[str, int]:
    """The token of a connection, and how many messages its client has received. GeminiFault for what is no handle."""
    found = _HANDLE.fullmatch(handle)
    if found is None:
        raise GeminiFault(UNKNOWN, POLICY)
    return found[1], int(found[2])


class GeminiPlace:
    """How far a client has been told. Nothing is counted before `keep`."""

    def __init__(self) -> None:
        self._token: str | None = None
        self._told = 0  # messages since then
        self._ends = 0  # turns of which a handle has told the end

    def keep(self, token: str) -> bytes:
        """The connection is kept under this token: the message with the first handle. What comes after it counts."""
        self._token = token
        return self._handle()

    def count(self, part: Any) -> None:
        """Count a message that the client is told."""
        self._told += self._token is not None and isinstance(part, bytes)

    def update(self, ends: int) -> bytes | None:
        """The message with a handle for here, itself counted, if a turn has ended since the last one; else None."""
        if self._token is None or ends == self._ends:
            return None
        self._ends, self._told = ends, self._told + 1
        return self._handle()

    def _handle(self) -> bytes:
        return encode(sessionResumptionUpdate={"newHandle": f"{self._token}.{self._told}", "resumable": True})
