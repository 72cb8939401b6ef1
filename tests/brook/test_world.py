"""Laws of Brook's world, over seeds that hypothesis draws."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from penstock.demos.brook.world import COLOURS, SHAPES, WORDS, Scene, SceneMaker, Thing, Wish, any_held_out, is_held_out

seeds = st.integers(0, 2**32 - 1)
cuts = st.sampled_from((0.0, 1.0))
WORD_SECONDS = {word: [0.3, 0.45, 0.6] for word in (*WORDS, "other")}


def scene(seed: int, **wish: object) -> Scene:
    return SceneMaker(np.random.default_rng(seed), WORD_SECONDS).scene(Wish(seconds=12.0, **wish))  # pyright: ignore


def field(thing: Thing) -> int:
    return min(int(thing.y * 3), 2) * 3 + min(int(thing.x * 3), 2)


@given(seeds)
def test_a_seed_gives_one_scene(seed: int):
    assert scene(seed) == scene(seed)


@given(seeds, cuts)
def test_training_never_shows_what_is_held_out(seed: int, cut: float):
    script = scene(seed, cut=cut)
    for time in np.arange(0, script.seconds, 0.1):
        assert not any_held_out(script.settled(float(time)))


@given(seeds)
def test_held_out_scenes_start_with_something_held_out(seed: int):
    assert any_held_out(scene(seed, held_out="start").settled(0.0))


def test_held_out_combinations_leave_every_shape_and_colour_to_training():
    for shape in SHAPES:
        assert not all(is_held_out(shape, colour, 1) for colour in COLOURS)
    for colour in COLOURS:
        assert not all(is_held_out(shape, colour, 1) for shape in SHAPES)
    pairs = [(s, c) for s in SHAPES for c in COLOURS if all(is_held_out(s, c, number) for number in range(1, 5))]
    assert len(pairs) == 4


@given(seeds, cuts)
def test_things_stand_in_their_places_and_apart(seed: int, cut: float):
    script = scene(seed, cut=cut)
    for time in np.arange(0, script.seconds, 0.25):
        things = script.settled(float(time))
        assert len({thing.place for thing in things}) == len(things)
        for thing in things:
            assert field(thing) == thing.place
        for number, thing in enumerate(things):
            for other in things[:number]:
                assert np.hypot(thing.x - other.x, thing.y - other.y) > thing.radius + other.radius


@given(seeds, cuts)
def test_between_changes_what_is_there_is_what_has_become(seed: int, cut: float):
    script = scene(seed, cut=cut)
    for time in np.arange(0, script.seconds, 0.1):
        if all(not change.start <= time <= change.stop for change in script.changes):
            assert sorted(script.at(float(time))) == sorted(script.settled(float(time)))


@given(seeds, st.floats(0.5, 4.0))
def test_a_cut_leaves_time_before_and_behind_it(seed: int, seconds: float):
    script = SceneMaker(np.random.default_rng(seed), WORD_SECONDS).scene(Wish(seconds=seconds, cut=1.0))
    assert len(script.cuts) == (seconds - 1.2 >= 1.0)
    assert all(1.0 <= cut <= seconds - 1.2 for cut in script.cuts)


@given(seeds)
@example(seed=147)  # a long move that would last beyond the cut
def test_behind_a_cut_everything_is_new(seed: int):
    script = scene(seed, cut=1.0)
    (cut,) = script.cuts
    before, after = script.settled(cut - 0.001), script.settled(cut)
    assert {thing.name for thing in before}.isdisjoint(thing.name for thing in after)
    assert {thing.number for thing in before}.isdisjoint(thing.number for thing in script.settled(script.seconds))
    assert all(change.stop < cut - 0.1 or change.start >= cut for change in script.changes)


@given(seeds)
def test_changes_and_sounds_do_not_overlap(seed: int):
    script = scene(seed, sound_gap=0.6)
    for before, after in zip(script.changes, script.changes[1:], strict=False):
        assert after.start - before.stop >= 0.9
    for before, after in zip(script.sounds, script.sounds[1:], strict=False):
        assert after.start - before.stop > 0.2
    assert all(0 < sound.start < sound.stop < script.seconds for sound in script.sounds)


@settings(max_examples=20)
@given(seeds, st.sampled_from([0.0, 0.5]))
def test_a_change_does_what_it_says(seed: int, again: float):
    script = scene(seed, change_gap=1.2, again=again)
    for change in script.changes:
        before = {thing.number: thing for thing in script.settled(change.start - 0.05)}
        after = {thing.number: thing for thing in script.settled(change.stop + 0.05)}
        number = change.after.number
        match change.kind:
            case "came":
                assert number not in before and number in after
            case "left":
                assert number in before and number not in after
            case "turned":
                assert before[number].colour != after[number].colour
                assert before[number].place == after[number].place
            case "moved":
                across = after[number].place % 3 - before[number].place % 3
                down = after[number].place // 3 - before[number].place // 3
                ways = {"left": across < 0, "right": across > 0, "up": down < 0, "down": down > 0}
                assert ways[change.way] and (across == 0 or down == 0)


@given(seeds)
def test_what_shall_happen_again_happens_to_the_same_thing(seed: int):
    script = scene(seed, change_gap=1.2, again=1.0)
    for before, after in pairwise(script.changes):
        if before.kind in ("moved", "turned"):
            assert (after.kind, after.after.number) == (before.kind, before.after.number)
