"""Options of the server from a file and from the environment: which of them goes first, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from penstock.server import cli

FILE = """
[serve]
model = "some/model"
port = 81
max-streams = 3
limit = ["image=2", "video=1"]
stay = true
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, without anything in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_API_KEY", raising=False)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `penstock config` prints."""
    assert cli.main(["config", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_line_goes_first_then_the_environment_then_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = told(capsys)
    assert {setting["source"] for setting in plain.values()} == {"default"}
    (here / "penstock.toml").write_text(FILE)
    monkeypatch.setenv("PENSTOCK_PORT", "82")
    monkeypatch.setenv("PENSTOCK_IDLE_SECONDS", "7.5")
    now = told(capsys, "--idle-seconds", "9", "--max-streams=4")
    changed = {name: (setting["value"], setting["source"]) for name, setting in now.items() if setting != plain[name]}
    assert changed == {
        "model": ("some/model", "penstock.toml"),
        "port": (82, "PENSTOCK_PORT in the environment"),
        "idle-seconds": (9.0, "command line"),
        "max-streams": (4, "command line"),
        "limit": ([["image", 2], ["video", 1]], "penstock.toml"),
        "stay": (True, "penstock.toml"),
    }
    (here / "other.toml").write_text("[serve]\nport = 83\n")
    monkeypatch.delenv("PENSTOCK_PORT")
    assert told(capsys, "own/model", "--config", "other.toml")["port"] == {"value": 83, "source": "other.toml"}
    assert told(capsys, "own/model")["model"] == {"value": "own/model", "source": "command line"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[serve]\nprt = 81\n", "penstock.toml: expected options of penstock serve under [serve], got 'prt'"),
        ("[serve]\nport = 'x'\n", "argument --port: expected a whole number, got 'x'"),
        ("[serve]\nhost = '0.0.0.0'\n", "expected an API key"),
        ("[serve\n", "penstock.toml"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    (here / "penstock.toml").write_text(text)
    try:
        code = cli.main(["config"])
    except SystemExit as left:
        code = left.code
    error = capsys.readouterr().err
    assert code == 2 and why in error and error.count("\n") == 1


def test_a_key_is_not_told(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PENSTOCK_API_KEY", "s3cret")
    (here / "penstock.toml").write_text("[serve]\napi-key = 's3cret'\n")
    for source in ("PENSTOCK_API_KEY in the environment", "penstock.toml"):
        assert cli.main(["config"]) == 0
        out = capsys.readouterr().out
        assert "s3cret" not in out
        assert any(line.split(maxsplit=2) == ["api-key", "set", source] for line in out.splitlines())
        monkeypatch.delenv("PENSTOCK_API_KEY", raising=False)


def test_each_option_is_called_the_same_everywhere(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line, in the environment, in the file and in what is told: `--no-prefix-cache` too."""
    (here / "penstock.toml").write_text("[serve]\nno-cuda-graphs = true\n")
    monkeypatch.setenv("PENSTOCK_NO_PREFIX_CACHE", "true")
    monkeypatch.setenv("PENSTOCK_MODEL", "some/model")
    now = told(capsys)
    assert now["no-prefix-cache"] == {"value": True, "source": "PENSTOCK_NO_PREFIX_CACHE in the environment"}
    assert now["no-cuda-graphs"] == {"value": True, "source": "penstock.toml"}
    assert now["model"] == {"value": "some/model", "source": "PENSTOCK_MODEL in the environment"}
    options = cli._parser().parse_args(["serve"])
    assert (options.prefix_cache, options.cuda_graphs) == (False, False)


def test_the_key_of_the_environment_goes_before_that_of_the_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "penstock.toml").write_text("[serve]\napi-key = 'old'\n")
    parse = cli._parser().parse_args
    assert cli.server_config(parse(["serve"])).api_key == "old"
    monkeypatch.setenv("PENSTOCK_API_KEY", "new")
    assert cli.server_config(parse(["serve"])).api_key == "new"
    assert cli.server_config(parse(["serve", "--api-key", "own"])).api_key == "own"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PENSTOCK_MAX_STREAM", "PENSTOCK_MAX_STREAMS"),
        ("PENSTOCK_APIKEY", "PENSTOCK_API_KEY"),
        ("PENSTOCK_XQ", "PENSTOCK_PORT"),
    ],
)
def test_a_name_in_the_environment_that_is_no_option_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, nearest: str
) -> None:
    monkeypatch.setenv(name, "3")
    assert cli.main(["config"]) == 2
    error = capsys.readouterr().err
    assert name in error and nearest in error and error.count("\n") == 1


def test_names_in_the_environment_that_are_of_others_are_let_be(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that tests and models read, and what Kubernetes tells a container beside a service called penstock."""
    others = "CACHE", "TESTS", "STARTED", "THREADS", "SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT_8000_TCP_ADDR"
    for name in others:
        monkeypatch.setenv(f"PENSTOCK_{name}", "3")
    assert all(setting["source"] == "default" for setting in told(capsys).values())
