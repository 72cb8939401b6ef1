"""Films of scenes and exam papers made of them."""

from __future__ import annotations

import io
from collections import defaultdict

import av
import numpy as np
import pytest
from penstock.demos.brook.draw import Lens, Painter
from penstock.demos.brook.evaluate import Given, constant
from penstock.demos.brook.exam import FOREIGN, HELD_OUT, STRANGE, Examiner, Told, events
from penstock.demos.brook.film import CONTAINERS, FPS, encode
from penstock.demos.brook.narration import opening
from penstock.demos.brook.questions import KINDS
from penstock.demos.brook.sound import RATE, Bank
from penstock.demos.brook.world import SceneMaker, Wish


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.square(one.astype(float) - other.astype(float)).mean())
    return 10 * np.log10(255**2 / max(error, 1e-9))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_film_shows_and_sounds_its_scene(bank: Bank, container: str):
    scene = SceneMaker(np.random.default_rng(5), bank.seconds).scene(Wish(seconds=4.0, sound_gap=0.5))
    file = encode(scene, bank, container)
    painter = Painter(scene, 224)
    with av.open(io.BytesIO(file), "r") as film:
        frames = list(film.decode(video=0))
    assert len(frames) == 4 * FPS
    for number, frame in enumerate(frames):
        assert frame.time == pytest.approx(number / FPS, abs=0.025)  # AAC's lead moves the pictures of an MP4
        assert psnr(frame.to_ndarray(format="rgb24"), painter.picture(number / FPS)) > 24
    with av.open(io.BytesIO(file), "r") as film:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    assert len(heard) / 48_000 == pytest.approx(4.0, abs=0.05)
    track = bank.track(scene)
    assert scene.sounds
    for sound in scene.sounds:
        inside = heard[round(sound.start * 48_000) : round(sound.stop * 48_000)]
        original = track[round(sound.start * RATE) : round(sound.stop * RATE)]
        assert np.sqrt(np.square(inside).mean()) == pytest.approx(np.sqrt(np.square(original).mean()), rel=0.25)


def test_a_camera_takes_the_film_as_it_takes_pictures(bank: Bank):
    scene = SceneMaker(np.random.default_rng(5), bank.seconds).scene(Wish(seconds=1.0))
    film = encode(scene, None, camera=Lens(0.85, (1.0, 1.0, 1.0), 10.0, 50))
    shown = Painter(scene, 224).picture(0.0)
    with av.open(io.BytesIO(film), "r") as opened:
        seen = next(opened.decode(video=0)).to_ndarray(format="rgb24")
    assert psnr(seen, shown) > 15
    assert seen.mean() == pytest.approx(0.85 * shown.mean(), rel=0.05)


def test_a_film_without_a_bank_is_silent(bank: Bank):
    scene = SceneMaker(np.random.default_rng(5), bank.seconds).scene(Wish(seconds=1.0))
    with av.open(io.BytesIO(encode(scene, None)), "r") as film:
        assert not film.streams.audio


@pytest.mark.parametrize("foreign", ["", "texture"])
def test_behind_a_cut_the_whole_picture_is_another(foreign: str):
    maker = SceneMaker(np.random.default_rng(8), {})
    for _ in range(10):
        scene = maker.scene(Wish(sound_gap=0, change_gap=0, cut=1.0, foreign=foreign))
        painter, (cut,) = Painter(scene, 56), scene.cuts
        before, behind, later = (painter.picture(time).astype(int) for time in (cut - 0.01, cut, cut + 0.01))
        assert np.abs(behind - before).any(axis=-1).mean() > 0.9
        assert np.abs(later - behind).any(axis=-1).mean() < 0.1


def test_papers_come_from_their_seed_and_ask_every_kind(bank: Bank):
    papers = list(Examiner(3, bank, 3, held_out=True).papers())
    assert papers == list(Examiner(3, bank, 3, held_out=True).papers())
    others = {paper.scene for paper in Examiner(4, bank, 3, held_out=True).papers()}
    assert not others & {paper.scene for paper in papers}
    asked = [kind for paper in papers for kind, _ in paper.questions]
    for kind in (*KINDS, FOREIGN, STRANGE, HELD_OUT):
        assert asked.count(kind) >= 3


def test_who_always_says_the_same_is_wrong_as_often_as_not(bank: Bank):
    right: dict[str, list[Given]] = defaultdict(list)
    for paper in Examiner(5, bank, 12, held_out=True).papers():
        for kind, question in paper.questions:
            right[kind].append(Given(question.text, question.answer, ""))
    assert set(right) == {*KINDS, FOREIGN, STRANGE, HELD_OUT}
    for kind in set(right) - {"nothing", "unknown", FOREIGN, STRANGE}:
        assert constant(right[kind]) <= 0.5, kind


def test_narration_tells_every_change_and_sound_in_order(bank: Bank):
    for paper in Examiner(4, bank, 1, held_out=False).narrations(20, cut=False):
        told = events(paper.scene, True)
        assert len(told) == len(paper.scene.changes) + len(paper.scene.sounds)
        assert [event.time for event in told] == sorted(event.time for event in told)
        assert not events(paper.scene, False) or paper.scene.changes


def test_of_a_cut_narration_tells_what_is_there_behind_it(bank: Bank):
    papers = list(Examiner(4, bank, 1, held_out=False).narrations(21, cut=True))
    assert sum(bool(paper.scene.foreign) for paper in papers) == 7
    for paper in papers:
        (cut,) = paper.scene.cuts
        told = [event for event in events(paper.scene, False) if event.time == cut]
        assert told == [Told("cut", opening(paper.scene, cut), cut)]
    openings = [opening(paper.scene, time) for paper in papers for time in (0.0, paper.scene.seconds)]
    assert openings.count("I see something I do not know.") == 7
