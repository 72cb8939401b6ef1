"""The options of `penstock bench`. In: a parser. Out: nothing; it then knows the benchmarks.

Knows what may be said and by which name, not what is measured. Loads no torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WHOLE = Callable[[str], int]

_EXAMPLES = {
    "latency": "penstock bench latency --model random:0.2b --dtype bfloat16",
    "throughput": "penstock bench throughput --model Qwen/Qwen2.5-VL-3B-Instruct --requests 1,8",
    "live": "penstock bench live --model random:0.2b --dtype bfloat16",
    "capacity": "penstock bench capacity --model random:0.2b --dtype bfloat16 --most-streams 16",
    "endless": "penstock bench endless --beside full restart refill --plot endless.svg",
    "asides": "penstock bench asides --asides 1000 --replays 8",
    "overhead": "penstock bench overhead --streams 32,128 --flame profile.json",
    "compare": "penstock bench compare --model random:0.2b --dtype bfloat16 --vllm ~/vllm/bin/python",
    "bargein": "penstock bench bargein --histories 1000,20000",
    "append": "penstock bench append --rounds 5",
    "cache": "penstock bench cache --model random:0.2b --dtype bfloat16 --histories 2000,16000",
    "grammar": "penstock bench grammar --streams 1,8,32",
}


class Numbers:
    """How numbers are read from the command line: `positive` a number above 0, `count` a whole one of at least 1."""

    def __init__(self, positive: Callable[[str], float], count: _WHOLE, whole: _WHOLE) -> None:
        self.positive, self.count, self.whole = positive, count, whole

    def counts(self, text: str) -> tuple[int, ...]:
        """Whole numbers of at least 1, separated by commas."""
        return tuple(self.count(part) for part in text.split(","))

    def wholes(self, text: str) -> tuple[int, ...]:
        """Whole numbers, separated by commas."""
        return tuple(self.whole(part) for part in text.split(","))


def add_benches(parser: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int], read: Numbers) -> None:
    """Add the benchmarks below `penstock bench`; each namespace has its name as `bench`."""
    benches = parser.add_subparsers(title="benchmarks", required=True, metavar="WHAT")
    for name, what, add in (
        ("latency", "how long one user waits: first tokens, time between tokens, pictures that are taken in", _latency),
        ("throughput", "many requests at once: tokens a second, first tokens", _throughput),
        ("live", "pictures that arrive while a reply is spoken, through a server", _live),
        ("capacity", "how many live streams a server keeps up with", _capacity),
        ("endless", "hours of one camera: does anything grow?", _endless),
        ("asides", "many questions at once about one camera, aside or on streams of their own", _asides),
        ("overhead", "what many live streams cost beside the model, and where the time goes", _overhead),
        ("compare", "latency and throughput beside transformers and vLLM, in turn", _compare),
        ("bargein", "first tokens after somebody has spoken into a reply, and otherwise", _bargein),
        ("append", "time per append and per decode step, by history", _append),
        ("cache", "one decode step over a long history, by the type of the KV cache", _cache),
        ("grammar", "structured replies: compiling, tokens that may come next, longer steps", _grammar),
    ):
        bench = benches.add_parser(name, help=what, epilog=f"example:\n  {_EXAMPLES[name]}")
        bench.set_defaults(command=command, bench=name)
        add(bench, read)


def _latency(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_rounds(parser, read, 5)
    _add_frames(parser, read)
    _add_tokens(parser, read, 64, "tokens of each reply")
    add_guesses(parser, read.count)


def _throughput(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_rounds(parser, read, 5)
    _add_requests(parser, read)


def _live(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_url(parser)
    _add_rounds(parser, read, 5)
    _add_camera(parser, read, "image")
    _add_tokens(parser, read, 64, "tokens of each reply")
    parser.set_defaults(most_streams=1)


def _capacity(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_url(parser)
    _add_rounds(parser, read, 1, "searches")
    _add_camera(parser, read, "frame")
    parser.add_argument(
        "--seconds", type=read.positive, default=12.0, help="how long each trial counts (default %(default)g)"
    )
    parser.add_argument(
        "--most-streams", type=read.count, default=64, metavar="N", help="stop the search there (default %(default)s)"
    )


def _endless(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_fps(parser, read)
    parser.add_argument(
        "--minutes", type=read.positive, default=120.0, help="how much media time (default %(default)g)"
    )
    parser.add_argument(
        "--part", type=read.positive, default=10.0, metavar="MINUTES", help="figures for each (default %(default)g)"
    )
    _add_window(parser, read, "the stream's window")
    parser.add_argument(
        "--beside",
        nargs="+",
        choices=("full", "restart", "refill"),
        default=(),
        metavar="WAY",
        help="other ways to live on, in turn: full (all of the history), restart (a new stream at the limit), "
        "refill (a new stream at the limit, shown the newest media again)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the figures into this file, as SVG")


def _asides(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_rounds(parser, read, 3)
    parser.add_argument(
        "--asides", type=read.count, default=1000, metavar="N", help="how many ask aside at once (default %(default)s)"
    )
    parser.add_argument(
        "--replays",
        type=read.count,
        default=8,
        metavar="N",
        help="how many ask at once on streams of their own (default %(default)s)",
    )
    _add_fps(parser, read)
    _add_window(parser, read, "the camera's window")
    _add_tokens(parser, read, 8, "tokens of each answer")


def _overhead(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_rounds(parser, read, 3)
    parser.add_argument(
        "--streams",
        type=read.counts,
        default=(32, 128),
        metavar="N,N",
        help="how many streams, separated by commas (default 32,128)",
    )
    _add_fps(parser, read)
    parser.add_argument(
        "--seconds", type=read.positive, default=6.0, help="how long each measurement takes (default %(default)g)"
    )
    parser.add_argument(
        "--flame", type=Path, metavar="FILE", help="write the profile of most streams here, for speedscope.app"
    )


def _compare(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    parser.add_argument("--vllm", metavar="PYTHON", help="the Python of an environment with vLLM; without it only two")
    _add_rounds(parser, read, 3)
    _add_frames(parser, read)
    _add_requests(parser, read)


def _bargein(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_rounds(parser, read, 5)
    parser.add_argument(
        "--histories",
        type=read.counts,
        default=(1_000, 20_000),
        metavar="N,N",
        help="rows that the stream has before, separated by commas (default 1000,20000)",
    )
    _add_tokens(parser, read, 8, "tokens of each reply")


def _append(parser: argparse.ArgumentParser, read: Numbers) -> None:
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=read.whole, default=20, help="rounds that medians are taken over (default 20)")
    parser.add_argument("--tokens", type=read.whole, default=600, help="tokens of the timed reply (default 600)")
    parser.add_argument("--no-cuda-graphs", action="store_true", help="on CUDA, record no steps")
    parser.add_argument("--histories", type=read.wholes, default=(1_000, 20_000), help="tokens, separated by commas")


def _cache(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser)
    _add_rounds(parser, read, 9)
    parser.add_argument(
        "--histories",
        type=read.counts,
        default=(2_000, 16_000),
        metavar="N,N",
        help="rows that the stream has, separated by commas (default 2000,16000)",
    )


def _grammar(parser: argparse.ArgumentParser, read: Numbers) -> None:
    _add_model(parser, "a tiny model with a vocabulary of 152,064 tokens")
    _add_rounds(parser, read, 3)
    parser.add_argument(
        "--streams",
        type=read.counts,
        default=(1, 8, 32),
        metavar="N,N",
        help="how many replies at once have a grammar, separated by commas (default 1,8,32)",
    )
    _add_tokens(parser, read, 2000, "tokens in each round whose masks are timed, for each kind of grammar")


def _add_model(parser: argparse.ArgumentParser, default: str = "Brook") -> None:
    parser.add_argument(
        "--model",
        help="a folder, an id, or random weights at a real shape: random:0.2b, random:3b, random:7b "
        f"(default {default})",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default auto)")
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def add_guesses(parser: argparse._ActionsContainer, count: _WHOLE) -> None:
    """How tokens of replies are guessed."""
    parser.add_argument(
        "--speculative",
        metavar="ngram|MODEL",
        help="guess tokens, so that a step says several: ngram, those that followed the same words before; or a "
        "smaller model with the same words",
    )
    parser.add_argument(
        "--speculative-tokens",
        type=count,
        default=4,
        metavar="N",
        help="the most tokens that are guessed of a stream in a step (default %(default)s)",
    )


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="a server that runs, for example 127.0.0.1:8000, instead of one of its own")


def _add_rounds(parser: argparse.ArgumentParser, read: Numbers, default: int, what: str = "rounds") -> None:
    parser.add_argument(
        "--rounds", type=read.count, default=default, help=f"{what} that medians are taken over (default {default})"
    )


def _add_frames(parser: argparse.ArgumentParser, read: Numbers) -> None:
    parser.add_argument(
        "--frames",
        type=read.counts,
        default=(5, 20, 60),
        metavar="N,N",
        help="pictures that a stream has when it is asked, separated by commas (default 5,20,60)",
    )


def _add_requests(parser: argparse.ArgumentParser, read: Numbers) -> None:
    parser.add_argument(
        "--requests",
        type=read.counts,
        default=(1, 8, 32),
        metavar="N,N",
        help="how many requests at once, separated by commas (default 1,8,32)",
    )
    _add_tokens(parser, read, 128, "tokens of each reply to text")
    parser.add_argument(
        "--image-tokens", type=read.count, default=64, metavar="N", help="tokens of each reply to an image (default 64)"
    )


def _add_fps(parser: argparse.ArgumentParser, read: Numbers) -> None:
    parser.add_argument("--fps", type=read.positive, default=2.0, help="pictures a second (default %(default)g)")


def _add_window(parser: argparse.ArgumentParser, read: Numbers, what: str) -> None:
    parser.add_argument("--window", type=read.count, default=4096, metavar="ROWS", help=f"{what} (default %(default)s)")


def _add_camera(parser: argparse.ArgumentParser, read: Numbers, media: str) -> None:
    _add_fps(parser, read)
    parser.add_argument(
        "--media",
        choices=("image", "frame"),
        default=media,
        help=f"what the model gets: single images, or frames of a video, which it takes in pairs (default {media})",
    )


def _add_tokens(parser: argparse.ArgumentParser, read: Numbers, default: int, what: str) -> None:
    options: dict[str, Any] = {"type": read.count, "default": default, "metavar": "N"}
    parser.add_argument("--tokens", help=f"{what} (default {default})", **options)
