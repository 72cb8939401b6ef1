"""`/v1/realtime` as other people's clients have it, unmodified and from their registries: each gets right answers of
Brook. They need much that nothing else here needs, so each is installed into a folder of its own."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from others import node_with, printed, python_with
from PIL import Image
from realtime_client import beeps, picture
from test_tls import CERT, KEY

HERE = Path(__file__).parent
ANNOUNCED = "penstock: serving on "
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def tls_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a server with Brook over TLS that wants the key "secret", and its certificate."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_text(CERT)
    key.write_text(KEY)
    serve = [sys.executable, "-m", "penstock.server.cli", "serve", "--port", "0"]
    serve += ["--tls-cert", str(cert), "--tls-key", str(key)]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(serve, env={**os.environ, "PENSTOCK_API_KEY": "secret"}, **quiet) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(ANNOUNCED), line
            yield line.removeprefix(ANNOUNCED).strip(), cert
        finally:
            process.terminate()


def test_openai_of_node(tls_url: tuple[str, Path], tmp_path: Path) -> None:
    node_with(tmp_path, "openai@7", "ws")
    url, cert = tls_url
    script = tmp_path / "client.mjs"
    shutil.copy(HERE / "realtime_node.mjs", script)
    arguments = [picture("green")["image_url"], base64.b64encode(beeps(2)).decode()]
    said = printed(["node", script, url, *arguments], tmp_path, NODE_EXTRA_CA_CERTS=str(cert))
    assert [json.loads(line) for line in said.splitlines()] == ["brook", "green.", "middle.", "two."]


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Files of a blue square, as raw RGB pixels, and of two beeps, as PCM."""
    folder = tmp_path_factory.mktemp("media")
    pixels, sound = folder / "picture.rgb", folder / "sound.pcm"
    file = base64.b64decode(picture("blue")["image_url"].partition(",")[2])
    pixels.write_bytes(Image.open(io.BytesIO(file)).convert("RGB").tobytes())
    sound.write_bytes(beeps(2))
    return str(pixels), str(sound)


def in_its_own_environment(script: str, folder: Path, packages: list[str], *arguments: str) -> list[list[str]]:
    """What a script prints in an environment that has these packages, line by line."""
    said = printed([python_with(folder, *packages), HERE / script, *arguments], folder)
    return [json.loads(line) for line in said.splitlines() if line.startswith("[")]


def test_pipecat(brook_url: str, media: tuple[str, str], tmp_path: Path) -> None:
    said = in_its_own_environment("realtime_pipecat.py", tmp_path, ["pipecat-ai[openai]==1.14.0"], brook_url, *media)
    assert said == [["blue."], ["two."], ["blue."]]


def test_livekit_agents(brook_url: str, media: tuple[str, str], tmp_path: Path) -> None:
    packages = ["livekit-agents==1.8.*", "livekit-plugins-openai==1.8.*"]
    said = in_its_own_environment("realtime_livekit.py", tmp_path, packages, brook_url, *media)
    assert said == [["blue.", "two.", "blue."]]
