"""The parts of a profile: a sample counts for the part of its innermost known frame, and not while it waits."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st
from penstock.server.bench import profile as p

HOME, SITE = "/src/penstock/", "/lib/site-packages/"
LOOP, MODEL = 'Thread 1 "MainThread"', 'Thread 2 "penstock-model_0"'
RUN = ("Runner.run", "/lib/asyncio/runners.py")
HANDLE = ("Schedule.handle", HOME + "actors/schedule.py")

# A thread, its stack from the outermost frame on, and the part; None: it waits.
SAMPLES = [
    (LOOP, [RUN], None),
    (LOOP, [RUN, HANDLE], p.ACTORS),
    (LOOP, [RUN, HANDLE, ("Scheduler.plan", HOME + "engine/scheduling/scheduler.py")], p.SCHEDULER),
    (LOOP, [RUN, HANDLE, ("push", HOME + "engine/words/detokenize.py"), ("decode", "/lib/x.py")], p.WORDS),
    (LOOP, [RUN, ("send", HOME + "server/websocket.py"), ("send", SITE + "uvicorn/a.py")], p.SOCKETS),
    (LOOP, [RUN, ("f", "/lib/asyncio/locks.py")], p.OTHER),
    (MODEL, [("LanguageModel.run", HOME + "engine/runner/language.py"), ("forward", SITE + "torch/nn.py")], p.STEP),
    (MODEL, [("forward", SITE + "torch/nn.py")], p.TOWERS),
    (MODEL, [("_worker", "/lib/concurrent/futures/thread.py")], None),
    ('Thread 3 "penstock-decode_1"', [("load", SITE + "PIL/Image.py")], p.MEDIA),
    ('Thread 4 "penstock-encode_0"', [("Condition.wait", "/lib/threading.py")], None),
    ('Thread 5 "penstock-words_0"', [("encode", SITE + "tokenizers.py")], p.WORDS),
]


@given(st.lists(st.tuples(st.sampled_from(SAMPLES), st.integers(1, 9))))
def test_the_parts_of_samples(taken: list[tuple[tuple[str, list[tuple[str, str]], str | None], int]]) -> None:
    frames = sorted({frame for _, stack, _ in SAMPLES for frame in stack})
    names = {name for name, _, _ in SAMPLES}
    threads = {name: [(stack, weight) for (of, stack, _), weight in taken if of == name] for name in names}
    profiles = [
        {
            "name": name,
            "samples": [[frames.index(frame) for frame in stack] for stack, _ in samples],
            "weights": [weight / 100 for _, weight in samples],
        }
        for name, samples in threads.items()
    ]
    shared = {"frames": [{"name": name, "file": file} for name, file in frames]}
    found = p.read(json.dumps({"shared": shared, "profiles": profiles}).encode())
    for parts, is_loop in ((found.loop, True), (found.others, False)):
        wanted: dict[str, int] = {}
        for (thread, _, part), weight in taken:
            if part is not None and (thread == LOOP) == is_loop:
                wanted[part] = wanted.get(part, 0) + weight
        assert {part: round(seconds * 100) for part, seconds in parts.items()} == wanted


@given(st.lists(st.floats(0, 9), min_size=len(p.PARTS), max_size=len(p.PARTS)), st.floats(0, 99))
def test_the_thread_of_the_event_loop_takes_its_processor_time(seconds: list[float], loop_s: float) -> None:
    loop = dict(zip(p.PARTS, seconds, strict=True)) | {p.LOOP: 0.0}
    parts = p.Profile(loop, {p.STEP: 2.0}, b"").parts(loop_s)
    assert math.isclose(sum(parts.values()) - 2.0, loop_s, abs_tol=1e-9) or not any(loop.values())
    assert all(parts[part] - 2.0 * (part == p.STEP) <= loop[part] + 1e-9 for part in p.PARTS if part != p.LOOP)
