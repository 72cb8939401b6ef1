"""data: URLs (RFC 2397) and base64 (RFC 4648) as people write them. In: text. Out: bytes, or InputError.

As in browsers: white space and missing padding do no harm, and the scheme and "base64" may be in capitals. The alphabet
for URLs (`-` and `_`) is taken beside the usual one. The type and its parameters are not read: media is known by its
bytes.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes

from ...errors import InputError

_SCHEME = re.compile(r"[\x00-\x20]*data:", re.IGNORECASE)
_BASE64 = re.compile(r";[ ]*base64[ ]*$", re.IGNORECASE)
_USUAL = bytes.maketrans(b"-_", b"+/")
_FOREIGN = re.compile(rb"[^A-Za-z0-9+/]")
_SHOWN = 40


def is_data_url(text: str) -> bool:
    """Whether a text is a data: URL rather than a path or another URL."""
    return _SCHEME.match(text) is not None


def from_data_url(url: str) -> bytes:
    """The bytes of `data:[TYPE][;PARAMETERS][;base64],DATA`, whose data is percent-encoded without `;base64`."""
    text = url.strip("".join(map(chr, range(33)))).replace("\t", "").replace("\n", "").replace("\r", "")
    head, comma, body = text[len("data:") :].partition("#")[0].partition(",")
    if not comma:
        raise InputError(f"data: URL: expected 'data:[TYPE][;base64],DATA', got {url[:_SHOWN]!r}")
    try:
        data = unquote_to_bytes(body) if "%" in body else body.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"data: URL: expected Unicode text, got half a character at {error.start}") from None
    return from_base64(data, "data: URL") if _BASE64.search(head) else data


def from_base64(text: str | bytes, what: str) -> bytes:
    """The bytes of a text in base64. `what` it is stands in front of the error."""
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
    except UnicodeEncodeError as error:
        raise InputError(f"{what}: expected base64, got {text[error.start]!a} at {error.start}") from None
    digits = raw.translate(_USUAL, b" \t\n\r\f")
    bare = digits.rstrip(b"=")
    foreign = _FOREIGN.search(bare)
    if foreign is not None:
        raise InputError(f"{what}: expected base64, got {foreign[0]!r} at {foreign.start()}")
    padding = len(digits) - len(bare)
    if len(bare) % 4 == 1 or padding > 2 or (padding and len(digits) % 4):
        raise InputError(f"{what}: expected whole base64, got {len(bare)} digits and {padding} of padding")
    return base64.b64decode(bare + b"=" * (-len(bare) % 4))
