"""`penstock encode-serve` on the command line, and the options by which `serve` finds such a process. In: options.
Out: a process that encodes until it is stopped, with lines that say where.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..engine.config import EngineConfig
from ..engine.loading.compute import amount
from .config import ServerConfig

# Frames and prompts are sent as pixels, several at once.
MESSAGE_BYTES = 256 * 2**20
PORT = 8001


def add_encoder(model: argparse._ArgumentGroup, positive: Callable[[str], float]) -> None:
    """The options of `serve` for an encoder in another process."""
    model.add_argument(
        "--encoder",
        metavar="URL",
        help="the ws:// address of a `penstock encode-serve` that encodes media; no weights of towers are loaded here; "
        "several with commas between them",
    )
    model.add_argument("--encoder-key-file", metavar="FILE", help="file whose first line is the key of that encoder")
    model.add_argument(
        "--encoder-seconds",
        type=positive,
        default=EngineConfig().encoder_seconds,
        metavar="SECONDS",
        help="how long media waits for it when it is away (default %(default)g)",
    )


def add_address(parser: Any, whole: Callable[[str], int]) -> argparse._ArgumentGroup:
    """Where `encode-serve` listens."""
    defaults = ServerConfig()
    address = parser.add_argument_group("address and access")
    address.add_argument("--host", default=defaults.host, help="address to listen on (default %(default)s)")
    address.add_argument("--port", type=whole, default=PORT, help="0 takes a free one (default %(default)s)")
    address.add_argument("--insecure", action="store_true", help="no key although other machines can connect")
    address.add_argument("--tls-cert", metavar="FILE", help="a certificate, PEM")
    address.add_argument("--tls-key", metavar="FILE", help="its key, PEM, without a passphrase")
    address.add_argument(
        "--max-message-bytes",
        type=whole,
        default=MESSAGE_BYTES,
        metavar="BYTES",
        help="bytes of one message of an engine (default %(default)s)",
    )
    return address


def main(options: argparse.Namespace, api_key: str | None, setup: EngineConfig) -> int:
    """Serve towers until SIGTERM or Ctrl-C; 0. ConfigError and ModelError before anything is served."""
    import asyncio

    from .app import bind, new_loop, serve_app
    from .encode_service import PATH, encode_app
    from .keys import read_keys

    config = ServerConfig(
        host=options.host,
        port=options.port,
        api_key=api_key,
        keys=() if options.keys is None else read_keys(options.keys),
        insecure=options.insecure,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        max_message_bytes=options.max_message_bytes,
    )
    listener = bind(config)
    from ..engine.loading.towers import load_towers

    loaded = load_towers(options.model, setup, options.revision)

    def announce(url: str) -> None:
        why = f": {loaded.why}" if loaded.why else ""
        print(f"penstock: encoding on {url.replace('http', 'ws', 1)}")
        print(f"  model     {loaded.model} ({loaded.family}), {loaded.dtype} on {loaded.device}{why}")
        print(f"  encodes   {', '.join(kind for kind in loaded.kinds if kind != 'unit')}")
        print(f"  memory    {amount(loaded.nbytes)} weights: what encodes alone")
        print(f"  socket    {url.replace('http', 'ws', 1)}{PATH}")
        print(f"  key       {'wanted' if config.all_keys else 'none: everyone who reaches it may use it'}", flush=True)

    app = encode_app(loaded, config)
    with listener, asyncio.Runner(loop_factory=new_loop) as runner:
        try:
            runner.run(serve_app(app, config, listener, announce))
        finally:
            app.state.service.stop()
    return 0
