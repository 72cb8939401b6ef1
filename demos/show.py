"""The main demo: `python -m penstock.demos.show`. Brook watches a film of its world and tells what happens.

A scene is drawn, sounded and encoded; `penstock serve` is started on a free port; the film's bytes go over a WebSocket
at the film's own pace in format `live`. What Brook tells, and what it answers to questions in mid-film, is shown beside
the truth. Out go lines for people, or with `--json` one object a line. Ends with 0 where Brook spoke before the film
was over.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from penstock import Event, PenstockError, ReplyStarted, Request, SamplingParams, VideoBytes, connect

from .brook.film import CONTAINERS, encode
from .brook.marking import Listener, Marker, Sentence
from .brook.moment import Moment
from .brook.narration import opening
from .brook.questions import BrookQuestion, ask
from .brook.sound import Bank
from .brook.world import Scene, SceneMaker, Wish
from .film import FilmPiece, pieces
from .process import running_server

REQUEST = "Tell me what happens."
_ASKED = ("colour", "where", "count", "word", "beeps", "what", "moved")
SHORTEST = 8.0
_TAIL_SECONDS = 1.5


class Show(NamedTuple):
    """A film and when to ask what."""

    scene: Scene
    film: list[FilmPiece]
    questions: list[tuple[float, BrookQuestion]]
    spoken: bool


class Screen:
    """Prints the show: three columns for people, or JSON."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._width = max(min(shutil.get_terminal_size().columns, 100), 60)

    def note(self, text: str) -> None:
        """Something that takes a while; never among JSON."""
        print(text, file=sys.stderr if self._json else sys.stdout, flush=True)

    def head(self, model: str, format: str, show: Show) -> None:
        if self._json:
            self._object("started", model=model, format=format, seconds=show.scene.seconds, spoken=show.spoken)
            return
        print(f"\n{model}, format {format}; a film of {show.scene.seconds:g} s with sound, sent at its own pace")
        if not show.spoken:
            print("espeak-ng is not installed: nobody speaks in this film")
        self._row("media", "in the film", "Brook says")
        print("-" * (self._width - 1), flush=True)

    def truth(self, time: float, text: str) -> None:
        """What has just been drawn or sounded."""
        if self._json:
            self._object("truth", time=round(time, 2), text=text)
        else:
            self._row(f"{time:5.1f} s", text, "")

    def said(self, time: float, text: str, right: bool | None, expected: str = "") -> None:
        """What Brook said, having seen the film up to `time`; `right` None: nothing to compare with."""
        if self._json:
            self._object("said", time=round(time, 2), text=text, right=right, expected=expected)
            return
        mark = {True: "  [right]", False: "  [WRONG]", None: ""}[right]
        self._row(f"{time:5.1f} s", f"  ({expected})" if right is False and expected else "", text + mark)

    def asked(self, time: float, text: str) -> None:
        if self._json:
            self._object("question", time=round(time, 2), text=text)
        else:
            self._row(f"{time:5.1f} s", f"? {text}", "")

    def summary(self, told: int, events: int, invented: int, right: int, answers: int, first: float | None) -> None:
        since = os.environ.get("PENSTOCK_STARTED")  # the Makefile's clock: with set-up
        spent = None if first is None else first - float(since) if since else None
        if self._json:
            counts = {"told": told, "events": events, "invented": invented, "right": right, "answers": answers}
            self._object("summary", **counts, first_right_after=None if spent is None else round(spent, 1))
            return
        print(f"\nTold {told} of {events} events within a second of media; {invented} sentences told nothing that was")
        print(f"there. {right} of {answers} answers right.", end=" ")
        print("" if spent is None else f"From `make demo` to the first right sentence: {spent:.0f} s.", flush=True)

    def _row(self, time: str, left: str, right: str) -> None:
        column = (self._width - 15) // 2
        cells = (textwrap.wrap(left, column), textwrap.wrap(right, column))
        for head, *parts in itertools.zip_longest([time], *cells, fillvalue=""):
            print(f"{head:>8} | {parts[0]:{column}} | {parts[1]}".rstrip(), flush=True)

    def _object(self, kind: str, **fields: Any) -> None:
        print(json.dumps({"type": kind, **fields}), flush=True)


def make_show(seed: int, seconds: float, container: str) -> Show:
    """A film with something of everything in it, and up to three questions at calm moments.

    ValueError for less than 8 seconds, or where no such film is found.
    """
    if seconds < SHORTEST:
        raise ValueError(f"--seconds: expected at least {SHORTEST:g}, got {seconds:g}")
    spoken = shutil.which("espeak-ng") is not None
    bank = Bank(range(30_000 + seed, 30_004 + seed) if spoken else (), half=1, others=0)
    random = np.random.default_rng(seed)
    maker = SceneMaker(random, bank.seconds)
    wish = Wish(seconds=seconds, most_things=3, change_gap=2.5, sound_gap=2.2, beeps=0.5 if spoken else 1.0)
    for _ in range(10_000):
        scene = maker.scene(wish)
        questions = list(_questions(scene, random))
        varied = len({change.kind for change in scene.changes}) >= min(3, seconds // 4)
        if (
            varied
            and scene.things
            and len(scene.sounds) >= min(3, seconds // 4)
            and len(questions) >= (2 if seconds >= 12 else 1)
        ):
            return Show(scene, list(pieces(encode(scene, bank, container))), questions[:3], spoken)
    raise ValueError(f"no film of {seconds:g} s from seed {seed} has enough in it")


def _questions(scene: Scene, random: np.random.Generator) -> Iterator[tuple[float, BrookQuestion]]:
    """Questions at moments at which nothing happens, a few seconds apart."""
    time = 5.0
    kinds = list(random.permutation(_ASKED))
    while time < scene.seconds - 2 and kinds:
        calm = all(not change.start - 1 < time < change.stop + 1.3 for change in scene.changes)
        if calm and all(not sound.start - 1 < time < sound.stop + 1.3 for sound in scene.sounds):
            question = ask(str(kinds.pop()), Moment(scene, time, time, random))
            if question is not None:
                yield time, question
                time += 3.5
        time += 0.1


class Performance:
    """One run of the show: what has been sent, said and answered."""

    def __init__(self, show: Show, screen: Screen) -> None:
        self.show, self.screen = show, screen
        self.marker = Marker(show.scene)
        self.answers: dict[int, BrookQuestion] = {}  # by reply, until they come
        self.right = self.answered = 0
        self.played = 0.0
        self.spoke_in_time = False
        self.first_right: float | None = None
        self.replies = 0

    async def follow(self, events: AsyncIterator[Event]) -> None:
        """Show what is said, until the stream ends."""
        listener = Listener()
        async for event in events:
            if isinstance(event, ReplyStarted):
                self.replies += 1
            if (sentence := listener.hear(event)) is not None:
                self._said(sentence)

    def _said(self, sentence: Sentence) -> None:
        self.spoke_in_time |= self.played < self.show.scene.seconds - 0.2
        question = self.answers.pop(sentence.reply, None)
        expected = ""
        if question is not None:
            expected, right = question.answer, sentence.text == question.answer
            self.answered += 1
            self.right += right
        elif sentence.text.startswith("I see "):
            expected = opening(self.show.scene, sentence.seen)
            right = sentence.text == expected
        else:
            right = self.marker.mark(sentence) is not None
        if right and self.first_right is None:
            self.first_right = time.time()
        self.screen.said(sentence.seen, sentence.text, right, expected)

    async def play(self, stream: Any) -> None:
        """Send the film at its own pace; show what it shows; ask."""
        told = [(event.time, event.sentence, None) for event in self.marker.waiting]
        asked = [(time, question.text, question) for time, question in self.show.questions]
        cues = sorted([*told, *asked, (0.0, REQUEST, None)], key=lambda cue: cue[0])
        started = time.monotonic()
        for number, piece in enumerate(self.show.film, 1):
            await asyncio.sleep(started + piece.time_us / 1e6 - time.monotonic())
            await stream.append(VideoBytes(piece.data, final=number == len(self.show.film)))
            self.played = piece.time_us / 1e6
            while cues and cues[0][0] <= self.played:
                moment, text, question = cues.pop(0)
                if question is None and text != REQUEST:
                    self.screen.truth(moment, text)
                    continue
                self.screen.asked(self.played, text)
                reply = await stream.watch(text, SamplingParams(max_tokens=2000))
                if question is not None:
                    self.answers[reply.id] = question
        await asyncio.sleep(_TAIL_SECONDS)
        await stream.end()


async def perform(url: str, show: Show, screen: Screen, api_key: str | None = None) -> Performance:
    """Show the film to the server at `url`."""
    run = Performance(show, screen)
    async with connect(url, api_key) as connection:
        stream = await connection.stream(Request(format="live"))
        screen.head(connection.welcome.model, stream.format, show)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run.follow(stream), name="events")
            await run.play(stream)
            await stream.close()
    marks = run.marker.finish(show.scene.seconds - 1.0)
    told = sum(in_time for _, in_time in marks)
    screen.summary(told, len(marks), len(run.marker.invented), run.right, len(show.questions), run.first_right)
    return run


async def _run(options: argparse.Namespace, screen: Screen) -> int:
    show = await asyncio.to_thread(make_show, options.seed, options.seconds, options.container)
    if options.url is not None:
        run = await perform(options.url, show, screen, options.api_key)
    else:
        async with running_server(None, screen.note) as url:
            run = await perform(url, show, screen)
    return 0 if run.spoke_in_time else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the show."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options, Screen(options.json)))
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, PenstockError) as error:
        print(f"show: error: {error}", file=sys.stderr)
        return 1
    except ExceptionGroup as group:
        print(f"show: error: {group.exceptions[0]}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m penstock.demos.show", description="Brook tells what happens.")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--seed", type=int, default=4, help="of the film (default 4)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the film (default 20)")
    parser.add_argument("--container", choices=CONTAINERS, default="mp4", help="H.264 and AAC, or VP8 and Opus")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--api-key", help="its key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
