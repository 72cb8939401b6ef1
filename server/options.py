"""The options of the command line, in groups, with examples. In: the functions of the commands. Out: a parser.

Knows what may be said and by which name, not what is done about it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..engine.config import EngineConfig
from ..streams.requests.request import FORMATS
from .bench.options import Numbers, add_benches, add_guesses
from .config import LIMITS, ServerConfig
from .encode_options import add_address, add_encoder
from .examples import EXAMPLES
from .logs import FORMS as LOG_FORMS
from .option_values import count, folder_by_name, number, positive, setting, whole
from .settings import OneLineParser, SettingsParser
from .version import version

Commands = Mapping[str, Callable[[argparse.Namespace], int]]

_LIMIT_HELP = {
    "max_connections": "open WebSockets",
    "max_streams": "open streams of one socket",
    "max_message_bytes": "bytes of one message",
    "max_text_bytes": "bytes of one text message",
    "waiting_bytes": "bytes of one stream that wait to be accepted",
    "unread_bytes": "bytes of output that a client may leave unread",
    "unread_seconds": "seconds that output may stay unread",
    "idle_seconds": "seconds without a message after which a client is closed",
    "resume_seconds": "seconds that streams wait for a client whose connection was lost, if it asks for that",
    "drain_seconds": "seconds that running replies may go on after SIGTERM",
}


def make_parser(commands: Commands) -> argparse.ArgumentParser:
    """The parser; each command's namespace has its function of `commands` as `command`, and none without a command."""
    parser = OneLineParser(
        prog="penstock",
        description="Media appended to the KV cache of the request that is running.",
        epilog=EXAMPLES[""],
    )
    parser.set_defaults(command=None)
    parser.add_argument("--version", action="version", version=f"penstock {version()}")
    children = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_settings(children, commands)
    encodes = children.add_parser(
        "encode-serve", help="encode media for engines elsewhere", epilog=EXAMPLES["encode-serve"]
    )
    encodes.set_defaults(command=commands["encode-serve"])
    _add_encode_serve(encodes)
    plan = children.add_parser(
        "plan", help="how a model would share out memory, without its weights", epilog=EXAMPLES["plan"]
    )
    plan.set_defaults(command=commands["plan"])
    _add_plan(plan)
    for name, what in (("ask", "show media to a model and ask"), ("watch", "tell of what is seen by itself, as JSON")):
        usage = f"penstock {name} [options] [MEDIA ...] QUESTION"
        asks = children.add_parser(name, help=what, usage=usage, epilog=EXAMPLES[name])
        asks.set_defaults(command=commands[name], watches=name == "watch")
        _add_ask(asks, name == "watch")
    devices = children.add_parser("devices", help="what can compute, see and hear here")
    devices.set_defaults(command=commands["devices"])
    devices.add_argument("--json", action="store_true", help="one JSON object a line")
    trace = children.add_parser("trace", help="show the messages of one frame from socket to token")
    trace.set_defaults(command=commands["trace"])
    _add_trace(trace)
    replay = children.add_parser("replay", help="do once more what a server has recorded", epilog=EXAMPLES["replay"])
    replay.set_defaults(command=commands["replay"])
    replay.add_argument("file", type=Path, help="a record that `penstock serve --record` has written")
    replay.add_argument("--model", help="the model's name or folder, where it is not where it was")
    bench = children.add_parser("bench", help="measure")
    add_benches(bench, commands["bench"], Numbers(positive, count, whole))
    fetch = children.add_parser("fetch-demo-model", help="fetch a small trained text model, SmolLM2-135M-Instruct")
    fetch.set_defaults(command=commands["fetch-demo-model"])
    fetch.add_argument("--into", type=Path, metavar="FOLDER", help="where it should lie (default in ~/.cache/penstock)")
    completion = children.add_parser("completion", help="print a script that completes this command line")
    completion.set_defaults(command=commands["completion"])
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def _add_settings(children: Any, commands: Commands) -> None:
    """`serve`, and `config`, which tells what `serve` would do. Both may be set in a file and in the environment."""
    children._parser_class = SettingsParser
    for name, what in (
        ("serve", "serve a model over WebSocket"),
        ("config", "options of serve, and why they hold"),
    ):
        child = children.add_parser(name, help=what, epilog=EXAMPLES[name])
        _add_serve(child)
        if name == "config":
            child.add_argument("--json", action="store_true", help="one JSON object")
        child.take_environment()
        child.set_defaults(command=commands[name], settings=child)
    children._parser_class = OneLineParser


def _add_encode_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a model's name or folder; without one Brook")
    _add_where(parser.add_argument_group("the model"))
    address = add_address(parser, whole)
    _add_keys(address)
    _add_log(parser.add_argument_group("running"))


def _add_serve(parser: argparse.ArgumentParser) -> None:
    defaults = ServerConfig()
    parser.add_argument(
        "model", nargs="?", help="a model's name or folder; without one Brook, which knows coloured shapes and sounds"
    )
    model = parser.add_argument_group("the model")
    model.add_argument("--model", dest="model_option", metavar="MODEL", help="the same, for a file of options")
    _add_place(model)
    _add_cache(model)
    add_encoder(model, positive)
    model.add_argument(
        "--no-prefix-cache",
        dest="prefix_cache",
        action="store_false",
        help="every stream computes its own rows, also if another began with the same ones",
    )
    add_guesses(model, count)
    _add_adapters(model)
    address = parser.add_argument_group("address and access")
    address.add_argument("--host", default=defaults.host, help="address to listen on (default %(default)s)")
    address.add_argument("--port", type=whole, default=defaults.port, help="0 takes a free one (default %(default)s)")
    _add_keys(address)
    address.add_argument("--insecure", action="store_true", help="no key although other machines can connect")
    address.add_argument("--tls-cert", metavar="FILE", help="a certificate, PEM")
    address.add_argument("--tls-key", metavar="FILE", help="its key, PEM, without a passphrase")
    address.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a web origin whose pages may connect; may be repeated",
    )
    _add_limits(parser)
    _add_media(parser.add_argument_group("media"))
    running = parser.add_argument_group("running")
    running.add_argument(
        "--adapter-folder", metavar="FOLDER", help="clients may load adapters from below it (default: they may not)"
    )
    running.add_argument(
        "--snapshots", metavar="FOLDER", help="where clients may keep snapshots of streams (default: they may not)"
    )
    running.add_argument(
        "--stay", action="store_true", help="stay up and refuse where the engine has failed (default: end with code 1)"
    )
    running.add_argument(
        "--admit",
        choices=("measured", "anyway"),
        default="measured",
        help="measured refuses a live stream whose frames a second this machine would not keep up with (default); "
        "anyway refuses none",
    )
    running.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="write what happens to a file in FOLDER, for `penstock replay`; it tells what clients said and showed",
    )
    _add_reports(running)


def _add_adapters(model: argparse._ArgumentGroup) -> None:
    model.add_argument(
        "--adapter",
        type=folder_by_name,
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="load a LoRA that peft has saved; requests name it as their model; may be repeated",
    )


def _add_keys(address: argparse._ArgumentGroup) -> None:
    _add_key(address, "what clients must show")
    address.add_argument("--keys", type=Path, metavar="FILE", help="several keys with names and limits, TOML")


def _add_log(running: argparse._ArgumentGroup) -> None:
    running.add_argument(
        "--log", choices=LOG_FORMS, default="text", help="how lines of the log are written (default text)"
    )
    running.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def _add_reports(running: argparse._ArgumentGroup) -> None:
    _add_log(running)
    running.add_argument(
        "--otel",
        action="store_true",
        help="send an OpenTelemetry trace of each reply to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names",
    )


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a model's name or folder; without one Brook")
    model = parser.add_argument_group("the model")
    _add_place(model)
    model.add_argument(
        "--device-gib",
        type=positive,
        metavar="GIB",
        help="plan for a device that is not here, on which so much is free (then --device is cuda, unless it says cpu "
        "or mps)",
    )
    _add_cache(model)
    add_guesses(model, count)
    _add_adapters(model)
    media = parser.add_argument_group("media")
    _add_processor(media)
    media.add_argument(
        "--max-pixels",
        dest="processor",
        type=lambda text: ("max_pixels", count(text)),
        action="append",
        metavar="N",
        help="short for --processor max_pixels=N: pictures and frames are made smaller than that",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _add_cache(model: argparse._ArgumentGroup) -> None:
    model.add_argument(
        "--language-only",
        action="store_true",
        help="load no weights of towers: media comes in as rows from an encoder elsewhere",
    )
    cache = model.add_mutually_exclusive_group()
    cache.add_argument(
        "--memory-fraction",
        type=positive,
        help="how much the KV cache takes of what weights and the largest step leave (default 0.9 on cuda; elsewhere "
        "0.5, but 32768 tokens at most)",
    )
    cache.add_argument("--kv-gib", type=positive, help="the KV cache's size in GiB, instead")
    model.add_argument(
        "--kv-dtype",
        choices=("auto", "int8", "fp8"),
        default="auto",
        help="keep keys and values in eight bits: about twice as many rows (default auto: as the model has them)",
    )
    model.add_argument(
        "--slots",
        type=count,
        default=EngineConfig().slots,
        help="how many streams may be open at once, of all clients together (default %(default)s)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits")
    for name in LIMITS:
        value = getattr(ServerConfig(), name)
        limits.add_argument(
            f"--{name.replace('_', '-')}",
            type=whole if isinstance(value, int) else number,
            default=value,
            metavar="SECONDS" if name.endswith("seconds") else "BYTES" if name.endswith("bytes") else "N",
            help=f"{_LIMIT_HELP[name]} (default {value})",
        )


def _add_media(media: argparse._ArgumentGroup) -> None:
    media.add_argument(
        "--fetch-urls",
        action="store_true",
        help="fetch media that a request names by an http(s) URL, from public hosts",
    )
    media.add_argument(
        "--allow-url", action="append", default=[], metavar="HOST", help="fetch, but only from HOST; may be repeated"
    )
    media.add_argument(
        "--decode",
        choices=("workers", "inline"),
        default="workers",
        help="where client media is decoded (default workers)",
    )
    _add_processor(media)
    media.add_argument(
        "--turn-model",
        type=Path,
        metavar="FILE",
        help="smart-turn v3 (ONNX), which hears whether somebody has finished (default: pipecat-ai's, if installed)",
    )
    media.add_argument(
        "--limit",
        type=setting,
        action="append",
        default=[],
        metavar="KIND=COUNT",
        help="images, videos or audios that a prompt may have, for example image=8; may be repeated",
    )


def _add_processor(media: argparse._ArgumentGroup) -> None:
    media.add_argument(
        "--processor",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the model's processor, for example max_pixels=200000; may be repeated",
    )


def _add_where(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument("--revision", help="a branch, tag or commit of a model on the Hub")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default auto: the first of cuda, mps, cpu")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="default auto: the checkpoint's own, on a CPU only where that is fast",
    )
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="how many threads compute on a CPU; default: PENSTOCK_THREADS, OMP_NUM_THREADS, or what the machine gives",
    )


def _add_place(parser: argparse._ArgumentGroup) -> None:
    _add_where(parser)
    parser.add_argument(
        "--chat-template", metavar="FILE", help="a chat template, in Jinja, in place of the checkpoint's own"
    )
    parser.add_argument("--quantize", choices=("int8",), help="keep the decoder's linear layers as int8")
    parser.add_argument(
        "--no-cuda-graphs",
        dest="cuda_graphs",
        action="store_const",
        const=False,
        help="on CUDA, record no steps at the start; each kernel of a step is then launched by itself",
    )


def _add_key(parser: argparse._ArgumentGroup, what: str) -> None:
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--api-key", help=f"{what}; better in PENSTOCK_API_KEY or in a file")
    key.add_argument("--api-key-file", type=Path, help="file whose first line is the key")


def _add_ask(parser: argparse.ArgumentParser, watches: bool) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="MEDIA QUESTION",
        help="a picture, video or sound file, camera[:N], microphone[:N], or - for stdin; last the question",
    )
    model = parser.add_argument_group("who answers")
    where = model.add_mutually_exclusive_group()
    where.add_argument("--model", help="a model's name or folder, loaded here; without one Brook")
    where.add_argument("--url", help="a server that runs, for example 127.0.0.1:8000, instead of a model here")
    _add_place(model)
    _add_key(model, "the server's key")
    media = parser.add_argument_group("how media is shown")
    _add_processor(media)
    if not watches:
        media.add_argument("--live", action="store_true", help="ask at the start; the model speaks while it watches")
        media.add_argument("--pace", action="store_true", help="play files at their own pace, as --live does")
    seconds = "how long a camera or microphone is watched (default 5, with --live until Ctrl-C)"
    media.add_argument("--seconds", type=positive, help=seconds)
    media.add_argument("--format", choices=FORMATS, help="default turns, with --live live")
    media.add_argument("--fps", type=number, help="frames a second that the model gets (default: the model's own)")
    reply = parser.add_argument_group("the reply")
    reply.add_argument("--system", metavar="TEXT", help="the system prompt")
    reply.add_argument("--max-tokens", type=count, metavar="N", help="at most so many (default 256, with --live 4000)")
    reply.add_argument("--temperature", type=number, help="0 takes the likeliest token (default: as the model has it)")
    form = reply.add_mutually_exclusive_group()
    form.add_argument("--json-schema", type=Path, metavar="FILE", help="JSON that is valid by the schema in this file")
    form.add_argument("--choice", metavar="A,B", help="one of these texts, separated by commas")
    form.add_argument("--regex", metavar="R", help="a text that this regular expression matches as a whole")
    where = reply.add_mutually_exclusive_group()
    if watches:
        where.add_argument("--jsonl", type=Path, metavar="FILE", help="add the objects to this file (default: stdout)")
        where.add_argument("--webhook", metavar="URL", help="post each object to this address")
    else:
        reply.add_argument("--json", action="store_true", help="the stream's events, one JSON object a line")


def _add_trace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a model's name or folder; without one Brook")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--tokens", type=whole, default=2, help="length of the reply (default 2)")
