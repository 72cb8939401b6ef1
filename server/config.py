"""How a server is run: address, key, limits. Plain data, checked before anything starts; no sockets, no torch."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

from .errors import ConfigError
from .keys import ApiKey


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, without brackets or port) can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Address, access and limits of one server. Sizes in bytes, times in seconds.

    host, port: where it listens; port 0 takes a free one.
    api_key, keys: what a client must show, one key without limits and keys with names and limits; without any
        everyone is let in, which beyond this machine needs `insecure`.
    tls_cert, tls_key: PEM files; both or neither.
    allow_origins: web origins ("https://example.org") whose pages may connect, beside the server's own.
    fetch_urls: media may be named by http(s) URLs, which the server fetches from public addresses; allow_urls: only
        from these hosts, also without `fetch_urls`.
    max_connections: open WebSockets and requests for replies; max_streams: open streams of one socket.
    max_message_bytes: one message of a client; max_text_bytes: one text message, question and conversation included.
    waiting_bytes: inputs of one stream that are received but not yet accepted by the engine.
    unread_bytes, unread_seconds: output that a client has not read; past either its connection is closed.
    idle_seconds: a connection without a message from its client and without a running reply is closed after this time.
    resume_seconds: how long the streams of a client whose connection was lost wait for it, if it has asked for that.
    adapter_folder: the folder below which clients may load adapters, and unload any; None: they may not.
    snapshots: the folder in which clients keep snapshots of streams under names of their own; None: they may not.
    drain_seconds: how long running replies may go on after SIGTERM.
    stay: a server whose engine has failed stays up and refuses, instead of ending.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    keys: tuple[ApiKey, ...] = ()
    insecure: bool = False
    tls_cert: str | None = None
    tls_key: str | None = None
    allow_origins: tuple[str, ...] = ()
    fetch_urls: bool = False
    allow_urls: tuple[str, ...] = ()
    max_connections: int = 64
    max_streams: int = 8
    max_message_bytes: int = 16 * 2**20
    max_text_bytes: int = 2**23
    waiting_bytes: int = 32 * 2**20
    unread_bytes: int = 4 * 2**20
    unread_seconds: float = 20.0
    idle_seconds: float = 300.0
    resume_seconds: float = 30.0
    adapter_folder: str | None = None
    snapshots: str | None = None
    drain_seconds: float = 20.0
    stay: bool = False

    def __repr__(self) -> str:
        """The address only: a configuration that is logged must not give the key away."""
        return f"ServerConfig({self.host}:{self.port}, key: {'yes' if self.all_keys else 'no'})"

    @property
    def all_keys(self) -> tuple[ApiKey, ...]:
        """Every key that lets a client in."""
        own = () if self.api_key is None else (ApiKey(name="default", key=self.api_key, adapters=True),)
        return own + self.keys

    def check(self) -> None:
        """Raise ConfigError where the values do not fit together; says what was expected and what came."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port: expected 0 to 65535, got {self.port}")
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigError("api_key: expected at least one character, got an empty key")
        if self.api_key is not None and not self.api_key.strip().isprintable():
            raise ConfigError("api_key: expected characters that can be printed, got others")
        for key in self.keys:
            key.check()
        names = [key.name for key in self.all_keys]
        for name in set(names):
            if names.count(name) > 1:
                raise ConfigError(f"keys: expected one key of each name, got several called {name!r}")
        if not is_loopback(self.host) and not self.all_keys and not self.insecure:
            raise ConfigError(
                f"host {self.host} can be reached from other machines: expected an API key (--api-key-file, "
                "--keys or PENSTOCK_API_KEY) or --insecure, got neither"
            )
        for name, folder in (("snapshots", self.snapshots), ("adapter_folder", self.adapter_folder)):
            if folder is not None and not Path(folder).is_dir():
                raise ConfigError(f"{name}: expected a folder, got {folder}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS: expected a certificate and a key, got only one of them")
        for name in LIMITS:
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"{name}: expected more than 0, got {value}")


LIMITS = (
    "max_connections",
    "max_streams",
    "max_message_bytes",
    "max_text_bytes",
    "waiting_bytes",
    "unread_bytes",
    "unread_seconds",
    "idle_seconds",
    "resume_seconds",
    "drain_seconds",
)
