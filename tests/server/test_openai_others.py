"""Programs that take OpenAI's base URL work with the server, each in an environment of its own: the `openai` package of
Node, LangChain's `ChatOpenAI`, and schemathesis, which asks whatever `/openapi.json` allows."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from others import node_with, printed, python_with

SEES = "a red circle and a yellow square."
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NODE = """
import OpenAI from "openai";
import fs from "node:fs";
const [url, file] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
const image = "data:image/png;base64," + fs.readFileSync(file).toString("base64");
const content = [{ type: "image_url", image_url: { url: image } }, { type: "text", text: "What do you see?" }];
const messages = [{ role: "user", content }];
const options = { stream: true, stream_options: { include_usage: true } };
const stream = await client.chat.completions.create({ model: "brook", messages, ...options });
let text = "", usage = null;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
const input = [{ role: "user", content: [{ type: "input_image", image_url: image }, { type: "input_text",
  text: "What do you see?" }] }];
const response = await client.responses.create({ model: "brook", input });
let refused = null;
try { await client.chat.completions.create({ model: "brook", messages, temperature: -1 }); }
catch (error) { refused = [error.constructor.name, error.status, error.param]; }
console.log(JSON.stringify({ text, tokens: usage.completion_tokens, response: response.output_text, refused }));
"""

LANGCHAIN = """
import base64, sys
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
url, file = sys.argv[1:]
model = ChatOpenAI(base_url=url + "/v1", api_key="none", model="brook", max_retries=0)
image = "data:image/png;base64," + base64.b64encode(open(file, "rb").read()).decode()
content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "What do you see?"}]
print(model.invoke([HumanMessage(content)]).content)
print("".join(str(chunk.content) for chunk in model.stream([HumanMessage(content)])))
"""


def test_the_openai_package_of_node(brook_url: str, media: Path, tmp_path: Path) -> None:
    node_with(tmp_path, "openai@7")
    (tmp_path / "ask.mjs").write_text(NODE)
    told = json.loads(printed(["node", "ask.mjs", brook_url, media / "picture.png"], tmp_path))
    assert told == {"text": SEES, "tokens": 8, "response": SEES, "refused": ["BadRequestError", 400, "temperature"]}


def test_langchain(brook_url: str, media: Path, tmp_path: Path) -> None:
    python = python_with(tmp_path, "langchain-openai")
    (tmp_path / "ask.py").write_text(LANGCHAIN)
    assert printed([python, "ask.py", brook_url, media / "picture.png"], tmp_path).splitlines() == [SEES, SEES]


def test_whatever_the_document_allows_is_answered(brook_url: str, tmp_path: Path) -> None:
    """No answer is a 5xx or breaks off, each has a status and a shape that the document names; the server goes on."""
    run = python_with(tmp_path, "schemathesis==4.*").with_name("schemathesis")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", checks, "--max-examples", "150", "--request-timeout", "300", "--generation-database", "none"]
    printed([run, "run", f"{brook_url}/openapi.json", *options], tmp_path)
    with urllib.request.urlopen(f"{brook_url}/health") as health:
        told = json.load(health)
    assert told["status"] == "ok" and told["connections"] == 0 and told["streams"] == 0
