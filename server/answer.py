"""Answers of the server over HTTP: JSON, also where something is refused. And what clients are told of the model. Knows
no routes and no sockets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from .openai_words import failure

if TYPE_CHECKING:
    from ..actors.info import EngineInfo


def json_answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON body with this status."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def refusal(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """What is refused, and why: `{"status": ..., "error": ...}`."""
    return json_answer(status, refusal_body(status, why), headers)


def openai_refusal(status: int, why: str, headers: Mapping[str, str], param: str | None = None) -> Response:
    """A refusal in OpenAI's shape."""
    codes = {401: "invalid_api_key", 404: "model_not_found" if param else "not_found", 429: "server_limit"}
    return json_answer(status, failure(status, why, param, codes.get(status)).body, headers)


def refusal_body(status: int, why: str) -> dict[str, Any]:
    """The body of a refusal."""
    return {"status": status, "error": why}


def adapter_names(info: EngineInfo) -> list[str]:
    """What clients may call a model beside its own name: its adapters."""
    return [adapter.name for adapter in info.adapters]


def model_name(model: str) -> str:
    """What clients are told of a model: of a folder its own name, not where it is; an id on the Hub as it is."""
    path = Path(model).expanduser()
    is_folder = path.is_dir() or path.is_absolute() or model.startswith(".") or model.count("/") > 1
    return path.resolve().name if is_folder else model
