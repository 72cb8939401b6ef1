"""Examines a model that a running server serves, or Brook: `python -m penstock.demos.brook.evaluate --seed N`.

In: a URL, a seed, a door. Out: for each kind of question how many were asked, how many answers were right to the
letter, and what the best constant answer would have had; for narration how much of what happened was told within a unit
(one second of media), and how much was invented. Films are made here and sent as WebM (VP8 and Opus); the truth never
leaves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from penstock import Event, PenstockError, ReplyDone, Request, SamplingParams, VideoBytes, connect

from ..film import pieces
from .counted import CountingHouse, SceneLine, Taken, sort_of, table
from .doors import DOORS, House
from .draw import Dusk, Lens
from .exam import NARRATED, Examiner, Paper, alike, evaluation_bank
from .film import encode
from .marking import Listener, Marker, Sentence
from .narration import opening
from .questions import BrookQuestion
from .world import SHAPES, Scene

MEDIA = ("true", "blank", "other", "none")
PLAYED = 8  # films at a time
_DOOR_HELP = (
    "how films are shown: as a file or as frames and samples that are appended to a stream (file, frames), or in the "
    "messages of each question (messages); narration is asked for with file only (default file)"
)


class TableLine(NamedTuple):
    """One line of the table: shares are of `n`."""

    kind: str
    n: int
    right: float
    constant: float


class Given(NamedTuple):
    """One answer. `wants`: what sort of answer the question's wording tells, where a kind has several."""

    question: str
    right: str
    given: str
    wants: str = ""


def constant(answers: list[Given]) -> float:
    """What the best constant answer would have; where the wording tells the sort of answer, the best to each sort."""
    sorts: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in answers:
        sorts[answer.wants][alike(answer.right)] += 1
    return sum(max(counts.values()) for counts in sorts.values()) / len(answers)


def wanted(question: BrookQuestion) -> str:
    """What sort of answer the wording tells: the kind, what has to be found, and of what came first the two sorts."""
    named = {"thing" if word in SHAPES else word for word in re.findall(r"\w+", question.text)}
    pair = named & {"thing", "word", "beep"} if question.kind == "first" else set[str]()
    return " ".join((question.kind, *sorted(question.finds), *sorted(pair)))


class Score:
    """Collects answers and narration."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Given]] = defaultdict(list)
        self.told: dict[str, list[bool]] = defaultdict(list)
        self.invented: list[bool] = []
        self.mistold: list[str] = []  # what was missed, told late or invented, in words
        self.taken: dict[str, Taken] = defaultdict(Taken)  # by the sort of scene

    def lines(self) -> list[TableLine]:
        lines = []
        for kind, answers in self.answers.items():
            right = sum(answer.right == answer.given for answer in answers)
            lines.append(TableLine(kind, len(answers), right / len(answers), constant(answers)))
        told = {f"narrated: {kind}": self.told[kind] for kind in NARRATED if self.told[kind]}
        lines += [TableLine(kind, len(marks), sum(marks) / len(marks), 0.0) for kind, marks in told.items()]
        if every := [mark for kind in NARRATED for mark in self.told[kind]]:
            lines.append(TableLine("narrated: all", len(every), sum(every) / len(every), 0.0))
        if self.invented:
            lines.append(
                TableLine("narration: invented", len(self.invented), sum(self.invented) / len(self.invented), 0.0)
            )
        return lines

    def scenes(self) -> list[SceneLine]:
        """Of each sort of scene: what was taken in, and how many answers were right."""
        return [self.taken[sort].line(sort) for sort in sorted(self.taken, reverse=True)]


async def answer(
    house: House,
    door: str,
    paper: Paper,
    film: bytes | None,
    seconds: float,
    score: Score,
    sparing: dict[str, Any],
) -> None:
    """Show a film of `seconds` through a door, to streams whose requests have the fields `sparing`, and ask every
    question."""
    taken = score.taken[sort_of(paper.scene)]
    counting = CountingHouse(house, sparing, taken)
    given = await DOORS[door](counting, film, seconds, [question for _, question in paper.questions])
    taken.seconds += seconds
    for (kind, question), words in zip(paper.questions, given, strict=True):
        taken.marks.append(question.answer == words)
        score.answers[kind].append(Given(question.text, question.answer, words, wanted(question)))


@asynccontextmanager
async def _houses(options: argparse.Namespace) -> AsyncIterator[Callable[[], AbstractAsyncContextManager[House]]]:
    """What opens a connection for each film; without a URL, the one engine of this process, which serves Brook."""
    if options.url is not None:
        yield lambda: connect(options.url)
        return
    from penstock import Engine

    from .late import lived

    async with await Engine.load() as engine:
        house = await lived(engine, options.after, options.window) if options.after else engine
        yield lambda: nullcontext(house)


async def narrate(house: House, paper: Paper, film: bytes, pace: float, score: Score) -> None:
    """Ask for narration and play a film at `pace` times its speed; compare what is told with what happens."""
    stream = await house.stream(Request(format="live"))
    following = asyncio.create_task(_sentences(stream))
    await stream.watch("Tell me what happens.", SamplingParams(max_tokens=2000, temperature=0.0))
    started, cut = time.monotonic(), list(pieces(film))
    for number, piece in enumerate(cut, 1):
        await asyncio.sleep(started + piece.time_us / 1e6 / pace - time.monotonic())
        await stream.append(VideoBytes(piece.data, final=number == len(cut)))
    await stream.end()
    sentences = await following
    await stream.close()
    _mark(paper.scene, sentences, score)


async def _sentences(stream: AsyncIterator[Event]) -> list[Sentence]:
    """What is said until the reply ends."""
    listener, sentences = Listener(), []
    async for event in stream:
        sentence = listener.hear(event)
        if sentence is not None:
            sentences.append(sentence)
        if isinstance(event, ReplyDone):
            break
    return sentences


def _mark(scene: Scene, sentences: list[Sentence], score: Score) -> None:
    start = [sentence for sentence in sentences if sentence.text.startswith("I see ")]
    right = opening(scene, start[0].seen if start else 0.0)
    score.answers["narration: opening"].append(Given("", right, start[0].text if start else ""))
    marker = Marker(scene)
    told = [marker.mark(sentence) for sentence in sentences if sentence not in start[:1]]
    for event, in_time in marker.finish(scene.seconds - 1.0):
        score.told[event.kind].append(in_time)
        if not in_time:
            lateness = "missed" if event in marker.waiting else "late"
            score.mistold.append(f"narration: {lateness}: {event.sentence!r}, which happened at {event.time:.1f} s")
    score.mistold += [f"narration: invented: {said.text!r}, at {said.seen:.1f} s" for said in marker.invented]
    score.invented += [event is None for event in told]


def _shown(media: str, scene: Scene, other: Scene) -> Scene | None:
    """The scene to be shown for a column: the true one, a blank one of its length, another, none."""
    if media == "none":
        return None
    if media == "blank":
        return scene._replace(things=(), changes=(), sounds=(), foreign="")
    return other if media == "other" else scene


async def examine(options: argparse.Namespace, score: Score) -> None:
    """Ask everything; several films at a time."""
    bank = evaluation_bank(options.seed)
    examiner = Examiner(options.seed, bank, options.count, options.hold_out)
    told = options.media == "true" and options.door == "file"
    places = asyncio.Semaphore(PLAYED)
    papers = list(examiner.papers())
    narrations = list(examiner.narrations(options.narrations, options.cuts)) if told else []

    async def filmed(scene: Scene) -> bytes:
        camera = Lens.drawn(np.random.default_rng((scene.seed, 3))) if options.camera else None
        if options.dusk:
            camera = Dusk(scene.seconds)
        return await asyncio.to_thread(encode, scene, bank, "webm", camera)

    async def one(house: Callable[[], AbstractAsyncContextManager[House]], number: int) -> None:
        async with places, house() as inside:
            paper, other = papers[number], papers[number - 1]
            scene = _shown(options.media, paper.scene, other.scene)
            scene = None if scene is None else scene.after(options.watched)
            film = None if scene is None else await filmed(scene)
            seconds = 0.0 if scene is None else scene.seconds
            await answer(inside, options.door, paper, film, seconds, score, _sparing(options))

    lanes = asyncio.Semaphore(options.lanes)

    async def tell(house: Callable[[], AbstractAsyncContextManager[House]], paper: Paper) -> None:
        async with lanes, house() as inside:
            await narrate(inside, paper, await filmed(paper.scene), options.pace, score)

    async with _houses(options) as house:
        async with asyncio.TaskGroup() as tasks:
            for number in range(len(papers)):
                tasks.create_task(one(house, number))
        async with asyncio.TaskGroup() as tasks:
            for paper in narrations:
                tasks.create_task(tell(house, paper))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an examination; 0 when it could be held, whatever came out."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.after and (options.url is not None or options.door != "frames"):
        parser.error("--after: expected --door frames and no --url")
    if _sparing(options) and (options.door != "frames" or options.after):
        parser.error("--drop-still, --fps-idle, --pixels-idle: expected --door frames and no --after")
    if options.dusk and options.camera:
        parser.error("--dusk: expected no --camera, got both")
    score = Score()
    try:
        asyncio.run(examine(options, score))
    except KeyboardInterrupt:
        return 130
    except (OSError, PenstockError) as error:
        print(f"evaluate: error: {error}", file=sys.stderr)
        return 1
    except ExceptionGroup as group:
        print(f"evaluate: error: {group.exceptions[0]!r}", file=sys.stderr)
        return 1
    if options.wrong:
        for kind, answers in score.answers.items():
            for answer in answers:
                if answer.right != answer.given:
                    words = f"{kind}: {answer.question} expected {answer.right!r}, got {answer.given!r}"
                    print(words, file=sys.stderr)
        for words in score.mistold:
            print(words, file=sys.stderr)
    _show(score, options)
    return 0


def _sparing(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a request that let a stream take less."""
    given = {
        "drop_still": options.drop_still,
        "video_fps_idle": options.fps_idle,
        "video_pixels_idle": options.pixels_idle,
    }
    return {name: value for name, value in given.items() if value is not None}


def _show(score: Score, options: argparse.Namespace) -> None:
    """Print the table of kinds and, for the door "frames", that of scenes."""
    scenes = score.scenes() if options.door == "frames" else []
    if options.json:
        shown = {"media": options.media, "door": options.door, "seed": options.seed}
        for line in (*score.lines(), *scenes):
            print(json.dumps(line._asdict() | shown))
        return
    print(f"{'kind':22} {'n':>5} {'right':>7} {'constant':>9}")
    for line in score.lines():
        print(f"{line.kind:22} {line.n:5} {line.right:7.1%} {line.constant:9.1%}")
    if scenes:
        print(f"\n{table(scenes)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.demos.brook.evaluate", description="How much of Brook's world a served model knows."
    )
    parser.add_argument("--url", help="a running server, as ws://host:port (default: Brook, in this process)")
    parser.add_argument("--door", choices=tuple(DOORS), default="file", help=_DOOR_HELP)
    parser.add_argument("--seed", type=int, default=1, help="of the films and voices (default 1)")
    parser.add_argument("--count", type=int, default=40, help="questions of each kind (default 40)")
    parser.add_argument("--narrations", type=int, default=20, help="films to be narrated (default 20)")
    parser.add_argument("--cuts", action="store_true", help="in each film to be narrated all is once another picture")
    parser.add_argument("--hold-out", action="store_true", help="also ask about combinations never trained on")
    parser.add_argument("--media", choices=MEDIA, default="true", help="what is shown instead of the right film")
    parser.add_argument("--camera", action="store_true", help="films as cheap cameras take them: noisy, dark")
    parser.add_argument("--dusk", action="store_true", help="in each film the light goes slowly")
    parser.add_argument(
        "--drop-still", type=float, metavar="SECONDS", help="leave out what shows nothing new (door frames)"
    )
    parser.add_argument(
        "--fps-idle", type=float, metavar="FPS", help="the rate of video while nothing happens (door frames)"
    )
    parser.add_argument(
        "--pixels-idle", type=int, metavar="PIXELS", help="the size of frames while nothing happens (door frames)"
    )
    parser.add_argument(
        "--watched", type=float, default=0.0, metavar="SECONDS", help="for so long nothing happens before each film"
    )
    parser.add_argument("--pace", type=float, default=1.0, help="how fast films are played for narration (default 1)")
    parser.add_argument("--lanes", type=int, default=4, help="films narrated at a time (default 4)")
    parser.add_argument(
        "--after", type=float, default=0.0, metavar="MINUTES", help="show so much of another film before (door frames)"
    )
    parser.add_argument("--window", type=int, default=2048, metavar="ROWS", help="of the stream then (default 2048)")
    parser.add_argument("--wrong", action="store_true", help="print what was wrong to standard error")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
