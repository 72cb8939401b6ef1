"""The command line: `penstock serve`, `ask`, `devices`, `trace`, `bench`, `fetch-demo-model`, `completion`.

In come arguments and the environment (PENSTOCK_API_KEY); out go an exit code (0; 2 with one line on stderr; 130 after
Ctrl-C) and, from `serve`, a line with the address and some with what is served, on stdout. Loads torch, PyAV, starlette
and uvicorn only in the command that needs them.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from ..codecs.errors import PenstockError
from ..engine.compute import amount
from ..engine.config import FITTING, EngineConfig
from ..streams.request import FORMATS
from .config import LIMITS, ServerConfig
from .errors import ConfigError

if TYPE_CHECKING:
    from ..actors.engine import EngineInfo
    from ..engine.memory import Memory

_TAKES = {"unit": "sound inside video"}
_LIMIT_HELP = {
    "max_connections": "open sockets",
    "max_streams": "open streams of one socket",
    "max_message_bytes": "bytes of one message",
    "max_text_bytes": "bytes of one text message",
    "waiting_bytes": "bytes of one stream that wait to be accepted",
    "unread_bytes": "bytes of output that a client may leave unread",
    "unread_seconds": "seconds that output may stay unread",
    "idle_seconds": "seconds without a message after which a client is closed",
    "drain_seconds": "seconds that running replies may go on after SIGTERM",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command is _ask and not any(word.startswith("-") for word in rest if word != "-"):
        options.words += rest  # Words behind an option that stands between words.
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return options.command(options)
    except PenstockError as error:
        print(f"penstock: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="penstock", description="Media appended to the KV cache of the request that is running.")
    parser.add_argument("--version", action="version", version=f"penstock {_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a model over WebSocket"))
    _add_ask(
        commands.add_parser(
            "ask", help="show media to a model and ask", usage="penstock ask [options] MEDIA [MEDIA ...] QUESTION"
        )
    )
    devices = commands.add_parser("devices", help="what can compute, see and hear here")
    devices.set_defaults(command=_devices)
    devices.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_trace(commands.add_parser("trace", help="show the messages of one frame from socket to token"))
    bench = commands.add_parser("bench", help="measure")
    benches = bench.add_subparsers(title="benchmarks", required=True, metavar="WHAT")
    _add_bench_append(benches.add_parser("append", help="time per append and per decode step, by history"))
    fetch = commands.add_parser("fetch-demo-model", help="fetch a small trained text model, SmolLM2-135M-Instruct")
    fetch.set_defaults(command=_fetch_demo_model)
    fetch.add_argument("--into", type=Path, metavar="FOLDER", help="where it should lie (default in ~/.cache/penstock)")
    completion = commands.add_parser("completion", help="print a script that completes this command line")
    completion.set_defaults(command=_completion)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def _add_serve(parser: argparse.ArgumentParser) -> None:
    defaults = ServerConfig()
    parser.set_defaults(command=_serve)
    parser.add_argument(
        "model", nargs="?", help="a model's name or folder; without one Brook, which knows coloured shapes and sounds"
    )
    _add_place(parser)
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--memory-fraction",
        type=_positive,
        help="how much the KV cache takes of what weights and the largest step leave (default 0.9 on cuda; elsewhere "
        "0.5, but 32768 tokens at most)",
    )
    cache.add_argument("--kv-gib", type=_positive, help="the KV cache's size in GiB, instead")
    parser.add_argument("--host", default=defaults.host, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=defaults.port, help="0 takes a free one (default %(default)s)")
    _add_key(parser, "what clients must show")
    parser.add_argument("--insecure", action="store_true", help="no key although other machines can connect")
    parser.add_argument("--tls-cert", help="PEM file")
    parser.add_argument("--tls-key", help="PEM file")
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN", help="may be repeated")
    for name in LIMITS:
        value = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            help=f"{_LIMIT_HELP[name]} (default {value})",
        )
    parser.add_argument(
        "--decode",
        choices=("workers", "inline"),
        default="workers",
        help="where client media is decoded (default workers)",
    )
    parser.add_argument(
        "--processor",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the model's processor, for example max_pixels=200000; may be repeated",
    )
    parser.add_argument(
        "--limit",
        type=_setting,
        action="append",
        default=[],
        metavar="KIND=COUNT",
        help="images, videos or audios that a prompt may have, for example image=8; may be repeated",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--revision", help="a branch, tag or commit of a model on the Hub")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default auto: the first of cuda, mps, cpu")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="default auto: the checkpoint's own, on a CPU only where that is fast",
    )
    parser.add_argument("--quantize", choices=("int8",), help="keep the decoder's linear layers as int8")


def _add_key(parser: argparse.ArgumentParser, what: str) -> None:
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--api-key", help=f"{what}; better in PENSTOCK_API_KEY or in a file")
    key.add_argument("--api-key-file", type=Path, help="file whose first line is the key")


def _add_ask(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_ask)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="MEDIA QUESTION",
        help="a picture, video or sound file, camera[:N], microphone[:N], or - for stdin; last the question",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--model", help="a model's name or folder, loaded here; without one Brook")
    where.add_argument("--url", help="a server that runs, for example ws://127.0.0.1:8000, instead of a model here")
    _add_place(parser)
    _add_key(parser, "the server's key")
    parser.add_argument("--live", action="store_true", help="ask at the start; the model speaks while it watches")
    parser.add_argument("--pace", action="store_true", help="play files at their own pace, as --live does")
    parser.add_argument(
        "--seconds",
        type=_positive,
        help="how long a camera or microphone is watched (default 5, with --live until Ctrl-C)",
    )
    parser.add_argument("--system", help="the system prompt")
    parser.add_argument("--max-tokens", type=int, help="at most so many (default 256, with --live 4000)")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest token (default: as the model has it)")
    parser.add_argument("--format", choices=FORMATS, help="default turns, with --live live")
    parser.add_argument("--fps", type=float, help="frames a second that the model gets (default: the model's own)")
    parser.add_argument("--json", action="store_true", help="the stream's events, one JSON object a line")


def _setting(text: str) -> tuple[str, bool | int | float]:
    """A name and its value: true, false or a number."""
    name, equals, value = text.partition("=")
    words = {"true": True, "false": False}
    try:
        if name and equals:
            return name, words[value] if value in words else float(value) if "." in value else int(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, NAME=true or NAME=false, got {text!r}")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
    return value


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_trace)
    parser.add_argument("model", nargs="?", help="a model's name or folder; without one Brook")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--tokens", type=int, default=2, help="length of the reply (default 2)")


def _add_bench_append(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_bench)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, default=20, help="rounds that medians are taken over (default 20)")
    parser.add_argument("--tokens", type=int, default=600, help="tokens of the timed reply (default 600)")
    parser.add_argument("--cuda-graphs", action="store_true", help="decode steps are recorded and launched whole")
    parser.add_argument("--histories", type=_numbers, default=(1_000, 20_000), help="tokens, separated by commas")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def server_config(options: argparse.Namespace) -> ServerConfig:
    """The configuration that the options of `serve` and the environment give, checked."""
    limits: dict[str, Any] = {name: getattr(options, name) for name in LIMITS}
    config = ServerConfig(
        host=options.host,
        port=options.port,
        api_key=_api_key(options),
        insecure=options.insecure,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        allow_origins=tuple(options.allow_origin),
        **limits,
    )
    config.check()
    return config


def _api_key(options: argparse.Namespace) -> str | None:
    if options.api_key is not None:
        return options.api_key
    if options.api_key_file is None:
        return os.environ.get("PENSTOCK_API_KEY")
    try:
        lines = options.api_key_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file: cannot read {options.api_key_file}: {error}") from None
    if not lines:
        raise ConfigError(f"--api-key-file: expected a key in {options.api_key_file}, got an empty file")
    return lines[0].strip()


def _serve(options: argparse.Namespace) -> int:
    config = server_config(options)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
    )
    for chatty in ("uvicorn", "httpx", "httpx2"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    import asyncio

    from .app import bind, new_loop, serve

    listener = bind(config)  # Before the model is loaded: a port that is taken should not cost a minute.
    from ..actors.engine import Engine

    async def run() -> None:
        cache = {"kv_gib": options.kv_gib, "memory_fraction": options.memory_fraction}
        media = {"processor": dict(options.processor), "limits_per_request": dict(options.limit)}
        setup = msgspec.structs.replace(engine_config(options), decode=options.decode, **cache, **media)
        async with await Engine.load(options.model, revision=options.revision, config=setup) as engine:

            def announce(url: str) -> None:
                print(f"penstock: serving on {url}")
                for name, what in _facts(url, engine.info, config, options.model is None):
                    print(f"  {name:9} {what}", flush=True)

            await serve(engine, config, listener=listener, on_listening=announce)

    with listener, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())
    return 0


def engine_config(options: argparse.Namespace) -> EngineConfig:
    """What the options of `serve` and `ask` say about the model's device, type and size; what fits where they say
    nothing."""
    given = {name: getattr(options, name) for name in ("device", "dtype", "quantize")}
    return msgspec.structs.replace(FITTING, **{name: value for name, value in given.items() if value is not None})


def _facts(url: str, info: EngineInfo, config: ServerConfig, own: bool) -> list[tuple[str, str]]:
    """What a person should know of a server that has started, by name."""
    auto = "live" if info.live_trained else "turns: the model claims no training for live"
    return [
        ("model", f"{info.model} ({info.family}), {info.dtype} on {info.device}{f': {info.why}' if info.why else ''}"),
        *([("", "Brook: knows coloured shapes, beeps and a few spoken words, nothing else")] if own else []),
        ("takes", ", ".join(["text", *(_TAKES.get(name, name) for name in info.modalities)])),
        ("formats", f"{', '.join(info.formats)} (auto: {auto})"),
        ("replies", f"{info.sampling}, unless a request says otherwise"),
        ("socket", f"{url.replace('http', 'ws', 1)}/v1/stream"),
        ("health", f"{url}/health, {url}/ready"),
        ("key", "wanted" if config.api_key is not None else "none: everyone who reaches it may use it"),
        ("limits", f"{config.max_connections} connections, {config.max_streams} streams each"),
        ("", f"{info.kv_tokens} rows of KV cache for all, {info.max_positions} positions a stream"),
        ("", f"{config.max_message_bytes} bytes a message, {config.idle_seconds:g} s idle"),
        *_shares(info.memory),
    ]


def _shares(memory: Memory) -> list[tuple[str, str]]:
    """Who has how much of the device's memory."""
    return [
        ("memory", f"{amount(memory.weight_bytes)} weights, {amount(memory.step_bytes)} the largest step"),
        ("", f"{amount(memory.encoder_bytes)} the encoder at most"),
        ("", f"{amount(memory.kv_bytes)} KV cache: {memory.pages} pages, {memory.tokens} tokens"),
        ("", f"{memory.tokens // 8192} streams of 8k tokens fit"),
    ]


def _ask(options: argparse.Namespace) -> int:
    from . import ask

    if options.url is not None and (options.revision or options.device or options.dtype or options.quantize):
        raise ConfigError("--revision, --device, --dtype, --quantize: expected a model that is loaded here, got --url")
    return ask.main(options, None if options.url is None else _api_key(options), engine_config(options))


def _devices(options: argparse.Namespace) -> int:
    from . import devices

    return devices.main(options)


def _fetch_demo_model(options: argparse.Namespace) -> int:
    from . import demo_model

    return demo_model.main(options)


def _completion(options: argparse.Namespace) -> int:
    from . import completion

    print(completion.script(_parser(), options.shell), flush=True)
    return 0


def _trace(options: argparse.Namespace) -> int:
    from . import trace

    return trace.main(options)


def _bench(options: argparse.Namespace) -> int:
    from . import bench

    return bench.main(options) or 0


def _version() -> str:
    try:
        return metadata.version("penstock")
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
