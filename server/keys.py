"""The keys that clients may show, each with a name and limits, from a file. Knows neither headers nor streams."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from .errors import ConfigError


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key, and what its clients may use all together. A limit of None is no limit.

    key: the key itself; or sha256: its SHA-256 in hexadecimal digits, so that the file does not give it away.
    streams: open streams.
    bytes_per_second: media that is handed in, as it comes over the wire.
    pixels_per_second: pixels of pictures and single frames. Frames inside an encoded video are not counted.
    tokens_per_day: tokens of replies and rows of media, from midnight to midnight UTC.
    adapters: its clients may load and unload adapters, where the server has a folder for them.
    """

    name: str = ""
    key: str | None = None
    sha256: str | None = None
    streams: int | None = None
    bytes_per_second: int | None = None
    pixels_per_second: int | None = None
    tokens_per_day: int | None = None
    adapters: bool = False

    def __repr__(self) -> str:
        """The name only: what is logged must not give the key away."""
        return f"ApiKey({self.name})"

    def check(self) -> None:
        """Raise ConfigError where this is no key; says what was expected and what came."""
        if (self.key is None) == (self.sha256 is None):
            raise ConfigError(
                f"key {self.name}: expected one of key and sha256, got {'both' if self.key else 'neither'}"
            )
        if self.key is not None and not self.key.strip():
            raise ConfigError(f"key {self.name}: expected at least one character, got an empty key")
        if self.key is not None and not self.key.strip().isprintable():
            raise ConfigError(f"key {self.name}: expected characters that can be printed, got others")
        if self.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", self.sha256):
            got = f"{len(self.sha256)} characters"
            raise ConfigError(f"key {self.name}: expected 64 hexadecimal digits as sha256, got {got}")
        for limit in ("streams", "bytes_per_second", "pixels_per_second", "tokens_per_day"):
            value = getattr(self, limit)
            if value is not None and value < 1:
                raise ConfigError(f"key {self.name}: {limit}: expected at least 1, got {value}")

    def is_shown(self, shown: Sequence[bytes]) -> bool:
        """Whether one of the words that a client shows is this key. It takes the same time for every wrong key."""
        if self.sha256 is not None:
            digests = [hashlib.sha256(word).hexdigest() for word in shown]
            return any([hmac.compare_digest(digest, self.sha256.lower()) for digest in digests])
        assert self.key is not None
        key = self.key.strip()
        # A header holds bytes, which arrive here as Latin-1. Clients write a key in UTF-8 or in Latin-1.
        expected = [key.encode(), *([key.encode("latin-1")] if max(key) < "\u0100" else [])]
        return any([hmac.compare_digest(word, one) for word in shown for one in expected])


def find_key(keys: Iterable[ApiKey], shown: Sequence[bytes]) -> ApiKey | None:
    """The key that a client shows, or None. All keys are looked at, so the time tells nothing."""
    found = [key for key in keys if key.is_shown(shown)]
    return found[0] if found else None


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The keys of a TOML file: a table for each, whose title is the name. ConfigError where it holds anything else."""
    try:
        tables = msgspec.toml.decode(path.read_bytes(), type=dict[str, ApiKey])
    except OSError as error:
        raise ConfigError(f"--keys: cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--keys: {path}: expected a table for each key, such as [camera]: {error}") from None
    for title, key in tables.items():
        if key.name:
            raise ConfigError(
                f"--keys: {path}: [{title}]: expected no name but the title of the table, got {key.name!r}"
            )
    keys = tuple(msgspec.structs.replace(key, name=title) for title, key in tables.items())
    if not keys:
        raise ConfigError(f"--keys: {path}: expected at least one key, got none")
    for key in keys:
        key.check()
    return keys
