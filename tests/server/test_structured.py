"""Structured replies of Brook over the network and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asking import ask, refusal
from harness import run
from penstock.errors import InputError
from penstock.server.cli import main
from penstock.server.client import connect
from penstock.streams.item import Image
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.requests.structured import Structured

COLOURS = ["red", "green", "blue", "yellow"]
SEEN = {
    "type": "object",
    "properties": {"shape": {"enum": ["circle", "square", "triangle"]}, "colour": {"enum": COLOURS}},
    "required": ["shape", "colour"],
    "additionalProperties": False,
}


def test_over_the_network(media: Path, url: str) -> None:
    picture = Image((media / "picture.png").read_bytes())

    async def main() -> None:
        async with connect(url) as connection, await connection.stream(Request(format="turns")) as stream:
            await stream.append(picture)
            reply = await stream.ask("What do you see?", SamplingParams(structured=Structured(json_schema=SEEN)))
            seen = json.loads(await reply.text())
            assert seen.keys() == {"shape", "colour"}
            assert seen["colour"] in COLOURS
            with pytest.raises(InputError, match="^params.structured.regex: .*unclosed group"):
                await stream.ask("What do you see?", SamplingParams(structured=Structured(regex="(a")))
            with pytest.raises(InputError, match="^params.structured.json_schema: Invalid type: foo"):
                await connection.stream(
                    Request(params=SamplingParams(structured=Structured(json_schema='{"type":"foo"}')))
                )
            choice = SamplingParams(structured=Structured(choice=COLOURS))
            assert await (await stream.ask("What do you see?", choice)).text() in COLOURS

    run(main)


def test_on_the_command_line(media: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(media / "picture.png"), "What do you see?", "--url", url]
    schema = tmp_path / "seen.json"
    schema.write_text(json.dumps(SEEN))
    assert main(["ask", *words, "--json-schema", str(schema)]) == 0
    assert json.loads(capsys.readouterr().out)["colour"] in COLOURS
    assert main(["ask", *words, "--choice", "a cat,a dog"]) == 0
    assert capsys.readouterr().out in ("a cat\n", "a dog\n")
    told = ask(capsys, *words, "--regex", "[0-9]{4}")
    assert "".join(event["text"] for event in told if event["type"] == "token").isdigit()
    assert refusal(capsys, "ask", *words, "--json-schema", str(tmp_path)).startswith("--json-schema: expected a file")
    assert "params.structured.regex: " in refusal(capsys, "ask", *words, "--regex", "(a")
