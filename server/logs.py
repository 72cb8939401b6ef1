"""The log of a server, as lines of text or of JSON. It never holds a client's words or media."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec

FORMS = ("text", "json")
# The name of the request that is answered here; empty outside of one.
REQUEST: ContextVar[str] = ContextVar("request", default="")
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# What every record has; the rest was given with `extra`.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `logger`, `message`, and what the line is about: `connection` (its
    number on this server), `stream` (the engine's number), `request_id` (what the answer's header names) and others.
    `error` is the stack of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _USUAL},
        }
        if REQUEST.get():
            line["request_id"] = REQUEST.get()
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def begin(level: str, form: str) -> None:
    """Write the log of this process to stderr, from `level` on, in one of `FORMS`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for chatty in ("uvicorn", "httpx", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
