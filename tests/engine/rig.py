"""An engine driven by hand, with its witnesses: what was offered, what was drawn, and what the reference makes of it.

A `Rig` owns a `Core` and several `Session`s, one per stream. A session leads media through a `Timeline` into the
core, tells its `Story`, and keeps the logits of each token. `check` compares it with a dense forward of plain
`transformers`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from collections.abc import Sequence as Row
from typing import Any, cast

import numpy as np
import torch
from penstock.codecs.frame import Frame, Pixels, Samples
from penstock.engine.command import Close, Fork, Interrupt
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.engine.plan import Plan, Result
from penstock.streams.event import Event, ReplyDone, Token
from penstock.streams.requests.request import Request, SamplingParams
from penstock.streams.segment import AudioSegment, ImageSegment, Segment, UnitSegment, VideoSegment
from penstock.streams.timeline import Timeline

from tests.reference.dense import Sequence, build, forward
from tests.reference.places import Rule

from .story import Clip, Film, Run, Sound, Still, Story, Units

RATE = 16_000
FRAME_US = 500_000
# Logits of the engine and of a dense forward differ by at most this (float32), or by this share of the largest of them.
TOLERANCE, ROUNDING = 1e-4, 2e-5
# A likelier token than the second by less than this may be either.
MARGIN = 1e-3

# The towers are shared by all engines of a run, and remember streams.
_streams = itertools.count(1)


class Rig:
    """An engine, its streams, and every plan that was carried out."""

    # How far logits may be from the reference's, and how near the second likeliest token may be to the likeliest.
    tolerance, margin = TOLERANCE, MARGIN

    def __init__(self, loaded: Loaded, **config: Any) -> None:
        self.core = Core(loaded, EngineConfig(**{"kv_tokens": 8192, "backend": "cpu", **config}))
        self.sessions: dict[int, Session] = {}
        self.plans: list[Plan] = []

    def open(self, **request: Any) -> Session:
        """Without a window, unless it is given one: what a dense forward is made of is never let go then."""
        session = Session(self, next(_streams), Request(**{"window": None, **request}))
        self.core.open(session.stream, session.request)
        self.sessions[session.stream] = session
        return session

    def fork(self, session: Session) -> Session:
        """A copy of the session and of its stream, as they stand."""
        twin = copy.copy(session)
        twin.stream = next(_streams)
        twin.story = session.story.copy()
        twin.timeline = copy.deepcopy(session.timeline)
        twin.sound_run = Run(session.sound_run.samples)
        twin.draws, twin.events, twin.frames = dict(session.draws), list(session.events), list(session.frames)
        self.core.scheduler.apply(Fork(session.stream, twin.stream, session.seq + 1))
        self.core.encoder.fork(session.stream, twin.stream)
        self.sessions[twin.stream] = twin
        return twin

    def step(self, count: int = 1) -> bool:
        """Carry out `count` steps; False where there was nothing to do."""
        for _ in range(count):
            done = self.core.step()
            self.core.scheduler.check()
            if done is None:
                assert self.core.language.spans.ids == self.core.scheduler.kept.named()
                return False
            self._witness(*done)
            self.deliver()
            for session in self.sessions.values():
                session.story.go_on()
        return True

    def run(self, steps: int = 2_000) -> None:
        """Step until nothing is left to do."""
        for _ in range(steps):
            if not self.step():
                return
        raise AssertionError(f"not done after {steps} steps")

    def deliver(self) -> None:
        for stream, event in self.core.scheduler.events():
            self.sessions[stream].take(event)

    def _witness(self, plan: Plan, result: Result) -> None:
        self.plans.append(plan)
        drawing = [feed for feed in plan.feeds if feed.draw is not None]
        stayed, place = dict(self.core.scheduler.guessing.stayed), 0
        for feed, drawn in zip(drawing, result.drawn(), strict=True):
            assert self.core.language.logits is not None
            row = feed.first + sum(len(rows) for rows in feed.rows) - 1
            session = self.sessions[feed.stream]
            for number, (token, _) in enumerate(drawn[: 1 + stayed.get(feed.stream, 0)]):
                session.draws[row + number] = (token, self.core.language.logits[place + number].clone())
                session.story.drawn(token in self.core.loaded.family.stop_ids)
            place += 1 + (0 if feed.guesses is None else len(feed.guesses.draws))


class Session:
    """One stream of a rig. Inputs are numbered in the order of the calls."""

    def __init__(self, rig: Rig, stream: int, request: Request) -> None:
        self.rig = rig
        self.stream = stream
        self.request = request
        self.timeline = Timeline(
            rig.core.loaded.family.spec,
            video_fps=request.video_fps,
            expected_frames=request.expected_frames,
            audio_in_video=request.audio_in_video,
            lateness_us=request.lateness_us,
        )
        self.seq = 0
        self.story = Story(request.format, request.system, request.unit_tokens)
        self.draws: dict[int, tuple[int, torch.Tensor]] = {}  # by the row that was drawn from
        self.events: list[Event] = []
        self.frames: list[tuple[int, np.ndarray]] = []  # with their times: frames that no pair has yet
        self.sound_run, self.blocks = Run(), 0
        self.heard = 0
        self.film, self.units = Film(), 0

    # What a client does.

    def frame(self, pixels: np.ndarray, time_us: int) -> None:
        """The next frame of the video, at the size that the model takes."""
        self.feed([Pixels(pixels, time_us)])

    def sound(self, samples: np.ndarray) -> None:
        """The next samples, `(n,)`."""
        self.feed([Samples(samples[None], RATE, self.heard * 1_000_000 // RATE)])

    def feed(self, media: Row[Frame], as_taken: Callable[[np.ndarray], np.ndarray] = np.asarray) -> None:
        """Frames and chunks of sound as one input. `as_taken`: a frame at the size at which the model takes it."""
        for frame in media:
            if isinstance(frame, Pixels):
                self._show(as_taken(frame.pixels), frame.pts_us)
            else:
                self._hear(frame.samples[0])
                self.heard += frame.samples.shape[1]
        output = self.timeline.feed(self._next(), media)
        self._append(output.segments)
        if any(isinstance(frame, Pixels) for frame in media) and not output.held.samples:
            self._end_sound()  # where it waited, the frames have let it out

    def image(self, pixels: np.ndarray) -> None:
        self._append(self.timeline.image(self._next(), pixels).segments, pixels)
        self._end_sound()

    def text(self, words: str) -> None:
        segments = self._flush()
        self.rig.core.text(self.stream, self.seq, words, segments)
        self._flushed(segments)
        self.story.text(words)
        self.rig.deliver()

    def ask(self, words: str = "", **params: Any) -> None:
        segments = self._flush()
        sampling = SamplingParams(**{"max_tokens": 16, "hold": True, **params})
        self.rig.core.ask(self.stream, self.seq, words, sampling, segments)
        self._flushed(segments)
        self.story.ask(words)
        self.rig.deliver()

    def end(self) -> None:
        """No more media will come."""
        segments = self._flush()
        self.rig.core.end(self.stream, self.seq, segments)
        self._flushed(segments)
        self.story.finish()
        self.rig.deliver()

    def interrupt(self, at: int | None = None) -> None:
        """Cut the running reply behind its token `at`."""
        self.rig.core.scheduler.apply(Interrupt(self.stream, at=at))
        if self.story.replying:
            self.story.cut(len(self.story.places) if at is None else at + 1)
        self.rig.deliver()

    def close(self) -> None:
        self.rig.core.scheduler.apply(Close(self.stream, "closed"))

    # What it is told.

    def take(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Token):
            self.story.token(event.id)
        elif isinstance(event, ReplyDone):
            if event.reason == "stop":
                self.story.go_on()  # a question that goes in where the reply rests ends it
            if self.story.replying and self.story.reply == event.reply:
                self.story.end() if event.tokens == len(self.story.places) else self.story.cut(event.tokens)

    def ids(self, reply: int = 0) -> list[int]:
        """The ids that were told of one reply; 0: the newest."""
        wanted = reply or self.story.reply
        return [event.id for event in self.events if isinstance(event, Token) and event.reply == wanted]

    def ends(self) -> list[tuple[str, int]]:
        """Reason and number of tokens of each reply that has ended."""
        return [(event.reason, event.tokens) for event in self.events if isinstance(event, ReplyDone)]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def transcript(self) -> tuple[list[int], torch.Tensor]:
        """Ids `(n,)` and positions `(3, n)` of what the KV cache holds."""
        rows = self.rig.core.scheduler.transcript(self.stream)
        ids = [id for run in rows for id in run.ids]
        return ids, torch.tensor([[place for run in rows for place in run.positions[axis]] for axis in range(3)])

    # What the reference says.

    def check(self, model: Any, processor: Any) -> int:
        """Compare with a dense forward over the finished sequence. Returns how many tokens were compared."""
        sequence = self.expected(model, processor)
        self.check_places(sequence)
        return self.check_logits(model, sequence)

    def expected(self, model: Any, processor: Any) -> Sequence:
        """The finished sequence, by the reference."""
        return build(model, processor, self.story.told(), positions=cast(Rule, self.request.positions), **self._rate())

    def check_places(self, sequence: Sequence) -> None:
        """Ids and positions of all rows that are fed are the reference's. A piece that may go on is not closed yet."""
        ids, positions = self.transcript()
        laid = self.rig.core.scheduler.streams[self.stream].rows
        expected = len(sequence.ids) - self.story.goes_on
        assert laid == expected, f"expected {expected} rows, got {laid}"
        assert ids == sequence.ids[: len(ids)].tolist()
        assert torch.equal(positions, sequence.positions[:, : len(ids)])

    def check_logits(self, model: Any, sequence: Sequence) -> int:
        """The logits of every sampled token equal those of a dense forward, and it is the likeliest token."""
        dense = forward(model, sequence)
        places = self.story.tokens()
        for place in places:
            row = sequence.marks[place][0]
            token, logits = self.draws[row - 1]
            assert token == int(sequence.ids[row])
            error = float((logits - dense[row - 1]).abs().max())
            largest = float(dense[row - 1].abs().max())  # whose rounding the others have in common
            assert error < max(self.rig.tolerance, ROUNDING * largest), f"row {row}: logits differ by {error}"
            best = dense[row - 1].topk(2)
            if best.values[0] - best.values[1] > self.rig.margin:
                assert token == int(best.indices[0])
        return len(places)

    # How it is done.

    def _rate(self) -> dict[str, float]:
        return {} if self.request.video_fps is None else {"fps": self.request.video_fps}

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    def _show(self, pixels: np.ndarray, time_us: int) -> None:
        if self.request.audio_in_video:
            self.film.frames.append(pixels)
        else:
            self.frames.append((time_us, pixels))
            self.frames.sort(key=lambda frame: frame[0])

    def _hear(self, samples: np.ndarray) -> None:
        run = self.film.sound if self.request.audio_in_video else self.sound_run
        run.samples = np.concatenate([run.samples, samples])

    def _append(self, segments: list[Segment], still: np.ndarray | None = None) -> None:
        self.rig.core.append(self.stream, self.seq, segments)
        self._tell(segments, still)
        self.rig.deliver()

    def _flush(self) -> list[Segment]:
        """What the next input flushes."""
        return self.timeline.flush(self._next()).segments

    def _flushed(self, segments: list[Segment]) -> None:
        self._tell(segments)
        self._end_sound()

    def _end_sound(self) -> None:
        """The next sound begins a run of its own."""
        if self.sound_run.samples.size:
            self.sound_run, self.blocks = Run(), 0

    def _tell(self, segments: list[Segment], still: np.ndarray | None = None) -> None:
        """The story takes as many pieces as came out; what is in them it takes from what was offered."""
        for segment in segments:
            match segment:
                case ImageSegment():
                    assert still is not None
                    self.story.media(Still(still))
                case VideoSegment():
                    count = self.rig.core.loaded.family.spec.temporal_patch
                    taken, self.frames = self.frames[:count], self.frames[count:]
                    taken += [taken[-1]] * (count - len(taken))
                    times_us, pixels = zip(*taken, strict=True)
                    self.story.media(Clip(pixels, tuple(time_us / 1e6 for time_us in times_us)))
                case AudioSegment():
                    self.story.media(Sound(self.sound_run, self.blocks, 1))
                    self.blocks += 1
                case UnitSegment():
                    self.story.media(Units(self.film, self.units, 1))
                    self.units += 1
