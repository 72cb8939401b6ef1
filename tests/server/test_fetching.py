"""Media by URL is fetched from public addresses only, whatever names, redirects and servers do, and within bounds. The
servers are real; which address a name has is the test's word, and a public one leads to the local server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fake_engine import FakeEngine
from harness import run, serving
from hypothesis import given
from hypothesis import strategies as st
from penstock.errors import InputError, LimitError, PenstockError
from penstock.server.fetching import Fetcher, is_public, target_of
from test_http_doors import answered, request

PUBLIC = "93.184.216.34"
URL = "http://pictures.example/a.png"
FILE = b"a picture"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + FILE


def moved(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


class World:
    """A server whose answers a test writes, by path, and the names that lead to it."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[asyncio.StreamWriter], Any]] = {"/a.png": OK}
        self.names: dict[str, list[list[str]]] = {"pictures.example": [[PUBLIC]]}
        self.asked: list[tuple[str, str]] = []  # address and first line
        self.hosts: list[str] = []
        self.port = 0
        self.tasks: set[Any] = set()

    async def resolve(self, host: str, port: int) -> list[str]:
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            answers = self.names[host]
            return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect(self, address: str, port: int, tls: Any, host: str) -> Any:
        assert is_public(ipaddress.ip_address(address)), f"a socket to {address}"
        self.asked.append((address, host))
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.hosts += [line[6:] for line in head.splitlines() if line.startswith(("Host: ", "host: "))]
            answer = self.answers[head.split()[1]]
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(writer)
        writer.close()

    def fetcher(self, most: int = 1000, hosts: frozenset[str] | None = None, seconds: float = 5.0) -> Fetcher:
        return Fetcher(hosts, most, self.resolve, self.connect, seconds)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made
        await asyncio.gather(*made.tasks)


def asking(*urls: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in urls]}]


async def refused(fetcher: Fetcher, words: str, url: str = URL, kind: type[PenstockError] = InputError) -> None:
    with pytest.raises(kind) as error:
        await fetcher.fill(asking(url))
    assert words in str(error.value), error.value


def test_what_a_url_names_takes_its_place() -> None:
    async def main() -> None:
        async with world() as made:
            made.answers["/b"] = moved("/a.png")
            filled, fetched = await made.fetcher().fill(asking("data:,x", "http://pictures.example/b", URL))
            assert fetched == 2 * len(FILE)
            first, *others = [part["image_url"]["url"] for part in filled[0]["content"]]
            assert first == "data:,x"
            assert [base64.b64decode(url.partition(",")[2]) for url in others] == [FILE, FILE]
            assert made.hosts == ["pictures.example"] * 3

    run(main)


def test_a_redirect_to_this_machine_is_not_followed() -> None:
    places = ["http://127.0.0.1/x", "http://localhost/", "http://[::1]/", "http://169.254.169.254/latest/meta-data"]
    places += ["http://[::ffff:127.0.0.1]/", "http://0x7f000001/", "http://inside.example/", "http://2130706433/"]

    async def main() -> None:
        async with world() as made:
            local = [["127.0.0.1"]]
            made.names |= {"inside.example": [[PUBLIC, "10.0.0.1"]], "localhost": local, "0x7f000001": local}
            made.names["2130706433"] = local
            for place in places:
                made.answers["/a.png"] = moved(place)
                await refused(made.fetcher(), "expected a host on the internet")
            assert {address for address, _ in made.asked} == {PUBLIC}
            for place, words in (
                ("ftp://pictures.example/a", "expected http://HOST/PATH"),
                ("file:///etc/passwd", "expected http://HOST/PATH"),
                ("http://pictures.example:22/", "expected the port 80, got 22"),
                ("http://me:secret@pictures.example/", "a user's name or a password"),
                ("http://[", "expected http://HOST/PATH"),
                ("/a.png", "at most 3 redirects"),
            ):
                made.answers["/a.png"] = moved(place)
                await refused(made.fetcher(), words)

    run(main)


def test_a_name_that_changes_its_address_gains_nothing() -> None:
    """The socket goes to the address that was looked at; a second look is a second check."""

    async def main() -> None:
        async with world() as made:
            made.names["pictures.example"] = [[PUBLIC], ["127.0.0.1"]]
            await made.fetcher().fill(asking(URL))
            assert made.asked == [(PUBLIC, "pictures.example")]
            await refused(made.fetcher(), "expected a host on the internet")
            assert len(made.asked) == 1

    run(main)


def test_only_allowed_hosts_are_asked() -> None:
    async def main() -> None:
        async with world() as made:
            made.names["other.example"] = [[PUBLIC]]
            fetcher = made.fetcher(hosts=frozenset({"pictures.example"}))
            await fetcher.fill(asking(URL))
            await refused(fetcher, "expected a host that this server fetches from", "http://other.example/a.png")
            made.answers["/a.png"] = moved("http://other.example/a.png")
            await refused(fetcher, "expected a host that this server fetches from")

    run(main)


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 100)
        await writer.drain()


async def slow(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
    while not writer.transport.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.05)


def test_bodies_are_bounded_in_size_and_time() -> None:
    async def main() -> None:
        async with world() as made:
            for answer, kind, words in (
                (endless, LimitError, "at most 1000 bytes for this request, got more"),
                (b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", LimitError, "at most 1000 bytes"),
                (slow, InputError, "within 0.3 s"),
                (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxx", InputError, "got"),
                (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, InputError, "expected an answer of pictures.example"),
                (b"no HTTP at all\r\n\r\n", InputError, "expected an answer of pictures.example"),
                (b"", InputError, "expected an answer of pictures.example"),
                (
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                    InputError,
                    "expected the status 200, got 404",
                ),
                (OK.replace(b"Content-L", b"Content-Encoding: gzip\r\nContent-L"), InputError, "compressed"),
            ):
                made.answers["/a.png"] = answer
                await refused(made.fetcher(seconds=0.3), words, kind=kind)
            made.answers["/a.png"] = OK
            with pytest.raises(LimitError, match=r"messages\[0\].content\[1\].image_url.url: URL: expected at most 6"):
                await made.fetcher(most=15).fill(asking(URL, URL))

    run(main)


BARRED = """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 255.255.255.255
224.0.0.1 240.0.0.1
198.18.0.1 192.0.2.1 192.88.99.1 :: ::1 fe80::1 fc00::1 fec0::1 ff02::1 2001:db8::1 3fff::1 ::ffff:127.0.0.1
::ffff:10.0.0.1 ::127.0.0.1 2002:7f00:1:: 2002:a00:1:: 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::1 ::ffff:0:7f00:1
2001:0:4136:e378:8000:63bf:80ff:fffe fd00:ec2::254"""


def test_addresses_that_are_not_the_internet() -> None:
    assert [text for text in BARRED.split() if is_public(ipaddress.ip_address(text))] == []
    for text in (PUBLIC, "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::"):
        assert is_public(ipaddress.ip_address(text)), text


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://", "http://a:", "http://[", "http://a@"]))
def test_any_text_is_a_target_or_refused(text: str, begin: str) -> None:
    with contextlib.suppress(InputError):
        target = target_of(begin + text, None)
        assert target.port in (80, 443) and target.path.startswith("/") and target.host


def test_a_server_fetches_only_where_it_was_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    engine.words = ["a"]

    async def main() -> None:
        body = {"messages": asking(URL)}
        async with world() as made:
            monkeypatch.setattr("penstock.server.routes.Fetcher", lambda hosts, most: made.fetcher(most, hosts))
            async with serving(engine, fetch_urls=True) as url:
                assert (await answered(url, request(body)))[0] == 200
                made.answers["/a.png"] = moved("http://127.0.0.1/")
                status, _, told = await answered(url, request(body))
                assert status == 400 and told["error"]["param"] == "messages[0].content[0].image_url.url"
                body = {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]}
                status, _, told = await answered(url, request(body, path="/v1/responses"))
                assert told["error"]["param"] == "input[0].content[0].image_url"
        (message,) = engine.streams[0].request.messages or []
        assert message["content"][0]["image_url"]["url"].endswith(base64.b64encode(FILE).decode())

    run(main)


def test_a_host_that_no_name_can_be_is_refused() -> None:
    """With the resolver of the machine, which raises something of its own for such a name."""

    async def main() -> None:
        for host in ("a..b", "a" * 64 + ".org"):
            with pytest.raises(InputError, match="a host that has an address"):
                await Fetcher(None, 1000).fill([{"role": "user", "content": [shown(f"http://{host}/x")]}])

    asyncio.run(main())


def shown(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}
