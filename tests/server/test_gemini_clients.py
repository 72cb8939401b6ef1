"""`BidiGenerateContent` as Google's clients have it, unmodified and from their registries: each gets right answers of
Brook. Each is installed into a folder of its own, since nothing else here needs what it needs."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
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


def made(command: list[str], folder: Path, **environment: str) -> list[str]:
    """The lines that a command in a folder prints; its errors where it fails."""
    ran = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert ran.returncode == 0, f"{' '.join(command)[:200]}\n{ran.stdout}\n{ran.stderr}"[-4000:]
    return ran.stdout.splitlines()


@pytest.mark.parametrize("served", ["https"], indirect=True)
def test_google_genai_of_python(served: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = served
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    made([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "google-genai==3.*"], tmp_path)
    script = [python, str(HERE / "gemini_python.py"), url, str(folder / "picture.jpg"), str(folder / "sound.pcm")]
    said = made(script, tmp_path, PYTHONPATH="", SSL_CERT_FILE=str(folder / "cert.pem"))
    assert [json.loads(line) for line in said] == [*EXPECTED, 1007]


@pytest.mark.parametrize("served", ["http"], indirect=True)
def test_google_genai_of_node(served: tuple[str, Path], tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    url, folder = served
    made(["npm", "install", "--no-audit", "--no-fund", "@google/genai"], tmp_path)
    shutil.copy(HERE / "gemini_node.mjs", tmp_path / "client.mjs")
    media = [base64.b64encode((folder / name).read_bytes()).decode() for name in ("picture.jpg", "sound.pcm")]
    *said, closed = map(json.loads, made(["node", "client.mjs", url, *media], tmp_path))
    assert said == EXPECTED and closed[0] == 1007 and "media" in closed[1]
