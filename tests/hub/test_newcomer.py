"""A newcomer does what the install page says, in an environment that has nothing: from no environment at all to the
first answer of a model of the Hub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from layout import publish_omni
from local_hub import LocalHub
from penstock.demos.film import draw
from PIL import Image

ROOT = Path(__file__).parents[2]
TORCH = "--index-url https://download.pytorch.org/whl/cpu "
KEPT = ("PATH", "LANG", "TMPDIR", "SSL_CERT_FILE")  # and pip's own: where packages come from here


def shell(heading: str) -> list[str]:
    """The blocks of commands under a heading of the page. TORCH_INDEX says where torch is taken from instead, as it
    does for make; empty: PyPI."""
    page = (ROOT / "docs" / "install.md").read_text()
    section = re.split(r"^## ", page.split(f"\n## {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]
    index = os.environ.get("TORCH_INDEX")
    instead = TORCH if index is None else f"--index-url {index} " if index else ""
    return [block.replace(TORCH, instead) for block in re.findall(r"^```sh\n(.*?)^```$", section, re.M | re.S)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_the_install_page_to_a_first_answer(hub: LocalHub, tmp_path: Path) -> None:
    publish_omni(tmp_path / "whole")
    hub.put("Qwen/Qwen2.5-Omni-3B", tmp_path / "whole")
    clone, home = tmp_path / "penstock", tmp_path / "home"
    unwanted = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, clone, ignore=unwanted)
    home.mkdir()
    Image.fromarray(draw(0.0)).save(clone / "door.jpg")
    own = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith("PIP_")}
    own |= {"HOME": str(home), "HF_ENDPOINT": hub.url}

    def follow(commands: str) -> str:
        """What they print."""
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=clone, env=own, capture_output=True, text=True, timeout=1500, check=False
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    (install,) = shell("Without make")
    follow(install)
    at_once, serving = shell("The first answer")
    activate, *asked = at_once.splitlines()
    machine, brook, other = (follow(f"{activate}; {command}") for command in asked)
    assert machine.startswith("compute\n") and "\n  cpu " in machine
    assert "circle" in brook or "square" in brook
    assert other  # it is random, and so are its words
    cache = home / ".cache" / "huggingface" / "hub"
    assert [path.name for path in cache.glob("models--*")] == ["models--Qwen--Qwen2.5-Omni-3B"]

    (build,) = shell("A wheel")
    follow(build)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    follow(f"{activate}; pip install -q --no-deps --force-reinstall dist/penstock-*.whl; rm -r build server engine")
    assert follow(f"{activate}; cd {elsewhere}; penstock ask {clone}/door.jpg 'What do you see?'") == brook

    serve, ask = serving.splitlines()
    with subprocess.Popen(
        ["sh", "-ec", f"{activate}; exec {serve} --port 0"],
        cwd=clone, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            url = server.stdout.readline().removeprefix("penstock: serving on ").strip()
            answer = follow(f"{activate}; {ask.replace('http://127.0.0.1:8000', url)}")
        finally:
            server.terminate()
    assert answer == other
