"""Listening: where speech starts and stops, what of the sound goes on, and that no cut changes it."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.frame import Samples
from penstock.codecs.resample import Resampler
from penstock.codecs.silero import SileroDetector, weights_file
from penstock.codecs.smart_turn import can_run, installed_file
from penstock.demos.brook.sound import RATE
from penstock.errors import InputError
from penstock.streams.event import SpeechStarted, SpeechStopped
from penstock.streams.listening import detectors
from penstock.streams.listening.ear import Ear, Heard
from penstock.streams.listening.energy import EnergyDetector
from penstock.streams.requests.turns import TurnDetection

from tests.streams.spoken import clicks, music, noise, rumble, silence, words

QUESTION = "what is the colour of the sky"
DETECTORS = ("silero", "energy")


def ear(name: str = "energy", ends: detectors.Ends | None = None, **ways: Any) -> Ear:
    return Ear(TurnDetection(detector=name, **ways), detectors.find(name), ends, RATE, Resampler, passes=False)


def heard(sound: np.ndarray, ears: Ear, cuts: Sequence[int] = (), asked: bool = False, rate: int = RATE) -> list[Heard]:
    """All that the ear gives for the sound, cut at these samples, and at its end."""
    edges = sorted({0, len(sound), *(cut for cut in cuts if cut < len(sound))})
    given: list[Heard] = []
    for start, stop in zip(edges, edges[1:], strict=False):
        piece = Samples(sound[None, start:stop], rate, start * 1_000_000 // rate)
        given += ears.hear(1, piece, asked)
    return given + ears.end(1, "end")


def spans(given: list[Heard]) -> list[tuple[float, float]]:
    """When speech started and stopped, in seconds."""
    starts = [event.at_us / 1e6 for event in given if isinstance(event, SpeechStarted)]
    stops = [event.at_us / 1e6 for event in given if isinstance(event, SpeechStopped)]
    return list(zip(starts, stops, strict=True))


def told(given: list[Heard], ears: Ear) -> tuple[list[object], bytes, list[object]]:
    """What cuts may not change: the events, the sound that went on, and what was lost."""
    sound = [piece.samples for piece in given if isinstance(piece, Samples)]
    return (
        [event for event in given if not isinstance(event, Samples)],
        np.concatenate(sound, 1).tobytes() if sound else b"",
        list(ears.lost),
    )


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("level", [0.0, 0.002, 0.01])
def test_speech_is_found_where_it_is(name: str, level: float) -> None:
    """Of two sentences in noise of several levels (silence, 35 and 20 dB under the words, about): the start within
    200 ms, with its prefix before it, and the stop within 100 ms of the silence that ends it."""
    said = words(QUESTION)
    sound = np.concatenate([silence(1), said, silence(1.5), said, silence(1.5)])
    sound = sound + noise(len(sound) / RATE, level)[: len(sound)]
    length = len(said) / RATE
    found = spans(heard(sound, ear(name, prefix_ms=300, silence_ms=500)))
    for (start, stop), begin in zip(found, (1, 2.5 + length), strict=True):
        assert abs(start + 0.3 - begin) < 0.2
        assert -0.1 < stop - (begin + length) - 0.5 < 0.1


@pytest.mark.parametrize("level", [0.03, 0.1])
def test_silero_hears_through_loud_noise(level: float) -> None:
    """10 dB and none between the words and the noise."""
    said = words(QUESTION)
    sound = np.concatenate([silence(1), said, silence(2)])
    ((start, stop),) = spans(heard(sound + noise(len(sound) / RATE, level)[: len(sound)], ear("silero")))
    assert abs(start + 0.3 - 1) < 0.2 and abs(stop - 1 - len(said) / RATE - 0.5) < 0.4


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize(
    "sound", [silence(5), noise(5, 0.01), noise(5, 0.3), clicks(5)], ids=["silence", "quiet", "loud", "clicks"]
)
def test_nobody_speaks_in_noise(name: str, sound: np.ndarray) -> None:
    assert not spans(heard(sound, ear(name)))


def test_music_is_speech_for_energy_alone() -> None:
    assert spans(heard(music(5), ear("energy")))
    assert not spans(heard(rumble(5, 0.3), ear("energy")))
    assert not spans(heard(music(5), ear("silero"))) and not spans(heard(rumble(5, 0.3), ear("silero")))


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("said", ["hmm", "uh huh"])
def test_a_hum_is_speech_only_while_nobody_else_speaks(name: str, said: str) -> None:
    sound = np.concatenate([silence(1), words(said), silence(1)])
    assert len(spans(heard(sound, ear(name)))) == 1
    assert not spans(heard(sound, ear(name), asked=True))
    sentence = np.concatenate([silence(1), words(QUESTION), silence(1)])
    assert len(spans(heard(sentence, ear(name), asked=True))) == 1


def test_what_goes_on_and_what_is_lost_are_all_of_the_sound() -> None:
    said = words(QUESTION)
    sound = np.concatenate([silence(2), said, silence(13), said, silence(2)])
    listening = ear(prefix_ms=300)
    given = heard(sound, listening, range(0, len(sound), 1600))
    sounds = [piece for piece in given if isinstance(piece, Samples)]
    pieces = [(piece.pts_us, piece.pts_us + piece.samples.shape[1] * 125 // 2) for piece in sounds]
    lost = [(loss.start_us, loss.stop_us) for loss in listening.lost]
    edges = sorted([*pieces, *lost])
    assert edges[0][0] == 0 and edges[-1][1] == len(sound) * 125 // 2
    assert all(abs(first[1] - second[0]) <= 1 for first, second in zip(edges, edges[1:], strict=False))
    assert all(loss.reason == "silence" for loss in listening.lost)
    assert [round((stop - start) / 1e6, 1) for start, stop in lost][1] == 10.0  # a long pause is told as it lasts
    for start, stop in spans(given):
        assert any(piece[0] == round(start * 1e6) for piece in pieces)
        assert any(piece[1] == round(stop * 1e6) for piece in pieces)


@given(st.lists(st.integers(1, 90_000), max_size=12), st.sampled_from([16_000, 24_000, 8_000]))
def test_cuts_change_nothing(cuts: list[int], rate: int) -> None:
    said = words(QUESTION)
    sound = np.concatenate([silence(0.7), said, silence(1), said[:12_000], silence(1)])
    whole, cut = ear(), ear()
    assert told(heard(sound, whole, rate=rate), whole) == told(heard(sound, cut, cuts, rate=rate), cut)


def test_where_sound_breaks_off_speech_stops_unless_the_break_is_shorter_than_a_pause() -> None:
    said = words(QUESTION)

    def stops(gap_us: int) -> list[str]:
        listening = ear()
        given = listening.hear(1, Samples(said[None], RATE, 0), False)
        later = len(said) * 125 // 2 + gap_us
        given += listening.hear(2, Samples(said[None], RATE, later), False) + listening.end(3, "end")
        return [event.reason for event in given if isinstance(event, SpeechStopped)]

    assert stops(300_000) == ["end"] and stops(900_000) == ["gap", "end"] and stops(-900_000) == ["gap", "end"]


def test_nobody_has_spoken_for_long_is_told_once() -> None:
    given = heard(np.concatenate([silence(3), words(QUESTION), silence(4)]), ear(idle_ms=1000))
    stopped = [event for event in given if isinstance(event, SpeechStopped)]
    assert [event.reason for event in stopped] == ["idle", "silence", "idle"]
    assert [event.turn for event in stopped] == [1, 2, 3] and stopped[0].at_us == 1_024_000
    assert not spans(heard(silence(3), ear(idle_ms=1000), asked=True))
    quiet = heard(silence(3), ear(idle_ms=1000, respond=False))
    assert [event.reason for event in quiet if isinstance(event, SpeechStopped)] == ["idle"]
    sounds = [piece for piece in quiet if isinstance(piece, Samples)]
    assert sum(piece.samples.shape[1] for piece in sounds) == 16 * ear().turns.idle_sound_ms


class Finishes:
    """Says that somebody has finished once it has been asked so often; keeps how long what it was asked about was."""

    def __init__(self, after: int) -> None:
        self.after, self.lengths = after, list[int]()

    def finished(self, sound: np.ndarray) -> float:
        self.lengths.append(len(sound))
        return float(len(self.lengths) > self.after)

    def load(self) -> None:
        pass


@pytest.mark.parametrize(
    ("after", "reason", "waits_us"), [(0, "finished", 256_000), (2, "finished", 1_280_000), (99, "silence", 2_016_000)]
)
def test_who_has_not_finished_may_pause(after: int, reason: str, waits_us: int) -> None:
    """The model is asked after a quarter of a second and twice again; then the longest wait ends it."""
    said, ends = words(QUESTION), Finishes(after)
    given = heard(np.concatenate([silence(1), said, silence(3)]), ear(ends=ends, semantic="high"))
    (stopped,) = (event for event in given if isinstance(event, SpeechStopped))
    assert stopped.reason == reason and abs(stopped.at_us - waits_us - 1_000_000 - len(said) * 125 // 2) < 40_000
    assert len(ends.lengths) == min(after + 1, 3) and abs(ends.lengths[0] - len(said) - 0.556 * RATE) < 0.05 * RATE


@pytest.mark.slow
def test_smart_turn_hears_who_has_finished() -> None:
    """With onnxruntime and the weights of pipecat-ai; $PENSTOCK_TURN_MODEL names another file of them."""
    file = os.environ.get("PENSTOCK_TURN_MODEL") or installed_file()
    if file is None or not can_run():
        pytest.skip("onnxruntime or the weights of smart-turn v3 are not installed")
    turns = TurnDetection(detector="energy", semantic="auto")
    ends = detectors.find_ends(turns, file)
    for said, reason in (("what is the colour of the sky", "finished"), ("I went to the shop and then I", "silence")):
        given = heard(np.concatenate([silence(1), words(said), silence(5)]), ear(ends=ends, semantic="auto"))
        assert [event.reason for event in given if isinstance(event, SpeechStopped)] == [reason]


def test_silero_in_numpy_is_silero() -> None:
    assert weights_file() is not None, "expected the package silero-vad, which the tests install"
    import torch
    from silero_vad import load_silero_vad

    model: Any = load_silero_vad()
    mine, memory = SileroDetector(), None
    sound = np.concatenate([silence(0.3), words(QUESTION), noise(0.5, 0.1)])
    for start in range(0, len(sound) - 511, 512):
        window = sound[start : start + 512]
        likely, memory = mine.hear(window, memory)
        with torch.inference_mode():
            assert abs(likely - float(model(torch.from_numpy(window), RATE))) < 1e-4


def test_a_detector_that_is_not_installed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "weights_file", lambda: None)
    with pytest.raises(InputError, match=r'pip install "penstock\[vad\]"'):
        detectors.check_installed(TurnDetection(detector="silero"), None)
    monkeypatch.setattr(detectors, "can_run", lambda: False)
    with pytest.raises(InputError, match=r'pip install "penstock\[turn\]"'):
        detectors.check_installed(TurnDetection(detector="energy", semantic="low"), "file")
    monkeypatch.setattr(detectors, "can_run", lambda: True)
    with pytest.raises(InputError, match="--turn-model FILE"):
        detectors.check_installed(TurnDetection(detector="energy", semantic="low"), None)
    assert detectors.find.__wrapped__("auto").name == "energy" == EnergyDetector.name


def test_a_copy_hears_with_the_same_detectors() -> None:
    """They keep nothing between calls, and a model that is loaded cannot be copied."""

    class Loaded:
        def __init__(self) -> None:
            self.session = threading.Lock()

        def finished(self, sound: np.ndarray) -> float:
            return 0.0

        def load(self) -> None:
            pass

    first = ear(ends=Loaded())
    heard(words(QUESTION), first)
    twin = copy.deepcopy(first)
    assert twin._detector is first._detector and twin._ends is first._ends
    assert heard(silence(2), twin) == heard(silence(2), first)
