"""Streams to learn from: a scene cut into pieces of media as Penstock cuts it, questions in between, what to say.

In: a generator of random numbers. Out: `Lesson`s, each the rows of one stream with the pictures and blocks of sound
that they need. It knows how a stream is cut and when something can have been seen, no weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from .draw import Lens, Painter
from .layout import StreamRows, Vocabulary, Writer
from .moment import Moment
from .narration import change_told, opening, sound_told
from .questions import KINDS, BrookQuestion, ask
from .senses import BLOCK_FRAMES, FIELDS, SIDE, block_rows
from .sound import RATE
from .world import COLOURS, SHAPES, Scene, SceneMaker, Wish

NARRATE = (
    "Tell me what happens.",
    "Tell me what you see and hear.",
    "Say what happens.",
    "Narrate.",
    "Describe what happens.",
    "Watch and tell me what happens.",
    "What is happening?",
    "Tell me everything that happens.",
    "Go on and tell me what changes.",
)
_TICK = 0.5
# How often a kind is asked: what is hard to learn more often.
_WEIGHTS = {
    "before": 9.0,
    "together": 24.0,
    "count": 9.0,
    "way": 36.0,  # of which many are passed over
    "changed": 3.5,
    **dict.fromkeys(("where", "what", "follow-up", "start", "left", "beeps", "words", "moved"), 2.0),
    "is there": 3.0,
    **dict.fromkeys(("nothing", "unknown", "pitch", "first"), 0.6),
}


class LessonPiece(NamedTuple):
    """A piece of media: `kind` "video" (ticks `start` and `stop`), "image" (at `start`), "audio" (from `start` to
    `stop`). `run` counts runs of sound. `forced`: a question made it come before its time."""

    kind: str
    start: float
    stop: float
    run: int = 0
    forced: bool = False


class Lesson(NamedTuple):
    """The rows, the times of the frame pairs, the track and the blocks (start, frames) that are cut from it.

    `found`: what has to be found out in some rows, as first and stop row and columns of hints.py, "moment" or "thing".
    """

    scene: Scene
    rows: StreamRows
    pairs: list[tuple[float, float]]
    track: np.ndarray | None
    blocks: list[tuple[float, int]]
    found: list[tuple[int, int, Mapping[str, float]]]

    def pictures(self, random: np.random.Generator) -> np.ndarray:
        """The frame pairs `(p, 2, SIDE, SIDE, 3)` as some camera took them."""
        painter, camera = Painter(self.scene, SIDE), Lens.drawn(random)
        pairs = [np.stack([camera.take(painter.picture(time), random) for time in times]) for times in self.pairs]
        return np.stack(pairs) if pairs else np.zeros((0, 2, SIDE, SIDE, 3), np.uint8)


class LessonPlan(NamedTuple):
    """What a stream shall be: which tracks it has, when something is asked, and how it speaks. `stop`: when it is
    interrupted."""

    seconds: float
    video: bool
    audio: bool
    live: bool
    asks: list[float]
    stop: float = math.inf


def cut(plan: LessonPlan) -> Iterator[LessonPiece | float]:
    """Pieces and the times of questions, in the order in which a stream has them."""
    tick, waiting = 0, None
    block, run = 0.0, 0
    asks = [*plan.asks, plan.seconds]
    for ask_time in asks:
        while True:
            tick_time = tick * _TICK if plan.video else np.inf
            block_time = block + 1.0 if plan.audio else np.inf
            if min(tick_time, block_time) > ask_time:
                break
            if tick_time <= block_time:
                if waiting is None:
                    waiting = tick_time
                else:
                    yield LessonPiece("video", waiting, tick_time)
                    waiting = None
                tick += 1
            else:
                yield LessonPiece("audio", block, block_time, run)
                block = block_time
        if ask_time == plan.seconds:
            return
        if waiting is not None:
            yield LessonPiece("video", waiting, waiting, forced=True)
            waiting = None
        if plan.audio and ask_time - block >= 0.06:
            yield LessonPiece("audio", block, ask_time, run, forced=True)
            block = ask_time
            run += 1
        yield ask_time


class LessonMaker:
    """Draws lessons. `bank` says the words. `hard`: how much more often hard kinds are asked, from 0 (all alike) to 1
    (as `_WEIGHTS` has it)."""

    def __init__(self, random: np.random.Generator, bank, vocabulary: Vocabulary, hard: float = 1.0) -> None:
        self._random = random
        self._bank = bank
        self._words = vocabulary
        self._maker = SceneMaker(random, bank.seconds)
        self._weights = np.array([_WEIGHTS.get(kind, 1.0) for kind in KINDS]) ** hard
        self._weights /= self._weights.sum()

    def lesson(self, seconds: float, most_things: int = 4) -> Lesson:
        """A stream of about so many seconds, half as long again where it is narrated."""
        random = self._random
        draw = random.random()
        audio, video = draw > 0.28, draw < 0.9
        live = video and random.random() < 0.45
        seconds = seconds * 1.5 if live else seconds
        strange = video and random.random() < (0.14 if live else 0.07)
        foreign = str(random.choice(["noise", "texture", "photo"])) if strange else ""
        calm = random.random() < 0.12
        wish = Wish(
            seconds=seconds,
            most_things=most_things,
            change_gap=0
            if calm
            else float(random.uniform(1.4, 3.0) if random.random() < 0.8 else random.uniform(3, 9)),
            sound_gap=0 if audio and random.random() < 0.1 else float(random.uniform(0.5, 1.6)),
            beeps=float(random.choice([0.3, 0.5, 0.9])),
            others=float(random.choice([0.0, 0.2, 0.5])),
            foreign=foreign,
            echoes=0.35,
            again=0.35,
            cut=(0.7 if foreign else 0.3) if live else (0.2 if foreign else 0.05),
        )
        scene = self._maker.scene(wish)
        if not foreign:  # the busier of two scenes: most mistakes are made where there is much to see
            scene = max(scene, self._maker.scene(wish), key=lambda scene: len(scene.things))
        asks, stop = self._asks(seconds, live), math.inf
        if live and scene.cuts and random.random() < 0.5:  # a person has changed the source, and asks again after it
            stop = scene.cuts[0]
            asks = [*(ask for ask in asks if ask < stop), round(stop + float(random.uniform(0.5, 1.2)), 2)]
        return self._lesson(scene, LessonPlan(seconds, video, audio, live, asks, stop))

    def _asks(self, seconds: float, live: bool) -> list[float]:
        """When questions are asked: in `live` often at the very start."""
        random = self._random
        if live:
            draw = random.random()
            before = -0.05  # nothing has been shown when it is asked
            first = before if draw < 0.3 else 0.0 if draw < 0.5 else float(random.uniform(0.1, min(2.5, seconds - 0.8)))
            later = [float(random.uniform(first + 0.5, seconds)) for _ in range(int(random.integers(0, 2)))]
            asks = [first, *later]
        else:
            count = int(random.integers(1, 2 + int(seconds // 4)))
            asks = [float(random.uniform(min(1.0, seconds / 2), seconds)) for _ in range(count - 1)] + [seconds - 0.001]
        return sorted(round(time, 2) for time in asks)

    def _lesson(self, scene: Scene, plan: LessonPlan) -> Lesson:
        stream = _Stream(self._random, scene, plan, self._words)
        for step in cut(plan):
            if isinstance(step, LessonPiece):
                if step.stop > plan.stop:
                    stream.interrupt()
                stream.take(step)
            else:
                self._question(stream, step)
        if not plan.live:
            self._turns(stream, plan.seconds, int(self._random.integers(10, 22)), self._random.random() < 0.7)
        track = self._bank.track(scene) if plan.audio else None
        return Lesson(scene, stream.writer.rows(), stream.pairs, track, stream.blocks, stream.found)

    def _question(self, stream: _Stream, time: float) -> None:
        if not stream.plan.live:
            self._turns(stream, time, int(self._random.integers(1, 6)), False)
            return
        if stream.speaks and self._random.random() < 0.25:
            return
        if self._random.random() < (0.2 if stream.speaks else 0.8):
            stream.narrate(NARRATE[int(self._random.integers(len(NARRATE)))])
        elif (question := self._drawn(stream, time)) is not None:
            stream.answer(question)

    def _turns(self, stream: _Stream, time: float, count: int, apart: bool) -> None:
        """Questions one after the other; or `apart`, each to a copy of the stream, so that none helps another."""
        for _ in range(count):
            question = self._drawn(stream, time)
            if question is None:
                continue
            with stream.writer.copy() if apart else nullcontext():
                if question.lead is not None:
                    stream.answer(question.lead)
                stream.answer(question)

    def _drawn(self, stream: _Stream, time: float) -> BrookQuestion | None:
        moment = Moment(stream.scene, stream.seen, time if stream.plan.audio else None, self._random)
        for _ in range(8):
            question = ask(KINDS[int(self._random.choice(len(KINDS), p=self._weights))], moment)
            if question is None or (stream.plan.live and question.lead):
                continue
            if question.kind == "way" and self._random.random() < _too_easy(question, moment):
                continue
            return question
        return None


def _too_easy(question: BrookQuestion, moment: Moment) -> float:
    """How many questions after a way to pass over: where nothing has moved most of them, where something has as many as
    it takes to ask also about what stood still."""
    if not any(change.kind == "moved" for change in moment.changes):
        return 0.95
    return 0.0 if question.answer == "it did not move." else 0.75


class _Stream:
    """One stream while it is written: what has been seen, what has to be said."""

    def __init__(self, random: np.random.Generator, scene: Scene, plan: LessonPlan, words: Vocabulary) -> None:
        self.scene, self.plan = scene, plan
        self.writer = Writer(words)
        self.pairs: list[tuple[float, float]] = []
        self.blocks: list[tuple[float, int]] = []
        self.found: list[tuple[int, int, Mapping[str, float]]] = []
        self.seen: float | None = None
        self._random = random
        self._words = words
        self._run = 0
        self._told = -1.0  # changes up to here are told or too late to tell
        self._heard = -1.0
        self._queue: list[int] = []  # tokens that are still to be said
        self._stopped = False

    def take(self, piece: LessonPiece) -> None:
        """Lay a piece of media; during a reply, say what it shows."""
        sentences = self._news(piece)
        goes_on = piece.kind == "audio" and any(
            s.start < piece.stop and s.stop > self._heard for s in self.scene.sounds
        )
        if piece.kind == "video":
            self.writer.video(len(self.pairs), FIELDS, FIELDS)
            self.pairs.append((piece.start, piece.stop))
            self.seen = piece.stop
        else:
            frames = min(round((piece.stop - piece.start) * RATE / 320), BLOCK_FRAMES)
            self.writer.audio(len(self.blocks), block_rows(frames), piece.run != self._run)
            self._run = piece.run
            self.blocks.append((piece.start, frames))
        if not self.speaks:
            return
        for sentence in sentences:
            self._queue += self._words.ids(f" {sentence}")
        if not piece.forced:
            self._speak("kept" if goes_on else "silent")

    def _news(self, piece: LessonPiece) -> list[str]:
        if piece.kind == "video":
            first = self.seen is None
            changes = [c for c in self.scene.changes if self._told < c.time <= piece.stop]
            another = first or any(self._told < cut <= piece.stop for cut in self.scene.cuts)
            self._told = piece.stop
            return [opening(self.scene, piece.stop)] if another else [change_told(change) for change in changes]
        sounds = [s for s in self.scene.sounds if self._heard < s.stop <= piece.stop + 0.03]
        self._heard = piece.stop + 0.03
        return [sound_told(sound) for sound in sounds]

    def _speak(self, silence: str = "silent", late: float = 0.06) -> None:
        """Say what is queued: all of it, or now and then only a part, or nothing (a share of `late`), before the next
        piece comes. Where there is nothing to be said, that is `silence`: "kept" while a sound has not ended."""
        draw = self._random.random()
        if draw < late:
            return
        if draw < late + 0.2 and len(self._queue) > 1:
            part = int(self._random.integers(1, len(self._queue)))
            said, self._queue = self._queue[:part], self._queue[part:]
            self.writer.say(said, None, "narrated")
            return
        said, self._queue = self._queue, []
        self.writer.say(said, self._words.silence, "narrated" if said else silence)

    @property
    def speaks(self) -> bool:
        return self.writer.state == "assistant"

    def interrupt(self) -> None:
        """End the reply that runs, at once and for good."""
        if self.speaks and not self._stopped:
            self._queue = []
            self.writer.finish()
        self._stopped = True

    def narrate(self, request: str) -> None:
        """Ask for narration; it begins with what is there."""
        self._start(request)
        if self.seen is not None:
            self._queue = self._words.ids(opening(self.scene, self.seen))
        self._speak(late=0.0)

    def answer(self, question: BrookQuestion) -> None:
        first = self._start(question.text) - 1  # the question's last word
        if "thing" in question.finds:
            first -= self._behind_the_name(question.text)
        self.writer.say(self._words.ids(question.answer), self._words.end, question.kind)
        if question.finds:
            self.found.append((first, len(self.writer), question.finds))
        if not self.plan.live:
            self.writer.finish()

    def _behind_the_name(self, text: str) -> int:
        """How many tokens of a question come after the last shape or colour that it names."""
        end = max((text.rfind(word) + len(word) for word in (*SHAPES, *COLOURS) if word in text), default=len(text))
        return len(self._words.ids(text)) - len(self._words.ids(text[:end]))

    def _start(self, text: str) -> int:
        self._queue = []
        return self.writer.ask(text)
