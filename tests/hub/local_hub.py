"""As much of the Hub as its library asks for, on a free port: models, revisions, listings, files with ranges, large
files behind a redirect, errors with their headers; and faults. What was asked is kept.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

LARGE = (".safetensors", ".bin", ".pt", ".h5")
TOKEN = "hf_of_somebody"


class Model:
    """A model on the Hub: files by commit, commits by branch or tag."""

    def __init__(self) -> None:
        self.commits: dict[str, dict[str, bytes]] = {}
        self.refs: dict[str, str] = {}
        self.gated = False


class LocalHub:
    """A Hub with the models that are put into it. `asked` are the requests so far, as "METHOD path"."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.asked: list[str] = []
        # Of a file's next transfers: how many bytes each gives before the connection breaks, or ends.
        self.breaks: dict[str, list[int]] = {}
        self.closes: dict[str, list[int]] = {}
        self.gates: dict[str, threading.Event] = {}  # half of a file is given, the rest when this is set
        self.down = False  # answers everything with 503
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Answer", (_Answer,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, id: str, files: Path | dict[str, bytes], revision: str = "main") -> str:
        """A commit with these files, or all files of this folder, under a branch or tag; gives the commit."""
        if isinstance(files, Path):
            files = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        commit = hashlib.sha1(repr(sorted((name, _hash(data)) for name, data in files.items())).encode()).hexdigest()
        model = self.models.setdefault(id, Model())
        model.commits[commit] = files
        model.refs[revision] = commit
        return commit

    def files_asked(self) -> set[str]:
        """The files whose contents were asked for; a large one by its name, too."""
        large = {_hash(data): name for model in self.models.values() for name, data in _files(model)}
        found = set()
        for request in self.asked:
            method, path = request.split()
            if method == "GET" and "/resolve/" in path:
                found.add(path.split("/resolve/")[1].split("/", 1)[1])
            elif method == "GET" and path.startswith("/large/"):
                found.add(large[path.removeprefix("/large/")])
        return found


def _files(model: Model) -> list[tuple[str, bytes]]:
    return [file for files in model.commits.values() for file in files.items()]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Answer(BaseHTTPRequestHandler):
    hub: LocalHub
    server: ThreadingHTTPServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.down:
            self._error(503, "", "The Hub is being mended")
        elif path.startswith("/large/"):
            self._large(path.removeprefix("/large/"))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self._listing(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(*match.groups())
        else:
            self._error(404, "", "Not here")

    do_HEAD = do_GET

    @property
    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _found(self, id: str, revision: str | None) -> tuple[Model, str, dict[str, bytes]] | None:
        """The model, the commit and its files; None where an error has been sent."""
        model = self.hub.models.get(id)
        if self._token not in (None, TOKEN):
            return self._error(401, "", "Invalid credentials in Authorization header")
        if model is None:
            if self._token is None:  # Whether it exists is nobody's business.
                return self._error(401, "", "Invalid username or password.")
            return self._error(404, "RepoNotFound", "Repository not found")
        commit = model.refs.get(revision or "main", revision or "")
        if commit not in model.commits:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return model, commit, model.commits[commit]

    def _listing(self, id: str, kind: str | None, revision: str | None) -> None:
        found = self._found(id, revision)
        if found is None:
            return
        model, commit, files = found
        if kind == "tree":
            self._json([_entry(name, data) for name, data in sorted(files.items())])
        else:
            siblings = [{"rfilename": name} for name in sorted(files)]
            self._json({"id": id, "sha": commit, "private": False, "gated": model.gated, "siblings": siblings})

    def _file(self, id: str, revision: str, name: str) -> None:
        found = self._found(id, revision)
        if found is None:
            return
        model, commit, files = found
        if model.gated:
            status = 401 if self._token is None else 403
            return self._error(status, "GatedRepo", f"Access to model {id} is restricted.")
        if name not in files:
            return self._error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit}
        if name.endswith(LARGE):
            sha = _hash(files[name])
            there = f"http://localhost:{self.server.server_port}/large/{sha}"  # another host, as large files have
            headers |= {"Location": there, "X-Linked-Etag": f'"{sha}"', "Content-Length": "0"}
            return self._send(302, headers | {"X-Linked-Size": str(len(files[name]))}, b"")
        self._data(name, files[name], headers | {"ETag": f'"{_hash(files[name])[:40]}"'})

    def _large(self, sha: str) -> None:
        for model in self.hub.models.values():
            for name, data in _files(model):
                if _hash(data) == sha:
                    return self._data(name, data, {"ETag": f'"{sha}"'})
        self._error(404, "", "Not here")

    def _data(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        start, status = 0, 200
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start, status = int(match[1]), 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers |= {"Content-Length": str(len(data) - start)}
        breaks, closes = self.hub.breaks.get(name), self.hub.closes.get(name)
        if self.command == "GET" and breaks:
            self._send(status, headers, data[start : start + breaks.pop(0)])
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif self.command == "GET" and closes:
            self._send(status, headers, data[start : start + closes.pop(0)])
            self.close_connection = True
        elif self.command == "GET" and (gate := self.hub.gates.get(name)):
            self._send(status, headers, data[start : len(data) // 2])
            gate.wait()
            self.wfile.write(data[len(data) // 2 :])
        else:
            self._send(status, headers, data[start:])

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self._send(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, "Content-Length": "0"}
        self._send(status, headers | ({"X-Error-Code": code} if code else {}), b"")

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.wfile.flush()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": _hash(data), "size": len(data), "pointerSize": 134}
    return entry
