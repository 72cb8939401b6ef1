"""Who may connect: the API key and the web origin of a handshake. Pure functions of headers and configuration."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import unquote, urlsplit

from .config import ServerConfig, is_loopback
from .wire import KEY_SUBPROTOCOL

_PORTS = {"http": 80, "https": 443}


def origin_allowed(headers: Mapping[str, str], config: ServerConfig) -> bool:
    """Whether a page of this `Origin` may connect. Without the header it is no browser, and the key decides alone.

    Its own origin is one whose host and port are those of the `Host` header. A server on a loopback address also wants
    that host to be a loopback name: a foreign name that was made to point at this machine (DNS rebinding) is foreign.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    if origin.rstrip("/") in {allowed.rstrip("/") for allowed in config.allow_origins}:
        return True
    try:
        page = urlsplit(origin)
        own = urlsplit(f"{page.scheme}://{headers.get('host', '')}")
        default = _PORTS[page.scheme]
        same = page.hostname == own.hostname and (page.port or default) == (own.port or default)
    except (ValueError, KeyError):
        return False
    if not same or page.hostname is None:
        return False
    return is_loopback(page.hostname) or not is_loopback(config.host)


def key_allowed(headers: Mapping[str, str], subprotocols: Sequence[str], config: ServerConfig) -> bool:
    """Whether a handshake shows the key: `Authorization: Bearer <key>`, or the subprotocol `penstock.key.<key>`.

    The second is for browsers, which cannot set headers; a subprotocol cannot hold every character, so the key may be
    percent-encoded in it. The comparison takes the same time for every wrong key.
    """
    if config.api_key is None:
        return True
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    candidates = [shown.strip()] if scheme.lower() == "bearer" else []
    for name in subprotocols:
        if name.startswith(KEY_SUBPROTOCOL):
            plain = name.removeprefix(KEY_SUBPROTOCOL)
            candidates += [plain, unquote(plain)]
    matches = [hmac.compare_digest(shown.encode(), config.api_key.encode()) for shown in candidates]
    return any(matches)
