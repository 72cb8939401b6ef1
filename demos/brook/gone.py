"""Examines Brook about what its window no longer holds: `python -m penstock.demos.brook.gone --seed N`.

In: a seed, how long it is quiet, a window. Out: for each way of asking and each kind of question how many were asked,
how many answers were right while the window held the film, and of those after it had left how many were right, said
"I do not know.", told what is true of the window alone ("nothing moved."), or were wrong.

A film is shown, then its last picture for so long, without a sound, that nothing of the film is left in the window.
Every question is about the film, so the truth does not change meanwhile. What was said about it before is text memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from penstock import (
    Appended,
    AudioChunk,
    Engine,
    Error,
    Item,
    PenstockError,
    Request,
    SamplingParams,
    Stream,
    VideoFrame,
    Window,
)

from .draw import Painter
from .exam import evaluation_bank
from .film import SIZE
from .moment import Moment
from .narration import UNKNOWN, things_listed
from .questions import BrookQuestion, ask
from .sound import RATE, Bank
from .world import Scene, SceneMaker, Wish

WAYS = {
    "silent": "nothing was said about the film",
    "answered": "the same question was answered at the film's end",
    "narrated": "the film was narrated",
}
PAST = ("start", "moved", "way", "changed", "before", "left", "heard", "word", "words", "beeps", "first", "together")
GREEDY = SamplingParams(max_tokens=60, temperature=0.0)
_NARRATION = SamplingParams(max_tokens=20_000, temperature=0.0)
_EACH = 4  # questions about one film
_AT_ONCE = 4  # films
# Questions that may as well mean the quiet that is heard now.
_OF_NOW = re.compile(r"\bnow\b|do you hear|that sound|in the picture\?")
NONE = (
    "nothing moved.",
    "nothing changed.",
    "nothing left.",
    "nothing.",
    "zero.",
    "it did not move.",
    "neither.",
    "none.",
)


class GonePaper(NamedTuple):
    """A film, the words and voices that it is made of, and questions about what happened in it."""

    scene: Scene
    bank: Bank
    questions: list[BrookQuestion]

    @property
    def now(self) -> str:
        """What is there at the end and from then on."""
        return f"{things_listed(self.scene.settled(self.scene.seconds))}."


class GoneLine(NamedTuple):
    """One line of the table: `n` answers, and shares of them. `held`: right while the window held the film. Then of
    those when it had left: `right`, `unknown` ("I do not know."), `window` (true of the window alone) and `wrong`."""

    way: str
    kind: str
    n: int
    held: float
    right: float
    unknown: float
    window: float
    wrong: float


class GoneScore:
    """Collects answers: how the window's was marked, and how the one after it, by way and kind."""

    def __init__(self) -> None:
        self.marks: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        self.wrong: list[str] = []

    def add(self, way: str, paper: GonePaper, question: BrookQuestion, held: str, given: str) -> None:
        """Take one answer from while the window `held` the film, and the one `given` when it had left."""
        marks = mark(paper, question, held), mark(paper, question, given)
        self.marks[way, question.kind].append(marks)
        if marks[1] != "right":
            self.wrong.append(f"{way}: {question.text} expected {question.answer!r}, got {given!r}, before it {held!r}")

    def lines(self) -> list[GoneLine]:
        """Every kind of every way, and every way as a whole."""
        lines = []
        for way in WAYS:
            kinds = {kind: self.marks[way, kind] for kind in PAST}
            kinds["all"] = [one for marks in kinds.values() for one in marks]
            for kind, marks in kinds.items():
                if not marks:
                    continue
                counts, held = Counter(gone for _, gone in marks), sum(held == "right" for held, _ in marks)
                shares = [counts[name] / len(marks) for name in ("right", "unknown", "window", "wrong")]
                lines.append(GoneLine(way, kind, len(marks), held / len(marks), *shares))
        return lines


def mark(paper: GonePaper, question: BrookQuestion, given: str) -> str:
    """ "right", "unknown", "window" for what would be right if there were nothing but the quiet end, or "wrong"."""
    if given == question.answer:
        return "right"
    if given == UNKNOWN:
        return "unknown"
    return "window" if given in (NONE if question.kind != "start" else (paper.now,)) else "wrong"


def papers(seed: int, films: int, bank: Bank) -> Iterator[GonePaper]:
    """Films with questions of the kinds that have been asked least. Something has happened in each case."""
    random = np.random.default_rng((seed, 78))
    maker, asked = SceneMaker(random, bank.seconds), Counter[str]()
    while films:
        wish = Wish(seconds=float(random.integers(4, 10)), change_gap=2.0, sound_gap=float(random.choice([0.8, 1.5])))
        scene, questions = maker.scene(wish), list[BrookQuestion]()
        paper = GonePaper(scene, bank, questions)
        moment = Moment(scene, scene.seconds - 0.5, scene.seconds, random, half=1)
        for kind in sorted(PAST, key=asked.__getitem__):
            question = ask(kind, moment) if len(questions) < _EACH else None
            known = question is None or _OF_NOW.search(question.text) or question.answer in NONE
            if question is not None and not known and (kind != "start" or question.answer != paper.now):
                asked[kind] += 1
                questions.append(question)
        if questions:
            films -= 1
            yield paper


def shown(paper: GonePaper, start: float, stop: float) -> Iterator[Item]:
    """The frames and the sound of a film from second `start` to `stop`; after its end its last picture, and quiet."""
    painter, (track, quiet) = Painter(paper.scene, SIZE), _tracks(paper)
    for half in range(round(2 * start), round(2 * stop)):
        pts_us, first = half * 500_000, half * RATE // 2
        sound = track[first : first + RATE // 2]
        first %= len(quiet)
        sound = sound if len(sound) else quiet[first : first + RATE // 2]
        yield VideoFrame(painter.picture(min(half / 2, paper.scene.seconds)), pts_us)
        yield AudioChunk(sound[None], RATE, pts_us)


def _tracks(paper: GonePaper) -> tuple[np.ndarray, np.ndarray]:
    """The sound of the film, and ten seconds of what is heard behind it."""
    return paper.bank.track(paper.scene), paper.bank.track(paper.scene._replace(seconds=10.0, sounds=()))


async def show(stream: Stream, paper: GonePaper, start: float, stop: float) -> None:
    """Append a part of a film, and wait until it is in the window."""

    async def push() -> None:
        for item in shown(paper, start, stop):
            await stream.append(item)

    missing = {"video": stop - 0.5, "audio": stop}
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(push())
        async for event in stream:
            if isinstance(event, Error):
                raise PenstockError(f"expected {stop:g} s of film to be taken in, got: {event.message}")
            if isinstance(event, Appended) and (event.stop_us or 0) / 1e6 >= missing.get(event.modality, stop) - 0.05:
                missing.pop(event.modality, None)
            if not missing:
                return
    raise PenstockError(f"expected {stop:g} s of film to be taken in, got the stream's end")


async def answers(stream: Stream, questions: Sequence[BrookQuestion], left: float = 0.0) -> list[str]:
    """Each is asked aside, so that no question helps another. PenstockError where a reply does not say that the media
    before second `left` had left the window."""
    given = []
    for question in questions:
        async with stream.aside(question.text, GREEDY) as reply:
            given.append((await reply.text()).strip())
            since = (reply.since_us or 0) / 1e6
            if since < left:
                raise PenstockError(
                    f"expected {left:g} s of film to have left the window, got {since:g} s: --quiet more"
                )
    return given


async def examine_paper(
    engine: Engine, paper: GonePaper, window: Window | None, quiet: float, score: GoneScore
) -> None:
    """Ask everything about one film, in all ways."""
    seconds, questions = paper.scene.seconds, paper.questions
    left = 0.0 if window is None else seconds
    async with await engine.stream(Request(format="turns", window=window)) as stream:
        await show(stream, paper, 0.0, seconds)
        held = await answers(stream, questions)
        async with await stream.fork() as told:
            answered = (await (await told.ask(questions[0].text, GREEDY)).text()).strip()
            await show(told, paper, seconds, seconds + quiet)
            again = await answers(told, questions[:1], left)
            score.add("answered", paper, questions[0], answered, again[0])
        await show(stream, paper, seconds, seconds + quiet)
        for question, before, given in zip(questions, held, await answers(stream, questions, left), strict=True):
            score.add("silent", paper, question, before, given)
    async with await engine.stream(Request(format="live", window=window)) as stream:
        await stream.watch("Tell me what happens.", _NARRATION)
        await show(stream, paper, 0.0, seconds)
        held = await answers(stream, questions)
        await show(stream, paper, seconds, seconds + quiet)
        for question, before, given in zip(questions, held, await answers(stream, questions, left), strict=True):
            score.add("narrated", paper, question, before, given)


async def examine(options: argparse.Namespace, score: GoneScore) -> None:
    """All films, several at a time."""
    bank, places = evaluation_bank(options.seed), asyncio.Semaphore(_AT_ONCE)
    window = None if options.keep else Window(rows=options.window, text_rows=options.text_rows)

    async def one(paper: GonePaper) -> None:
        async with places:
            await examine_paper(engine, paper, window, options.quiet, score)

    async with await Engine.load() as engine, asyncio.TaskGroup() as tasks:
        for paper in papers(options.seed, options.films, bank):
            tasks.create_task(one(paper))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an examination; 0 when it could be held, whatever came out."""
    parser = argparse.ArgumentParser(
        prog="python -m penstock.demos.brook.gone", description="What Brook says of what its window no longer holds."
    )
    parser.add_argument("--seed", type=int, default=1, help="of the films and voices (default 1)")
    parser.add_argument("--films", type=int, default=60, help="each with up to four questions (default 60)")
    parser.add_argument(
        "--quiet", type=float, default=20.0, metavar="SECONDS", help="how long nothing happens then (default 20)"
    )
    parser.add_argument("--window", type=int, default=320, metavar="ROWS", help="of each stream (default 320)")
    parser.add_argument("--text-rows", type=int, metavar="ROWS", help="of its text memory (default: an eighth of it)")
    parser.add_argument("--keep", action="store_true", help="nothing leaves: the same questions, for comparison")
    parser.add_argument("--wrong", action="store_true", help="print what was not right to standard error")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    score = GoneScore()
    try:
        asyncio.run(examine(options, score))
    except KeyboardInterrupt:
        return 130
    except (OSError, PenstockError) as error:  # no espeak-ng, or no model
        print(f"gone: error: {error}", file=sys.stderr)
        return 1
    except ExceptionGroup as group:
        print(f"gone: error: {group.exceptions[0]}", file=sys.stderr)
        return 1
    if options.wrong:
        print("\n".join(score.wrong), file=sys.stderr)
    if options.json:
        for line in score.lines():
            print(json.dumps(line._asdict() | {"seed": options.seed}))
        return 0
    print(f"{'way':10} {'kind':10} {'n':>4} {'held':>7} {'right':>7} {'unknown':>8} {'window':>7} {'wrong':>7}")
    for line in score.lines():
        shares = f"{line.held:7.1%} {line.right:7.1%} {line.unknown:8.1%} {line.window:7.1%} {line.wrong:7.1%}"
        print(f"{line.way:10} {line.kind:10} {line.n:4} {shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
