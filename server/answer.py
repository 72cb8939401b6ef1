"""Answers of the server over HTTP: JSON, also where something is refused. Knows no routes and no sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response


def json_answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON body with this status."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """What is refused, and why: `{"status": ..., "error": ...}`."""
    return json_answer(status, refusal_body(status, why), headers)


def refusal_body(status: int, why: str) -> dict[str, Any]:
    """The body of a refusal."""
    return {"status": status, "error": why}
