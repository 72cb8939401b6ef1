"""`BidiGenerateContent` as Google's clients have it, unmodified and from their registries: each gets right answers of
Brook. Each is installed into a folder of its own, since nothing else here needs what it needs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from others import node_with, printed, python_with
from realtime_client import beeps
from test_gemini import jpeg
from test_tls import CERT, KEY

HERE = Path(__file__).parent
ANNOUNCED = "penstock: serving on "
EXPECTED = ["red.", "two.", "interrupted", "middle."]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=["https", "http"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server with Brook that wants the key "secret", and a folder with its certificate and media."""
    folder = tmp_path_factory.mktemp("gemini")
    (folder / "cert.pem").write_text(CERT)
    (folder / "key.pem").write_text(KEY)
    (folder / "picture.jpg").write_bytes(base64.urlsafe_b64decode(jpeg("red")["data"]))
    (folder / "sound.pcm").write_bytes(beeps(2))
    serve = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", "0"]
    if request.param == "https":
        serve += ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(serve, env={**os.environ, "PENSTOCK_API_KEY": "secret"}, **quiet) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCED), line
            yield line.removeprefix(ANNOUNCED).strip(), folder
        finally:
            process.terminate()


@pytest.mark.parametrize("served", ["https"], indirect=True)
def test_google_genai_of_python(served: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = served
    python = python_with(tmp_path, "google-genai==3.*")
    script = [python, HERE / "gemini_python.py", url, folder / "picture.jpg", folder / "sound.pcm"]
    said = printed(script, tmp_path, SSL_CERT_FILE=str(folder / "cert.pem"))
    assert [json.loads(line) for line in said.splitlines()] == [*EXPECTED, "red.", 1007]


@pytest.mark.parametrize("served", ["http"], indirect=True)
def test_google_genai_of_node(served: tuple[str, Path], tmp_path: Path) -> None:
    node_with(tmp_path, "@google/genai@3")
    url, folder = served
    shutil.copy(HERE / "gemini_node.mjs", tmp_path / "client.mjs")
    media = [base64.b64encode((folder / name).read_bytes()).decode() for name in ("picture.jpg", "sound.pcm")]
    *said, closed = map(json.loads, printed(["node", "client.mjs", url, *media], tmp_path).splitlines())
    assert said == EXPECTED and closed[0] == 1007 and "media" in closed[1]
