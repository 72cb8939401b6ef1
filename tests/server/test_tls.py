"""A certificate and a key that cannot be used are told before a model is loaded; with good ones all goes over TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from asking import refusal
from fake_engine import FakeEngine
from harness import run, serving
from penstock.server import http
from penstock.server.app import bind
from penstock.server.config import ServerConfig
from penstock.server.errors import ConfigError

# Made for these tests; they protect nothing.
KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg3DZ7O1mMOMCGiEzU
33ZkwQiTacwOthU2ytSwnwIlyTKhRANCAAQNlCsXneuubJOEiFoYCHf44EeiubO6
lcrGcM85Sy5G0HQ++Agm/sb699VepLhKRMBiBk3UBvUsXSo4ADuyTmPi
-----END PRIVATE KEY-----
"""
CERT = """-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUazwBEInIJZITjgDMJzlU3TrtB0swCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODEwMDM1OFoYDzIxMjYxMTA0
MTAwMzU4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQNlCsXneuubJOEiFoYCHf44EeiubO6lcrGcM85Sy5G0HQ++Agm/sb6
99VepLhKRMBiBk3UBvUsXSo4ADuyTmPio28wbTAdBgNVHQ4EFgQUmcHsnU1xjX1w
ljKejlYItJX6PKEwHwYDVR0jBBgwFoAUmcHsnU1xjX1wljKejlYItJX6PKEwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAK4ALSixWH2PasiECEgAwJE+iIv0PyB5XI9JqzSf797vAiBh
opxC3aDkxssX89pt2UpuA9PdrBXqXFKxnpNC/6ogwA==
-----END CERTIFICATE-----
"""
OTHER_KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgECZeu0FBZivStpCc
SWmBHLFsm68HqBrQnlrhsj3IkayhRANCAAQ8+nrBJ3W0sRH60bGdsTndYIpfaeXC
XSoBmAE+NtV63Qvyh4LVKCT3SWY9zaaaxW03whwvNGpLDvj1j5sRUxsN
-----END PRIVATE KEY-----
"""
LOCKED_KEY = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjq+LcGbJoOnQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEECNI9mXPSGSyr8fLLSO+LXUEgZBi
Q6S1T80xK/m19ir5MswMEo5AAz16IxLx45NHKFfxbWm4lHy6ohAaEfBkac36xosX
uFgptt22UOMHaqdziGpzhF8mBMi9ttuOS4zkCBPCKsi7szIvdJAMWS7+ZSPzN/fb
Lqa6jno3Hy1j6b74J0ifVkrR/ePleiTze3seqsEM3TsvyitpVaeVD9reHuSCpv8=
-----END ENCRYPTED PRIVATE KEY-----
"""
BAD = {
    "no such certificate": (None, KEY, "--tls-cert: expected a PEM file, got .*cert.pem: No such file or directory"),
    "no such key": (CERT, None, "--tls-key: expected a PEM file, got .*key.pem: No such file or directory"),
    "no certificate": ("words", KEY, "TLS: expected a certificate and its own key, got .*cert.pem and .*key.pem: "),
    "no key": (CERT, "words", "TLS: expected a certificate and its own key"),
    "a foreign key": (CERT, OTHER_KEY, "TLS: expected a certificate and its own key, got .*: .*(?i:mismatch)"),
    "the wrong way round": (KEY, CERT, "TLS: expected a certificate and its own key"),
    "a locked key": (CERT, LOCKED_KEY, "--tls-key: expected a key without a passphrase, got .*key.pem"),
}


def files(folder: Path, cert: str | None, key: str | None) -> dict[str, Any]:
    for name, text in (("cert.pem", cert), ("key.pem", key)):
        if text is not None:
            (folder / name).write_text(text)
    return {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused(case: str, tmp_path: Path) -> None:
    cert, key, told = BAD[case]
    with pytest.raises(ConfigError, match=told):
        bind(ServerConfig(port=0, **files(tmp_path, cert, key)))


def test_it_is_told_before_a_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = files(tmp_path, CERT, OTHER_KEY)
    options = ["--tls-cert", given["tls_cert"], "--tls-key", given["tls_key"]]
    assert refusal(capsys, "serve", "no/such-model", "--port", "0", *options).startswith("TLS: expected a certificate")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half of its beginning"])
def test_a_handshake_that_does_not_end_is_ended(
    sent: bytes, loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.3)

    async def main() -> None:
        async with serving(FakeEngine(), **files(tmp_path, CERT, KEY)) as url:
            host, port = url.removeprefix("https://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            began = time.monotonic()
            writer.write(sent)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            assert 0.25 < time.monotonic() - began < 2
            writer.close()

    run(main, loop)


def test_health_over_tls(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(FakeEngine(), **files(tmp_path, CERT, KEY)) as url:
            assert url.startswith("https://")
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            host, port = url.removeprefix("https://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port), ssl=trusting)
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()

    run(main)
