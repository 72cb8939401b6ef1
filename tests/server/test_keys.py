"""Several keys: each has a name and limits of its own. Who is over a limit is told so, and nobody else is held up."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from fake_engine import FakeEngine
from harness import get_bytes, run, serving
from hypothesis import given
from hypothesis import strategies as st
from penstock.errors import PenstockError
from penstock.server.account import BURST_SECONDS, Account, pixels_of
from penstock.server.client import connect
from penstock.server.config import ServerConfig
from penstock.server.errors import ConfigError, ConnectionLostError, QuotaError, RateLimitError
from penstock.server.keys import ApiKey, read_keys
from penstock.server.metrics import Meter
from penstock.streams.event import Appended, Token
from penstock.streams.item import AudioChunk, Image, VideoFrame
from penstock.streams.requests.request import Request
from PIL import Image as Pictures

FILE = f"""
[camera]
key = "c4mera"
streams = 1
tokens_per_day = 5

[visitor]
sha256 = "{hashlib.sha256("visít".encode()).hexdigest()}"
bytes_per_second = 2000
"""


def test_each_key_lets_in_and_has_limits_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text(FILE)
    keys = read_keys(tmp_path / "keys.toml")

    async def main() -> None:
        async with serving(FakeEngine(tokens=3), keys=keys) as url:
            for wrong in (None, "camera", "visit"):
                with pytest.raises(ConnectionLostError, match="401"):
                    async with connect(url, wrong):
                        pass
            async with connect(url, "c4mera") as camera, connect(url, "visít") as visitor:
                stream, other = await camera.stream(Request()), await visitor.stream(Request())
                with pytest.raises(RateLimitError, match="streams of key camera: at most 1"):
                    await camera.stream(Request())
                await stream.close()
                stream = await camera.stream(Request())  # its place is free again
                for _ in range(2):
                    await (await stream.ask("Who?")).text()
                with pytest.raises(QuotaError, match="at most 5 a day"):
                    await stream.ask("Who?")
                with pytest.raises(RateLimitError, match="bytes of key visitor: at most 2000 a second"):
                    await other.append(AudioChunk(bytes(10_000), 16_000))
                await (await other.ask("Who?")).text()  # nobody else, and nothing else, is held up
                told = (await get_bytes(url, "/metrics"))[1].decode()
        assert 'penstock_key_tokens_total{key="camera"} 6.0' in told
        assert 'penstock_errors_total{code="rate_limit"} 2.0' in told

    run(main)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "at least one key"),
        ("[a]", "one of key and sha256, got neither"),
        ("[a]\nkey = 'x'\nsha256 = 'y'", "got both"),
        ("[a]\nsha256 = 'y'", "64 hexadecimal digits"),
        ("[a]\nkey = ' '", "an empty key"),
        ("[a]\nkey = 'x'\nstreams = 0", "streams: expected at least 1, got 0"),
        ("[a]\nkey = 'x'\nsteams = 1", "steams"),
        ("[a\n", "expected a table for each key"),
        ("[a]\nkey = 'x'\nname = 'b'", "no name but the title"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_keys(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_keys(tmp_path / "missing.toml")


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 400)), max_size=30))
def test_no_two_seconds_hold_more_than_the_rate_and_the_burst(uses: list[tuple[float, int]]) -> None:
    """In any stretch of time at most rate x (stretch + burst) is let through; what is refused uses nothing."""
    at, taken = 0.0, [(0.0, 0)]
    account = Account(ApiKey(name="a", key="k", bytes_per_second=100), Meter(), lambda: at)
    for wait, size in uses:
        at += wait
        with contextlib.suppress(RateLimitError):
            account.append(AudioChunk(b"", 16_000), size)
            taken.append((at, size))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            used = sum(size for _, size in taken[first : last + 1])
            assert used <= 100 * (taken[last][0] - taken[first][0] + BURST_SECONDS) + 1e-6


def test_tokens_are_free_again_at_midnight() -> None:
    today = 86_399.0
    account = Account(ApiKey(name="a", key="k", tokens_per_day=10), Meter(), today=lambda: today)
    account.note(Appended(1, "video", 0, 1, 0, 9, 0))
    account.ask()
    account.note(Token(1, 0, 5, "Me", None))
    for call in (account.ask, lambda: account.append(AudioChunk(b"", 16_000), 1), lambda: opened(account)):
        with pytest.raises(QuotaError):
            call()
    today += 1
    account.ask()


def opened(account: Account) -> None:
    with account.opening():
        pass


def test_a_stream_that_does_not_open_leaves_its_place() -> None:
    account = Account(ApiKey(name="a", key="k", streams=1), Meter())
    for _ in range(3):
        with pytest.raises(PenstockError), account.opening():
            raise PenstockError("no")
    opened(account)
    with pytest.raises(RateLimitError):
        opened(account)


def test_pixels_are_read_from_the_head_of_a_picture() -> None:
    file = io.BytesIO()
    Pictures.new("RGB", (64, 48)).save(file, "PNG")
    items = {
        Image(file.getvalue()): 3072,
        Image(file.getvalue()[:60]): 3072,
        VideoFrame(np.zeros((3, 5, 3), np.uint8)): 15,
        VideoFrame(b"", encoding="nv12", width=4, height=2): 8,
        Image(b"no picture"): 0,
        AudioChunk(b"", 16_000): 0,
    }
    assert {item: pixels_of(item) for item in items} == items
    account = Account(ApiKey(name="a", key="k", pixels_per_second=2000), Meter(), lambda: 0.0)
    account.append(Image(file.getvalue()), 1)
    with pytest.raises(RateLimitError, match="pixels of key a"):
        account.append(Image(file.getvalue()), 1)


def test_a_name_is_that_of_one_key() -> None:
    """Clients of two keys would else share one account, whose limits are those of whoever came first."""
    keys = (ApiKey(name="default", key="a", streams=1),)
    ServerConfig(keys=keys).check()
    with pytest.raises(ConfigError, match="'default'"):
        ServerConfig(api_key="b", keys=keys).check()


def test_media_in_a_request_counts_and_words_do_not() -> None:
    file = io.BytesIO()
    Pictures.new("RGB", (64, 48)).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    picture = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": url}}]
    keys = (ApiKey(name="a", key="k", pixels_per_second=2000, bytes_per_second=10_000),)

    async def main() -> None:
        async with serving(FakeEngine(), keys=keys) as url, connect(url, "k") as client:
            for content in ("x" * 100_000, picture):  # the second has 3072 pixels of 4000
                async with await client.stream(Request(messages=[{"role": "user", "content": content}])):
                    pass
            with pytest.raises(RateLimitError, match="pixels of key a"):
                await client.stream(Request(messages=[{"role": "user", "content": picture}]))

    run(main)
