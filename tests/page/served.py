"""A server of its own process for the page's tests: Brook, or another model."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path


class Server:
    """`penstock serve` on one port, which can be killed and started again."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[str] | None = None

    def start(self, model: Path | None = None, *options: str) -> None:
        """Serve a model, or Brook."""
        command = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", str(self.port)]
        command += [*([] if model is None else [str(model)]), *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        assert "serving on" in self._process.stdout.readline()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
