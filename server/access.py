"""Who may connect: the key and origin of a handshake, the host of a request. Pure functions of headers and
configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes, urlsplit

from .config import ServerConfig, is_loopback
from .keys import ApiKey, find_key
from .wire import KEY_SUBPROTOCOL

# Before a key among the subprotocols: of our own wire, and of OpenAI's clients in browsers.
_BEFORE_KEY = (KEY_SUBPROTOCOL, "openai-insecure-api-key.")
_PORTS = {"http": 80, "https": 443}
EVERYONE = ApiKey(name="everyone", adapters=True)  # of a server without keys


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


def host_allowed(headers: Mapping[str, str], config: ServerConfig) -> bool:
    """Whether a request is for a host of this server, by its `Host`.

    A server on a loopback address has loopback names, and the hosts of `allow_origins`: a page that was loaded from a
    foreign name, made to point at this machine (DNS rebinding), would else read its answers. The names of any other
    server are not known here, so all are taken. HTTP/1.0 has no `Host`, and browsers do not speak it.
    """
    host = headers.get("host")
    if host is None or not is_loopback(config.host):
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return is_loopback(name) or name in {urlsplit(origin).hostname for origin in config.allow_origins}
    except ValueError:
        return False


def key_of(
    headers: Mapping[str, str], subprotocols: Sequence[str], config: ServerConfig, in_url: str | None = None
) -> ApiKey | None:
    """The key that a handshake shows: `Authorization: Bearer <key>`, `x-goog-api-key: <key>`, the subprotocol
    `penstock.key.<key>` or `openai-insecure-api-key.<key>`, or `in_url`, where its path takes one there. None: it shows
    none of the server's. A server without keys takes everyone for the client of one key without limits.

    The subprotocol is for browsers, which cannot set headers; it cannot hold every character, so the key may be
    percent-encoded in it.
    """
    if not config.all_keys:
        return EVERYONE
    scheme, _, word = headers.get("authorization", "").partition(" ")
    shown = [_raw(word.strip(" \t"))] if scheme.lower() == "bearer" else []
    for name in subprotocols:
        before = next((before for before in _BEFORE_KEY if name.startswith(before)), None)
        if before is not None:
            plain = name.removeprefix(before)
            shown += [_raw(plain), unquote_to_bytes(plain)]
    if "x-goog-api-key" in headers:
        shown.append(_raw(headers["x-goog-api-key"]))
    if in_url is not None:
        shown.append(in_url.encode(errors="surrogateescape"))
    return find_key(config.all_keys, shown)


def _raw(header: str) -> bytes:
    """The bytes of a header's value, of which each character stands for one."""
    return header.encode("latin-1", "backslashreplace")


def cross_origin(headers: Mapping[str, str], config: ServerConfig) -> dict[str, str]:
    """What lets a page of an origin of `allow_origins` read an answer."""
    origin = headers.get("origin", "")
    if origin.rstrip("/") not in {allowed.rstrip("/") for allowed in config.allow_origins}:
        return {}
    exposed = "retry-after, x-request-id"
    return {"access-control-allow-origin": origin, "access-control-expose-headers": exposed, "vary": "origin"}


def preflight(headers: Mapping[str, str], config: ServerConfig) -> dict[str, str]:
    """What a browser is told before it asks for such a page: all headers that it names may come."""
    allowed = cross_origin(headers, config)
    if not allowed:
        return {"vary": "origin"}
    asked = headers.get("access-control-request-headers", "authorization, content-type")
    return {
        **allowed,
        "access-control-allow-methods": "GET, POST, OPTIONS",
        "access-control-allow-headers": asked,
        "access-control-max-age": "600",
    }
