"""`penstock watch SOURCE ... INSTRUCTION`: says by itself what the instruction asks for, each time as a JSON object.

In come the options of the command line; out goes an exit code. What is shown and asked is as in `penstock ask --live`;
each sentence of what the model says goes to a file or to a web address, with the media times that were seen.
"""

from __future__ import annotations

import argparse
import http.client
import queue
import re
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ..engine.config import EngineConfig
from ..errors import InputError
from ..streams.event import Event, ReplyDone, Resting, Token
from . import ask

_SENTENCE = re.compile(r"[.!?]\s*$|\n\s*$")
_TRIES, _FIRST_WAIT_SECONDS, _PATIENCE_SECONDS = 4, 0.5, 10.0
_MOST_WAITING = 1000  # objects that are not delivered yet
_CLOSING_SECONDS = 30.0


class Alert(msgspec.Struct, frozen=True):
    """One thing that the model has said. `watch` is the same for all of one run. `start_us` and `stop_us` are the times
    of the media that it had seen last when it began and when it ended; None before the first."""

    watch: str
    reply: int
    text: str
    start_us: int | None
    stop_us: int | None


class Outlet(Protocol):
    """Where alerts go. `lost`: how many did not get there."""

    lost: int

    def put(self, alert: Alert) -> None: ...

    def close(self) -> None: ...


def main(options: argparse.Namespace, api_key: str | None, setup: EngineConfig) -> int:
    """Watch until the media ends or until Ctrl-C; 0, or 1 where alerts were lost. Raises as `ask.main` does."""
    options.live, options.json, options.pace = True, False, False
    outlet = Webhook(options.webhook) if options.webhook is not None else Lines(options.jsonl)
    whole = any(getattr(options, name) is not None for name in ("json_schema", "regex", "choice"))
    ask.main(options, api_key, setup, Sentences(outlet, whole))
    return 1 if outlet.lost else 0


class Lines:
    """A file of one JSON object a line, to which is added; None: stdout."""

    def __init__(self, path: Path | None) -> None:
        self.lost = 0
        try:
            self._file = sys.stdout if path is None else path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{path}: expected a file that can be written: {error.strerror}") from None

    def put(self, alert: Alert) -> None:
        """Write it at once."""
        print(msgspec.json.encode(alert).decode(), file=self._file, flush=True)

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


class Webhook:
    """A web address that gets each alert as a POST, in order, from a thread of its own. What fails is tried again a few
    times; what cannot be delivered is said on stderr and counted."""

    def __init__(self, url: str, wait_seconds: float = _FIRST_WAIT_SECONDS) -> None:
        if not re.match(r"https?://[^/\s]", url):
            raise InputError(f"webhook: expected an address that begins with http:// or https://, got {url}")
        self.lost = 0
        self._url = url
        self._wait_seconds = wait_seconds
        self._waiting: queue.Queue[Alert | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._deliver, name="penstock-webhook", daemon=True)
        self._thread.start()

    def put(self, alert: Alert) -> None:
        """Deliver it soon. Never waits: where too many wait, it is lost."""
        try:
            self._waiting.put_nowait(alert)
        except queue.Full:
            self._lose(f"{_MOST_WAITING} wait already")

    def close(self) -> None:
        """Wait for what is not delivered yet, for half a minute at most."""
        until = time.monotonic() + _CLOSING_SECONDS
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=_CLOSING_SECONDS)
            except queue.Full:
                pass
            self._thread.join(max(0.0, until - time.monotonic()))
        left = sum(alert is not None for alert in list(self._waiting.queue))
        for _ in range(left):
            self._lose("there was no more time")

    def _deliver(self) -> None:
        while (alert := self._waiting.get()) is not None:
            wait, error = self._wait_seconds, ""
            for number in range(_TRIES):
                if number:
                    time.sleep(wait)
                    wait *= 2
                error, again = self._post(msgspec.json.encode(alert))
                if not error or not again:
                    break
            if error:
                self._lose(error)

    def _post(self, body: bytes) -> tuple[str, bool]:
        """What went wrong, empty if nothing did, and whether another try may help."""
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with _OPENER.open(request, timeout=_PATIENCE_SECONDS):
                return "", False
        except urllib.error.HTTPError as error:
            return f"status {error.code}", error.code >= 500 or error.code in (408, 429)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return str(getattr(error, "reason", error)) or type(error).__name__, isinstance(error, OSError)

    def _lose(self, why: str) -> None:
        self.lost += 1
        print(f"penstock watch: {self._url}: an alert is lost: {why}", file=sys.stderr, flush=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows none: what is posted would come as a request without it."""

    def redirect_request(self, *_: Any) -> None:
        """None: the status is the answer."""


_OPENER = urllib.request.build_opener(_Redirects)


class Sentences:
    """A view of a stream that cuts what is said into alerts: where the reply rests or ends, and, unless each is to be
    `whole`, at the end of each sentence."""

    def __init__(self, outlet: Outlet, whole: bool = False) -> None:
        self._outlet = outlet
        self._whole = whole
        self._watch = uuid.uuid4().hex
        self._said: list[Token] = []

    def waiting(self, what: str) -> None:
        """Say it on stderr."""
        print(f"penstock watch: {what}", file=sys.stderr, flush=True)

    def started(self, model: str, format: str, why: str) -> None:
        """Nothing."""

    def sent(self, stop_us: int | None) -> None:
        """Nothing."""

    def event(self, event: Event) -> None:
        """Take what is said."""
        match event:
            case Token():
                self._said.append(event)
                if not self._whole and _SENTENCE.search(self._text()):
                    self._tell()
            case Resting():
                self._tell()
            case ReplyDone():
                kept = [token for token in self._said if token.index < event.tokens]
                self._said = kept
                self._tell(event.text)

    def close(self) -> None:
        """Wait until all is delivered."""
        self._outlet.close()

    def _text(self) -> str:
        return "".join(token.text for token in self._said)

    def _tell(self, rest: str = "") -> None:
        said, text = self._said, (self._text() + rest).strip()
        self._said = []
        if text and said:
            first, last = said[0].seen, said[-1].seen
            times: Any = (first and first.start_us, last and last.stop_us)
            self._outlet.put(Alert(self._watch, said[0].reply, text, *times))
