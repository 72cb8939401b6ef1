"""The command line: `penstock serve`, `plan`, `ask`, `devices`, `trace`, `bench`, `fetch-demo-model`, `completion`.

In come arguments and the environment (PENSTOCK_API_KEY); out go an exit code (0; 2 with one line on stderr; 130 after
Ctrl-C) and, from `serve`, a line with the address and some with what is served, on stdout. Loads torch, PyAV, starlette
and uvicorn only in the command that needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..engine.config import FITTING, EngineConfig
from ..engine.loading.compute import amount
from ..errors import PenstockError
from . import logs
from .config import LIMITS, ServerConfig
from .errors import ConfigError, EngineFailedError
from .keys import read_keys
from .options import make_parser
from .settings import SettingsParser, in_force, key_in_environment

if TYPE_CHECKING:
    from ..actors.info import EngineInfo
    from ..engine.loading.memory import Memory
    from .telemetry import Telemetry

_TAKES = {"unit": "sound inside video"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    settings: SettingsParser | None = getattr(options, "settings", None)
    if settings is not None:
        options.model = options.model or options.model_option
    if options.command is _ask and not any(word.startswith("-") for word in rest if word != "-"):
        options.words += rest  # Words after an option that stands between words.
        rest = []
    try:
        if settings is not None:
            settings.check_names()
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        if options.command is None:
            parser.print_help()
            return 0
        return options.command(options)
    except PenstockError as error:
        cause = error.__cause__
        told = f"{error}: {type(cause).__name__}: {cause}" if isinstance(error, EngineFailedError) else str(error)
        print(f"penstock: error: {' '.join(told.split())}", file=sys.stderr)
        return 1 if isinstance(error, EngineFailedError) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _parser() -> argparse.ArgumentParser:
    return make_parser(
        {
            "serve": _serve,
            "config": _config,
            "encode-serve": _encode_serve,
            "plan": _plan,
            "ask": _ask,
            "watch": _ask,
            "devices": _devices,
            "trace": _trace,
            "replay": _replay,
            "bench": _bench,
            "fetch-demo-model": _fetch_demo_model,
            "completion": _completion,
        }
    )


# Options that are fields of `EngineConfig`.
_SIZES = ("kv_gib", "kv_dtype", "memory_fraction", "slots", "language_only")
_PLACE = ("device", "dtype", "threads")
_ENGINE = ("device", "dtype", "quantize", "threads", "cuda_graphs", "chat_template")


def server_config(options: argparse.Namespace) -> ServerConfig:
    """The configuration that the options of `serve` and the environment give, checked."""
    limits: dict[str, Any] = {name: getattr(options, name) for name in LIMITS}
    config = ServerConfig(
        host=options.host,
        port=options.port,
        api_key=_api_key(options),
        keys=() if options.keys is None else read_keys(options.keys),
        insecure=options.insecure,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        stay=options.stay,
        adapter_folder=options.adapter_folder,
        snapshots=options.snapshots,
        allow_origins=tuple(options.allow_origin),
        fetch_urls=options.fetch_urls,
        allow_urls=tuple(options.allow_url),
        **limits,
    )
    config.check()
    return config


def _api_key(options: argparse.Namespace) -> str | None:
    key = key_in_environment(options)
    if key is not None or options.api_key is not None:
        return key or options.api_key
    if options.api_key_file is None:
        return None
    try:
        lines = options.api_key_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file: cannot read {options.api_key_file}: {error}") from None
    if not lines:
        raise ConfigError(f"--api-key-file: expected a key in {options.api_key_file}, got an empty file")
    return lines[0].strip()


def _serve(options: argparse.Namespace) -> int:
    config = server_config(options)
    logs.begin(options.log_level, options.log)

    import asyncio

    from .answer import model_name
    from .app import bind, new_loop, serve, settle
    from .progress import loading, on_terminal

    listener = bind(config)  # Before the model is loaded: a port that is taken should not cost a minute.
    from ..actors.engine import Engine

    async def run(telemetry: Telemetry | None) -> None:
        observer = None if telemetry is None else telemetry.put
        setup = served_config(options)
        async with loading(options.model or "Brook", on_terminal):
            loaded = await Engine.load(options.model, revision=options.revision, config=setup, observer=observer)
        settle()
        if telemetry is not None:
            telemetry.begin(model_name(loaded.info.model))
        async with loaded as engine:
            for name, folder in options.adapter:
                await engine.load_adapter(name, folder)

            def drains() -> None:
                print(
                    f"penstock: going down when the replies that run have ended, in {config.drain_seconds:g} s at "
                    "most; again to stop now",
                    file=sys.stderr,
                    flush=True,
                )

            def announce(url: str) -> None:
                print(f"penstock: serving on {url}")
                for name, what in _facts(url, engine.info, config, options.model is None):
                    print(f"  {name:9} {what}", flush=True)

            await serve(engine, config, listener=listener, on_listening=announce, on_draining=drains)

    with listener, _telemetry(options) as telemetry, asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run(telemetry))
    return 0


def _telemetry(options: argparse.Namespace) -> contextlib.AbstractContextManager[Telemetry | None]:
    if not options.otel:
        return contextlib.nullcontext()
    from .telemetry import exported

    return exported()


def _config(options: argparse.Namespace) -> int:
    settings = list(in_force(options.settings, options))
    server_config(options)
    if options.json:
        told = {setting.name: {"value": setting.value, "source": setting.source} for setting in settings}
        print(msgspec.json.encode(told, enc_hook=str).decode(), flush=True)
        return 0
    for setting in settings:
        print(f"{setting.name:18} {setting.value!s:24} {setting.source}", flush=True)
    return 0


def engine_config(options: argparse.Namespace) -> EngineConfig:
    """What the options of `serve`, `plan` and `ask` say about the model's device, type and size, and about its
    processor; what fits where they say nothing."""
    given = {name: getattr(options, name) for name in _ENGINE}
    given = {name: value for name, value in given.items() if value is not None}
    return msgspec.structs.replace(FITTING, processor=dict(options.processor), **given)


def sized_config(options: argparse.Namespace) -> EngineConfig:
    """The same with what `serve` and `plan` say about the cache and the streams."""
    said = {name: getattr(options, name) for name in _SIZES}
    return msgspec.structs.replace(engine_config(options), **said)


def served_config(options: argparse.Namespace) -> EngineConfig:
    """The same with what `serve` alone says."""
    own = {"decode": options.decode, "limits_per_request": dict(options.limit), "prefix_cache": options.prefix_cache}
    own |= {"speculative": options.speculative, "speculative_tokens": options.speculative_tokens}
    own |= {name: getattr(options, name) for name in ("encoder", "encoder_key_file", "encoder_seconds")}
    for name in ("record", "turn_model"):
        given = getattr(options, name)
        own[name] = None if given is None else str(given)
    return msgspec.structs.replace(sized_config(options), **own, admit=options.admit)


def _facts(url: str, info: EngineInfo, config: ServerConfig, own: bool) -> list[tuple[str, str]]:
    """What a person should know of a server that has started, by name."""
    auto = "live" if info.live_trained else "turns: the model claims no training for live"
    return [
        ("model", f"{info.model} ({info.family}), {info.dtype} on {info.device}{f': {info.why}' if info.why else ''}"),
        *([("", "Brook: knows coloured shapes, beeps and a few spoken words, nothing else")] if own else []),
        *([("threads", info.threads)] if info.threads else []),
        ("takes", ", ".join(["text", *(_TAKES.get(name, name) for name in info.modalities)])),
        *_pieces(info),
        *([("adapters", ", ".join(one.name for one in info.adapters))] if info.adapters else []),
        *([("encoder", f"{info.encoder}, which has the towers")] if info.encoder else []),
        ("formats", f"{', '.join(info.formats)} (auto: {auto})"),
        ("replies", f"{info.sampling}, unless a request says otherwise"),
        ("socket", f"{url.replace('http', 'ws', 1)}/v1/stream"),
        ("health", f"{url}/health, {url}/ready, {url}/metrics"),
        (
            "key",
            "wanted" if config.all_keys else "none: everyone who reaches it may use it",
        ),
        ("limits", f"{config.max_connections} connections, {config.max_streams} streams each"),
        ("", f"{info.kv_tokens} rows of KV cache for all, {info.max_positions} positions a stream"),
        ("", f"{config.max_message_bytes} bytes a message, {config.idle_seconds:g} s idle"),
        *_shares(info.memory),
    ]


def _pieces(info: EngineInfo) -> list[tuple[str, str]]:
    """What comes in clips and so has to wait, and what the model is served without: media, a window."""
    clips = [kind for kind, letter in info.classes.items() if letter == "E"]
    waits = [f"{kind} in clips of {info.pieces[kind]:g} s, or up to the question (class E)" for kind in clips]
    without = [f"no {kind}: {why}" for kind, why in info.left_out.items()]
    keeps = ["its layers keep a state of all rows (class G): streams have no window"] if info.stateful else []
    alone = ["one prompt and one reply a stream: nothing is appended or asked"] if info.one_shot else []
    return [("", line) for line in waits + without + keeps + alone]


def _shares(memory: Memory) -> list[tuple[str, str]]:
    """Who has how much of the device's memory."""
    kept = "" if memory.kv_dtype == "auto" else f" in {memory.kv_dtype}"
    return [
        ("memory", f"{amount(memory.weight_bytes)} weights, {amount(memory.step_bytes)} the largest step"),
        ("", f"{amount(memory.encoder_bytes)} the encoder at most"),
        ("", f"{amount(memory.kv_bytes)} KV cache{kept}: {memory.pages} pages, {memory.tokens} tokens"),
        *([("", f"{amount(memory.states_bytes)} states of {memory.streams} streams")] if memory.streams else []),
        ("", f"{memory.tokens // 8192} streams of 8k tokens fit"),
    ]


def _encode_serve(options: argparse.Namespace) -> int:
    from . import encode_options

    logs.begin(options.log_level, options.log)
    setup = msgspec.structs.replace(
        FITTING, **{name: getattr(options, name) for name in _PLACE if getattr(options, name)}
    )
    return encode_options.main(options, _api_key(options), setup)


def _plan(options: argparse.Namespace) -> int:
    from . import plan

    return plan.main(options, sized_config(options))


def _ask(options: argparse.Namespace) -> int:
    from . import ask, watch

    if options.url is not None and any(getattr(options, name) is not None for name in ("revision", *_ENGINE)):
        raise ConfigError(
            "--revision, --device, --dtype, --quantize, --threads, --no-cuda-graphs, --chat-template: expected a model "
            "that is loaded here, got --url"
        )
    run = watch.main if options.watches else ask.main
    return run(options, None if options.url is None else _api_key(options), engine_config(options))


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


def _replay(options: argparse.Namespace) -> int:
    from . import replay

    return replay.main(options)


def _bench(options: argparse.Namespace) -> int:
    from importlib import import_module

    return import_module(f".bench.{options.bench}", __package__).main(options)


def script() -> int:
    """`main` as a process of its own, which leaves what it holds to the system instead of collecting it: that takes
    seconds once a model has been loaded."""
    code = main()
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(script())
