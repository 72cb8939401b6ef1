"""What a server says of its models, `/v1/models`, and the adapters that clients load and unload while it runs, as
those of vLLM do: `/v1/load_lora_adapter` and `/v1/unload_lora_adapter`.

In come requests that were let in. Adapters lie below one folder, which the server's owner names; without it, and for a
key that may not, nothing is loaded or unloaded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..errors import InputError, PenstockError, code_of
from .answer import adapter_names, json_answer, model_name, openai_refusal
from .config import ServerConfig
from .errors import MessageError
from .keys import ApiKey
from .openai_words import failed, model_card, read_body

if TYPE_CHECKING:
    from ..actors.engine import Engine

log = logging.getLogger("penstock.server")

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
_MOST_BYTES = 1 << 16


class LoadAdapterBody(msgspec.Struct, kw_only=True):
    """The body of `/v1/load_lora_adapter`. `lora_path`: inside the server's folder."""

    lora_name: str
    lora_path: str


class UnloadAdapterBody(msgspec.Struct, kw_only=True):
    """The body of `/v1/unload_lora_adapter`."""

    lora_name: str


class Models:
    """The model of an engine and the adapters over it, under the names that clients use."""

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        self._engine = engine
        self._folder = None if config.adapter_folder is None else Path(config.adapter_folder)
        self._began = int(time.time())

    def told(self, asked: str | None, headers: Mapping[str, str]) -> Response:
        """The list of them, or what is said of the one that is asked for."""
        info = self._engine.info
        name = model_name(info.model)
        cards = [model_card(name, self._began), *(model_card(one, self._began, name) for one in adapter_names(info))]
        if asked is None:
            return json_answer(200, {"object": "list", "data": cards}, headers)
        for card in cards:
            if card["id"] == asked:
                return json_answer(200, card, headers)
        known = " or ".join(repr(card["id"]) for card in cards)
        return openai_refusal(404, f"model: expected {known}, got {ascii(asked[:80])[1:-1]}", headers, "model")

    async def change(self, request: Request, key: ApiKey, headers: Mapping[str, str]) -> Response:
        """Load or unload an adapter for a client with this key."""
        if self._folder is None:
            return openai_refusal(403, "expected a server with --adapter-folder FOLDER, got one without", headers)
        if not key.adapters:
            return openai_refusal(403, f"key {key.name}: expected one with adapters = true, got one without", headers)
        try:
            body = await _body(request)
            return PlainTextResponse(
                await (self._load(body) if request.url.path == LOAD else self._unload(body)), headers=headers
            )
        except PenstockError as error:
            path = error.path if isinstance(error, MessageError) else None
            why = failed(code_of(error), str(error), path)
            return json_answer(why.status, why.body, headers)

    async def _load(self, body: bytes) -> str:
        asked = read_body(body, LoadAdapterBody, {"load_inplace": "unload the one of this name first"})
        await self._engine.load_adapter(asked.lora_name, self._inside(asked.lora_path))
        log.info("adapter %r loaded", asked.lora_name)
        return f"Success: LoRA adapter '{asked.lora_name}' added successfully."

    async def _unload(self, body: bytes) -> str:
        asked = read_body(body, UnloadAdapterBody, {"lora_int_id": "adapters go by their names"})
        if asked.lora_name not in adapter_names(self._engine.info):
            raise _UnknownAdapterError(f"lora_name: expected an adapter that is loaded, got {asked.lora_name[:80]!r}")
        await self._engine.unload_adapter(asked.lora_name)
        log.info("adapter %r unloaded", asked.lora_name)
        return f"Success: LoRA adapter '{asked.lora_name}' removed successfully."

    def _inside(self, path: str) -> Path:
        """A path that leads into the folder, links followed. What is outside is refused whether it is there or not."""
        assert self._folder is not None
        root = self._folder.resolve()
        try:
            found = (root / path).resolve()
        except (OSError, ValueError, RuntimeError):
            found = root
        if found == root or not found.is_relative_to(root):
            raise InputError(f"lora_path: expected a path inside the folder of --adapter-folder, got {path[:80]!r}")
        return found


class _UnknownAdapterError(PenstockError):
    """No adapter of this name is loaded."""

    code = "model_not_found"


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _MOST_BYTES:
            raise MessageError(f"body: expected at most {_MOST_BYTES} bytes, got more")
    return body
