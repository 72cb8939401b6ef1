"""The web page's files over HTTP. In: a GET of `/` or `/page/<name>`. Out: a file of `page/`, with headers that let the
page load nothing from elsewhere and be framed by nobody.

The files are read once, when the server starts. Knows neither the wire nor what the page does.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# A film that a person opens is shown from a blob; everything else is a file of this server.
POLICY = (
    "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), display-capture=(self)",
    "cache-control": "no-cache",  # A new version shows at once; one that is unchanged is answered with 304.
}


def page_routes() -> list[Route]:
    """A route for each file of the page; `/` is `index.html`."""
    routes = []
    for file in sorted(FOLDER.iterdir()):
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        routes.append(Route(path, _File(file.read_bytes(), TYPES[file.suffix]).answer))
    return routes


class _File:
    """One file, held in memory."""

    def __init__(self, data: bytes, kind: str) -> None:
        self._data = data
        self._tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        self._headers = {**HEADERS, "content-type": kind, "etag": self._tag}

    async def answer(self, request: Request) -> Response:
        """The file, or 304 where the browser has it."""
        known = request.headers.get("if-none-match", "")
        if self._tag in (tag.strip().removeprefix("W/") for tag in known.split(",")):
            return Response(status_code=304, headers=self._headers)
        return Response(self._data, headers=self._headers)
