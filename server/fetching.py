"""Media that a request names by an http(s) URL: fetched for a client, and never from where only this machine can go.

In: the messages of a request. Out: the same with the bytes in them, or InputError that names the place. Each hop, the
first and those that redirects lead to, is looked at by itself: its scheme, port and host, and every address that its
name has. The socket is opened to an address that was looked at, so that a name which changes what it stands for gains
nothing. Size, number of redirects and time are bounded, of one file and of all together.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import h11

from ..errors import InputError, LimitError, PenstockError
from ..streams.requests.messages import parts, replaced, value_of

REDIRECTS = 3
SECONDS = 15.0
_PORTS = {"http": 80, "https": 443}
_LONGEST = 4096  # characters of a URL
_HEAD_BYTES = 1 << 16
_PIECE = 1 << 16
_SHOWN = 80
# Addresses that stand for others; all that IPv6 has given out; and what `ipaddress` of Python 3.11 takes for public.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
_BARRED = tuple(map(ipaddress.ip_network, ("192.88.99.0/24", "3fff::/20")))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Resolve = Callable[[str, int], Awaitable[list[str]]]
Connect = Callable[[str, int, "ssl.SSLContext | None", str], Awaitable[Streams]]


class Target(NamedTuple):
    """Where a URL leads. `host` is as in the URL, without brackets; `path` begins with a slash and has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What goes into the header `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet at large. One that stands for another, such as an IPv4 address inside
    an IPv6 one, is what that is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    barred = any(address in block for block in _BARRED if block.version == address.version)
    return address.is_global and not address.is_multicast and not address.is_reserved and not barred


def target_of(url: str, hosts: frozenset[str] | None) -> Target:
    """Where a URL leads. InputError for one that is not fetched; `hosts`: those that are, None: all."""
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise InputError(f"URL: expected at most {_LONGEST} printable ASCII characters, got {url[:_SHOWN]!a}")
    try:
        split = urlsplit(url)
        host, port = split.hostname or "", split.port
    except ValueError as error:
        raise InputError(
            f"URL: expected http://HOST/PATH or https://HOST/PATH, got {url[:_SHOWN]!r}: {error}"
        ) from None
    if split.scheme not in _PORTS or not host:
        raise InputError(f"URL: expected http://HOST/PATH or https://HOST/PATH, got {url[:_SHOWN]!r}")
    if split.username is not None or split.password is not None:
        raise InputError("URL: expected none with a user's name or a password, got one")
    if port not in (None, _PORTS[split.scheme]):
        raise InputError(f"URL: expected the port {_PORTS[split.scheme]}, got {port}")
    if hosts is not None and host.rstrip(".") not in hosts:
        raise InputError(f"URL: expected a host that this server fetches from, got {host[:_SHOWN]!r}")
    path = (split.path or "/") + (f"?{split.query}" if split.query else "")
    return Target(split.scheme, host, _PORTS[split.scheme], path)


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


async def connect(address: str, port: int, tls: ssl.SSLContext | None, host: str) -> Streams:
    """A socket to this address and no other; with TLS its certificate has to be for `host`."""
    name = host.rstrip(".") if tls is not None else None
    return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name)


class Fetcher:
    """Fetches for the requests of one server. `hosts`: the only ones that it fetches from; None: all public ones.
    `most_bytes`: of all media of one request."""

    def __init__(
        self,
        hosts: frozenset[str] | None,
        most_bytes: int,
        resolve: Resolve = resolve,
        connect: Connect = connect,
        seconds: float = SECONDS,
    ) -> None:
        self._hosts = hosts
        self._most = most_bytes
        self._resolve = resolve
        self._connect = connect
        self._seconds = seconds
        self._tls = ssl.create_default_context()

    async def fill(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
        """The messages, checked before, with what their URLs lead to, and how many bytes that is. Cancelled, it leaves
        no socket open."""
        found: dict[str, dict[str, Any]] = {}
        left = self._most
        try:
            async with asyncio.timeout(self._seconds):
                for place, part in parts(messages):
                    value = None if part.get("type") == "text" else value_of(place, part)
                    if value is None or not is_url(value.found) or value.base64:
                        continue
                    try:
                        data = await self._fetch(value.found, left)
                    except PenstockError as error:
                        raise type(error)(f"{value.place}: {error}") from None
                    left -= len(data)
                    inline = "data:;base64," + base64.b64encode(data).decode()
                    found[place] = {"type": part["type"], part["type"]: {"url": inline}}
        except TimeoutError:
            raise InputError(f"messages: expected media at its URLs within {self._seconds:g} s, got less") from None
        return replaced(messages, found), self._most - left

    async def _fetch(self, url: str, most: int) -> bytes:
        for _ in range(REDIRECTS + 1):
            target = target_of(url, self._hosts)
            address = await self._address(target)
            try:
                answer = await self._get(target, address, most)
            except (OSError, h11.RemoteProtocolError, asyncio.IncompleteReadError) as error:
                why = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
                raise InputError(f"URL: expected an answer of {target.host}, got: {why}") from None
            if isinstance(answer, bytes):
                return answer
            try:
                url = urljoin(url, answer)
            except ValueError:
                url = answer  # which is refused
        raise InputError(f"URL: expected at most {REDIRECTS} redirects, got more")

    async def _address(self, target: Target) -> str:
        """An address of a target. InputError where any that its name has is not public."""
        try:
            addresses = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):  # the second for labels that no name can have
            addresses = []
        if not addresses:
            raise InputError(f"URL: expected a host that has an address, got {target.host[:_SHOWN]!r}")
        for address in addresses:
            try:
                public = is_public(ipaddress.ip_address(address.partition("%")[0]))
            except ValueError:
                public = False
            if not public:
                raise InputError(f"URL: expected a host on the internet, got {target.host[:_SHOWN]!r}")
        return addresses[0]

    async def _get(self, target: Target, address: str, most: int) -> bytes | str:
        """The body of the answer, or where it redirects to."""
        tls = self._tls if target.scheme == "https" else None
        reader, writer = await self._connect(address, target.port, tls, target.host)
        try:
            conn = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
            headers = [("Host", target.authority), ("Accept-Encoding", "identity"), ("User-Agent", "penstock")]
            ask = h11.Request(method="GET", target=target.path, headers=[*headers, ("Connection", "close")])
            writer.write((conn.send(ask) or b"") + (conn.send(h11.EndOfMessage()) or b""))
            await writer.drain()
            return await _answer(conn, reader, most)
        finally:
            writer.close()
            with suppress(OSError, ssl.SSLError):
                writer.transport.abort()


async def _answer(conn: h11.Connection, reader: asyncio.StreamReader, most: int) -> bytes | str:
    body: list[bytes] = []
    size = 0
    while True:
        event = conn.next_event()
        match event:
            case h11.Response(status_code=status, headers=headers):
                named = {name.lower(): value for name, value in headers}
                if status in (301, 302, 303, 307, 308) and b"location" in named:
                    return named[b"location"].decode("latin-1")
                if status != 200:
                    raise InputError(f"URL: expected the status 200, got {status}")
                if named.get(b"content-encoding", b"identity").lower() != b"identity":
                    raise InputError("URL: expected an answer that is not compressed, got one that is")
                said = named.get(b"content-length", b"0")
                if said.isdigit() and int(said) > most:
                    raise LimitError(f"URL: expected at most {most} bytes for this request, got {int(said)}")
            case h11.Data(data=data):
                size += len(data)
                if size > most:
                    raise LimitError(f"URL: expected at most {most} bytes for this request, got more")
                body.append(bytes(data))
            case h11.EndOfMessage():
                return b"".join(body)
            case h11.ConnectionClosed():
                raise InputError("URL: expected a whole answer, got a part of one")
            case _ if event is h11.NEED_DATA:
                conn.receive_data(await reader.read(_PIECE))


def is_url(value: Any) -> bool:
    """Whether a value is a URL that might be fetched."""
    return isinstance(value, str) and value.lstrip()[:8].lower().startswith(("http://", "https://"))


def refuse_urls(messages: list[dict[str, Any]]) -> None:
    """InputError where media is named by a URL, for a server that fetches nothing."""
    for place, part in parts(messages):
        value = None if part.get("type") == "text" else value_of(place, part)
        if value is not None and is_url(value.found):
            raise InputError(
                f"{value.place}: expected a data: URL, got {value.found[:_SHOWN]!r}: this server fetches nothing "
                "(--fetch-urls, --allow-url)"
            )
