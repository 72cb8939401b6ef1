"""`penstock bench grammar`: what structured replies cost beside the model: compiling what is asked for, finding the
tokens that may come next, and how much longer a step is.

Without `--model` it runs on a tiny model with the vocabulary of the large ones, 152,064 tokens, so that a step is
little more than its draws. The tokens of the replies whose masks are timed are drawn evenly from those that are
allowed: these replies wander through a schema as no model does. Compiling and masks take the processor time of their
thread, which other processes do not change. Drives the engine by hand, through `Core`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ... import EngineConfig, Request, SamplingParams
from ...engine.command import Park
from ...engine.core import Core
from ...engine.family import Family, Loaded
from ...engine.loading.open import load
from ...engine.words.grammar import Grammars
from ...streams.requests.structured import Structured
from .arithmetic import percentile
from .figures import Figure, per_round, progress, setting, show
from .presets import Shape, model_folder, write

_TINY = Shape(64, 160, 2, 4, 2, 152_064, True, 48, 96, 1, 3, (0,))
_STEPS = 20  # of each kind in a round
_QUESTION = "What do you see?"
_SEEN = {
    "type": "object",
    "properties": {"shape": {"enum": ["circle", "square"]}, "colour": {"enum": ["red", "green", "blue"]}},
    "required": ["shape", "colour"],
    "additionalProperties": False,
}
_NAMED = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 100}, "count": {"type": "integer", "maximum": 99_999}},
    "required": ["name", "count"],
    "additionalProperties": False,
}
_TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "inside": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["name", "inside"],
        }
    },
    "$ref": "#/$defs/node",
}
_DATED = {
    "type": "object",
    "properties": {"mail": {"type": "string", "format": "email"}, "at": {"type": "string", "format": "date-time"}},
    "required": ["mail", "at"],
}
_CASES = {
    "choice": Structured(choice=["red", "green", "blue"]),
    "schema, two enums": Structured(json_schema=_SEEN),
    "schema, maxLength": Structured(json_schema=_NAMED),
    "schema, recursive": Structured(json_schema=_TREE),
    "schema, formats": Structured(json_schema=_DATED),
    "any object": Structured(json_object=True),
    "regex": Structured(regex=r"([A-Z][a-z]{1,20} ){3,8}\.( .*)?"),
}
# It goes on for longer than any benchmark.
_ENDLESS = Structured(
    json_schema={"type": "array", "items": {"type": "string", "minLength": 5, "maxLength": 60}, "minItems": 10_000}
)


class Masks(NamedTuple):
    """Milliseconds: of compiling, and of each token's mask."""

    compiling: float
    masks: list[float]


def main(options: argparse.Namespace) -> int:
    """Measure and print; 0."""
    config = EngineConfig(device=options.device, dtype=options.dtype, kv_tokens=max(options.streams) * 2048)
    with _folder(options.model) as folder:
        loaded = load(folder, config)
    family = loaded.family
    figures = [*_of_masks(family, options.rounds, options.tokens)]
    for streams in options.streams:
        progress(f"steps of {streams} streams")
        figures += _of_steps(loaded, config, streams, options.rounds)
    model = options.model or f"a tiny model with {family.data.vocabulary} tokens"
    dtype = str(loaded.dtype).removeprefix("torch.")
    show(setting("grammar", model, dtype, str(loaded.device), options.rounds), figures, options.json)
    return 0


@contextmanager
def _folder(model: str | None) -> Iterator[str]:
    if model is not None:
        yield model_folder(model)
        return
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        write(Path(folder), _TINY)
        yield folder


def _of_masks(family: Family, rounds: int, tokens: int) -> Iterator[Figure]:
    progress("compiling, and finding what may come next")
    took = [_tokenizer_ms(family) for _ in range(rounds)]
    yield Figure(bench="grammar", case="tokenizer", what="made ready, once", unit="ms", rounds=list(took))
    for case, structured in _CASES.items():
        found = [_masks(family, structured, tokens, seed) for seed in range(rounds)]
        for what, values in (
            ("compiling", [one.compiling for one in found]),
            ("mask, p50", [statistics.median(one.masks) for one in found]),
            ("mask, p99", [percentile(one.masks, 99) for one in found]),
            ("mask, worst", [max(one.masks) for one in found]),
        ):
            yield Figure(bench="grammar", case=case, what=what, unit="ms", rounds=list(values))


def _grammars(family: Family) -> Grammars:
    return Grammars(family.tokenizer, family.data.vocabulary, family.stop_ids)


def _tokenizer_ms(family: Family) -> float:
    """The first grammar of all, less the second."""
    grammars = _grammars(family)
    first, second = (_timed(time.thread_time, grammars.compile, Structured(regex=text)) for text in ("a", "b"))
    return first - second


def _masks(family: Family, structured: Structured, tokens: int, seed: int) -> Masks:
    """Compile once, and walk through replies of so many tokens in all."""
    grammars, chance = _grammars(family), random.Random(seed)
    grammars.compile(Structured(regex="a"))  # the tokenizer is ready then
    compiling = _timed(time.thread_time, grammars.compile, structured)
    masks: list[float] = []
    while len(masks) < tokens:
        guide, ids = grammars.guide(structured), list[int]()
        while len(masks) < tokens:
            began = time.thread_time()
            guide.follow(ids)
            bits, only_ends = guide.allowed(family.stop_ids, False)
            masks.append((time.thread_time() - began) * 1000)
            allowed = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little"))
            id = int(chance.choice(allowed))
            if only_ends or id in family.stop_ids:
                break
            ids.append(id)
    return Masks(compiling, masks)


def _of_steps(loaded: Loaded, config: EngineConfig, streams: int, rounds: int) -> Iterator[Figure]:
    """Decode steps of so many replies, with a grammar and without, in turn; all greedy."""
    core, params = Core(loaded, config), {"max_tokens": 1_000_000, "temperature": 0.0}
    ways = {
        "any words": SamplingParams(**params, ignore_eos=True),
        "with a grammar": SamplingParams(**params, structured=_ENDLESS),
    }
    numbers = {way: range(place * streams, (place + 1) * streams) for place, way in enumerate(ways)}
    for way, asked in ways.items():
        for number in numbers[way]:
            core.open(number, Request(format="turns"))
            core.ask(number, 1, _QUESTION, asked)
        for _ in range(4):  # they speak after it
            core.step()
        _park(core, numbers[way], True)
    times: dict[str, list[float | None]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            _park(core, numbers[way], False)
            times[way].append(statistics.median(_timed(time.perf_counter, core.step) for _ in range(_STEPS)))
            _park(core, numbers[way], True)
    plain, bound = times.values()
    yield Figure(bench="grammar", case=f"{streams} streams", what="step, any words", unit="ms", rounds=plain)
    yield Figure(
        bench="grammar",
        case=f"{streams} streams",
        what="step, with a grammar",
        unit="ms",
        rounds=bound,
        against="any words",
        ratios=per_round(bound, plain),
    )


def _park(core: Core, numbers: range, parked: bool) -> None:
    for number in numbers:
        core.scheduler.apply(Park(number, parked))


def _timed(clock: Callable[[], float], work: Callable[..., Any], *args: Any) -> float:
    """Its milliseconds by this clock."""
    began = clock()
    work(*args)
    return (clock() - began) * 1000
