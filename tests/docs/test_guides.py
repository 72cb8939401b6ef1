"""The guides say what the code does: the proxy's headers are let in, limits and sizes are those of the code, a frame
goes the way that is written, and the program that reconnects survives a connection that is cut.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import ROOT, blocks, prose, tables
from penstock.codecs.frame import Samples
from penstock.engine.config import EngineConfig
from penstock.engine.loading.open import load
from penstock.server import cli
from penstock.server.access import host_allowed, origin_allowed
from penstock.server.config import ServerConfig
from penstock.server.keys import read_keys
from penstock.streams.requests.request import FORMATS
from penstock.streams.segment import VideoSegment
from penstock.streams.timeline import Timeline
from test_examples import HERE, run

from tests.fixtures.recipe import model_path

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([\w./-]+\.md)[)#]")


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, new = set(), {ROOT / "README.md"}
    while new:
        reached |= new
        links = {(page.parent / link).resolve() for page in new for link in LINK.findall(prose(page))}
        new = {page for page in links - reached if page.exists()}
    assert not [page.name for page in DOCS.rglob("*.md") if page not in reached]


def served(page: str) -> ServerConfig:
    """The configuration of the first `penstock serve` of a page."""
    words = shlex.split(next(block.text for block in blocks("sh") if block.page == page))
    return cli.server_config(cli._parser().parse_args(words[words.index("serve") :]))


def test_the_headers_of_the_proxy_are_let_in() -> None:
    config = served("deployment.md")
    nginx = (ROOT / "deploy" / "nginx.conf").read_text()
    set_headers = dict(re.findall(r"proxy_set_header (\w+) (.*);", nginx))
    assert set_headers.keys() == {"Host", "Upgrade", "Connection"} and set_headers["Host"] == "$host"
    name = re.findall(r"server_name (.*);", nginx)[0]
    headers = {"host": name, "origin": f"https://{name}"}
    assert origin_allowed(headers, config) and host_allowed(headers, config)
    plain = ServerConfig()
    assert not origin_allowed(headers, plain) and not host_allowed(headers, plain)
    assert f"proxy_pass http://{config.host}:{config.port};" in nginx
    assert all(int(seconds) > config.idle_seconds for seconds in re.findall(r"_timeout (\d+)s", nginx))


def test_what_is_deployed_starts_with_options_that_there_are() -> None:
    """The command of the image, of the compose file and of the unit; and the files that the compose file mounts."""
    folder = ROOT / "deploy"
    image = re.findall(r"^CMD (\[.*\])$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    unit = re.findall(r"^ExecStart=\S*/penstock (.*)$", (folder / "penstock.service").read_text(), re.MULTILINE)
    compose = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    ours = compose["penstock"]
    command = ours["command"].replace("${MODEL:-}", "some/model")
    for words in (json.loads(image[0]), shlex.split(unit[0]), shlex.split(command)):
        options = cli._parser().parse_args(words)
        assert options.log == "json" and options.port == ServerConfig().port
    assert ours["build"]["dockerfile"] == "deploy/Dockerfile"
    assert ours["build"]["target"] == "${TARGET:-cpu}"
    assert re.findall(r"^FROM \S+ AS (\w+)$", (folder / "Dockerfile").read_text(), re.MULTILINE)[1:] == ["cpu", "cuda"]
    mounted = [place.split(":")[0] for service in compose.values() for place in service.get("volumes", ())]
    assert all((folder / place).is_file() for place in mounted if place.startswith("."))
    assert sum(place.startswith(".") for place in mounted) == 4


def test_the_file_of_keys_is_taken(tmp_path: Path) -> None:
    (text,) = (block.text for block in blocks("toml") if block.page == "operating.md" and "key" in block.text)
    (tmp_path / "keys.toml").write_text(text)
    keys = read_keys(tmp_path / "keys.toml")
    assert [key.name for key in keys] == ["camera", "visitor"]
    assert all(key.is_shown([b"change-me"]) and not key.is_shown([b"change-you"]) for key in keys)


def test_the_limits_are_those_of_the_server() -> None:
    rows = tables(DOCS / "deployment.md", "option")
    defaults = ServerConfig()
    assert len(rows) == 6
    for option, default, _ in rows:
        name = option.strip("`").removeprefix("--").replace("-", "_")
        assert float(default) == getattr(defaults, name), option


def test_the_guide_to_formats_has_each_format() -> None:
    assert {row[1].strip("`") for row in tables(DOCS / "which-format.md", "what you build")} == set(FORMATS)


def test_a_frame_goes_the_way_that_is_written() -> None:
    """The messages of the page are those that a traced run has (tests/server/test_trace.py), in that order."""
    trace = ast.parse((ROOT / "tests" / "server" / "test_trace.py").read_text(encoding="utf-8"))
    chain = next(ast.literal_eval(node.value) for node in trace.body if isinstance(node, ast.Assign))
    messages = [kind for _, _, kind in chain]
    page = (DOCS / "one-frame.md").read_text(encoding="utf-8")
    assert re.findall(r"^(\d)\. ", page, re.MULTILINE) == list("12345678")
    named = [word for word in re.findall(r"`(\w+)`", page) if word in messages]
    assert named == messages


def test_the_rows_of_media_are_those_of_the_towers() -> None:
    models = {"Brook": None, "Qwen2.5-Omni": model_path("omni")}
    loaded = {name: load(path, EngineConfig()) for name, path in models.items()}
    rows = tables(DOCS / "how-long.md", "model")
    assert {row[0] for row in rows} == set(models)
    for name, media, stated, seconds, rate, lasts in rows:
        family, towers = loaded[name].family, loaded[name].towers
        timeline, length = Timeline(family.spec), int(seconds)
        if media == "sound":
            segments = timeline.feed(1, [Samples(np.zeros((1, length * 16_000 + 800), np.float32), 16_000, 0)]).segments
        else:
            width, height = map(int, re.findall(r"\d+", media))
            segments = [VideoSegment(1, 0, np.zeros((2, height, width, 3), np.uint8), 0, 500_000)]
            assert length == family.grid_seconds(None)
        marks = sum(map(len, family.block_ids["audio" if media == "sound" else "video"]))
        assert [towers.rows(segment) for segment in segments] == [int(stated)]
        assert float(rate) == (int(stated) + marks) / length
        assert lasts == f"{32_768 / float(rate) / 60:.1f} min"


class Wire:
    """A way to a server that is cut once, after so many bytes of the server."""

    def __init__(self, host: str, port: int, most: int) -> None:
        self._to, self._most = (host, port), most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self._to)
            most = self._most if self.connections == 1 else None
            for pair in ((client, server, None), (server, client, most)):
                threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, most: int | None) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while (data := source.recv(4096)) and (most is None or passed < most):
                target.sendall(data)
                passed += len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def wire(brook_url: str) -> Iterator[Wire]:
    host, port = brook_url.removeprefix("http://").split(":")
    made = Wire(host, int(port), 6000)
    yield made
    made.close()


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
def test_the_program_that_reconnects_goes_on_where_a_connection_was_cut(wire: Wire, kept: bool) -> None:
    """If the server keeps the connection the program does not notice. Else it shows the newest frames once more."""
    program = next(block for block in blocks("python") if block.page == "reconnecting.md")
    text = program.text if kept else program.text.replace(f'{HERE}")', f'{HERE}", resume=False)')
    assert HERE in text and ("resume=False" in text) != kept
    printed = run(program, text.replace(HERE, wire.address))
    parts = re.split(r"\n\[.*; again in 0\.2 s\]\n", printed)
    assert wire.connections == 2 and len(parts) == (1 if kept else 2), printed
    assert all("." in part for part in parts), printed
