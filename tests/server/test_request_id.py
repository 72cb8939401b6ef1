"""Each answer has a name, and the log has its lines under it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import websockets
from fake_engine import FakeEngine
from harness import run, serving
from test_http_doors import answered, ask, request
from test_logs import written

__all__ = ["written"]


def named(*given: str, body: Any = None, path: str = "/v1/chat/completions") -> tuple[int, str]:
    """Status and name of the answer to a request of this name."""
    engine = FakeEngine()
    engine.words = ["a"]
    sent = request(ask() if body is None else body, *(f"X-Request-Id: {name}" for name in given), path=path)
    found: list[tuple[int, str]] = []

    async def main() -> None:
        async with serving(engine) as url:
            status, headers, _ = await answered(url, sent)
            found.append((status, headers["x-request-id"]))

    run(main)
    return found[0]


def test_an_answer_has_the_name_that_its_client_gave() -> None:
    assert named("turn-7") == (200, "turn-7")
    assert named("turn-8", body=b"{") == (400, "turn-8")
    assert named("turn-9", path="/v1/nothing") == (404, "turn-9")


@pytest.mark.parametrize("given", [(), ("x" * 129,), ("two words",)])
def test_an_answer_without_a_name_that_can_be_taken_gets_a_new_one(given: tuple[str, ...]) -> None:
    (_, first), (_, second) = named(*given), named(*given)
    assert first.startswith("req_") and second.startswith("req_") and first != second


def test_a_fault_has_the_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *_: Any) -> Any:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr("penstock.server.routes.Service._refusal", broken)
    assert named("turn-7") == (500, "turn-7")


def test_a_handshake_has_a_name() -> None:
    async def main() -> None:
        async with serving(FakeEngine()) as url:
            ws = url.replace("http", "ws") + "/v1/stream"
            async with websockets.connect(ws, additional_headers={"X-Request-Id": "turn-7"}) as socket:
                assert socket.response is not None and socket.response.headers["x-request-id"] == "turn-7"
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with websockets.connect(f"{ws}/nothing", additional_headers={"X-Request-Id": "turn-8"}):
                    pass
            assert refused.value.response.headers["x-request-id"] == "turn-8"

    run(main)


def test_the_log_has_its_lines_under_the_name(written: io.StringIO) -> None:
    assert named("turn-7", body=b"{")[0] == 400
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["request_id"] for line in lines if line["message"].startswith("request refused")] == ["turn-7"]
