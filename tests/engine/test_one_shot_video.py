"""A clip in a whole prompt, by whatever door it came: as many rows, at the same places, as the same clip in a stream,
and the words for its times that the library lays when it is told them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.actors.intake import Intake
from penstock.codecs.decoders import Decoders
from penstock.codecs.limits import MediaLimits
from penstock.engine.command import Close
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.span import Rows
from penstock.streams.item import Item, VideoBytes, VideoFrame
from penstock.streams.requests.prompt import Media, gather
from penstock.streams.requests.request import Request
from penstock.streams.requests.whole import decoded
from PIL import Image
from transformers import AutoProcessor
from transformers.video_utils import VideoMetadata

from tests.fixtures.recipe import model_path
from tests.reference.media import frames

MS = 1000
QUESTION = {"type": "text", "text": "Well?"}
streams = count(3_000_000)  # no other test opens these


def film(times_ms: list[int], sound: tuple[float, float] | None = None, shape: tuple[int, int] = (56, 84)) -> bytes:
    """A WebM with a frame at each of the times, and sound in the stretch that is named, in seconds."""
    file = io.BytesIO()
    pictures = frames(7, len(times_ms), *shape)
    with av.open(file, "w", format="matroska") as output:
        video: Any = output.add_stream("libvpx", rate=10)
        video.height, video.width, video.pix_fmt = *shape, "yuv420p"
        video.codec_context.time_base = Fraction(1, MS)
        heard: Any = output.add_stream("pcm_s16le", rate=16_000, layout="mono") if sound else None
        for time, pixels in zip(times_ms, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, MS)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound:
            for start in np.arange(sound[0], sound[1], 0.1):
                wave = np.full((1, 1600), 8000, np.int16)
                block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = 16_000, round(start * 16_000), Fraction(1, 16_000)
                output.mux(heard.encode(block))
            output.mux(heard.encode(None))
    return file.getvalue()


def in_one_shot(loaded: Loaded, value: Any, **request: Any) -> list[Rows]:
    """The rows of a prompt that holds the clip."""
    content = [{"type": "video", "video": value}, QUESTION]
    asked = Request(messages=[{"role": "user", "content": content}], **request)
    limits = MediaLimits()
    whole = decoded(gather(asked, limits), Decoders(limits, None), loaded.family.spec)
    return loaded.towers.prompt(whole).rows


def in_a_stream(loaded: Loaded, items: list[Item], **request: Any) -> list[Rows]:
    """The rows of a stream to which the clip was appended, then a question."""
    asked = Request(positions="transformers", format="turns", **request)
    core, stream = Core(loaded, EngineConfig(kv_tokens=4096, backend="cpu")), next(streams)
    core.open(stream, asked)
    intake = Intake(loaded.family.spec, asked, Decoders(MediaLimits(), None))
    for seq, item in enumerate(items, 1):
        core.append(stream, seq, [segment for output in intake.take(seq, item) for segment in output.segments])
    core.ask(stream, len(items) + 1, "Well?", flushed=intake.flush(len(items) + 1).segments)
    laid = list(core.scheduler.streams[stream].laid)
    core.scheduler.apply(Close(stream, "closed"))
    intake.close()
    return laid


def places(rows: list[Rows]) -> tuple[list[int], np.ndarray]:
    """Ids and positions from the first row of media to the last; positions count from the first of these rows."""
    media = [place for place, run in enumerate(rows) if run.stored is not None or run.seen is not None]
    runs = rows[media[0] : media[-1] + 1]
    positions = np.concatenate([run.positions for run in runs], axis=1)
    return np.concatenate([run.ids for run in runs]).tolist(), positions - positions[:, :1]


def assert_same_places(one_shot: list[Rows], streamed: list[Rows]) -> None:
    (ids, positions), (expected_ids, expected) = places(one_shot), places(streamed)
    assert ids == expected_ids
    np.testing.assert_array_equal(positions, expected)


DOORS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda clip: clip,
    "list": list,
    "PIL": lambda clip: [Image.fromarray(pixels) for pixels in clip],
}
RATES = st.sampled_from([None, 0.5, 1.0, 2.0, 3.0])


def frames_have_the_places_of_a_stream(loaded: Loaded, number: int, fps: float | None, door: str) -> None:
    """`number` frames at `fps`; of a rate at which the model has no positions there is nothing to say."""
    spec = loaded.family.spec
    if loaded.family.data.clock == "whole" and fps not in (None, 1.0, 2.0):
        return
    clip = frames(5, number)
    asked: dict[str, Any] = {"video_fps": fps}
    shown = [VideoFrame(pixels, round(index * 1e6 / (fps or spec.video_fps))) for index, pixels in enumerate(clip)]
    assert_same_places(
        in_one_shot(loaded, DOORS[door](clip), **asked),
        in_a_stream(loaded, list(shown), expected_frames=number, **asked),
    )


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@given(st.integers(1, 9), RATES, st.sampled_from(list(DOORS)))
def test_frames_of_omni(omni_loaded: Loaded, number: int, fps: float | None, door: str) -> None:
    frames_have_the_places_of_a_stream(omni_loaded, number, fps, door)


@given(st.integers(1, 9), RATES, st.sampled_from(list(DOORS)))
def test_frames_of_models_that_see(sight_served: Loaded, number: int, fps: float | None, door: str) -> None:
    frames_have_the_places_of_a_stream(sight_served, number, fps, door)


@given(st.integers(1, 9), RATES, st.sampled_from(list(DOORS)))
def test_frames_of_models_of_one_axis(still_served: Loaded, number: int, fps: float | None, door: str) -> None:
    if "video" in still_served.family.modalities:
        frames_have_the_places_of_a_stream(still_served, number, fps, door)


# Ten frames a second; a camera that stutters; a still source; a gap behind which the ticks start again.
FILMS = {
    "even": list(range(0, 3000, 100)),
    "stuttering": [0, 230, 480, 790, 1010, 1490, 1500, 2620, 2700],
    "slow": [0, 1500, 3000, 4500],
    "late": [1200, 1700, 2200, 2700],
    "torn": [0, 500, 1000, 14_000, 14_500, 15_000, 15_500],
}


def files_have_the_places_of_a_stream(loaded: Loaded, name: str, fps: float | None, **asked: Any) -> None:
    data = film(FILMS[name])
    streamed = in_a_stream(loaded, [VideoBytes(data, final=True)], video_fps=fps, **asked)
    assert_same_places(in_one_shot(loaded, data, video_fps=fps, **asked), streamed)


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@pytest.mark.parametrize("name", FILMS)
def test_files_of_omni(omni_loaded: Loaded, name: str) -> None:
    files_have_the_places_of_a_stream(omni_loaded, name, None)


@pytest.mark.parametrize("name", FILMS)
def test_files_of_models_that_see(sight_served: Loaded, name: str) -> None:
    files_have_the_places_of_a_stream(sight_served, name, 2.0)


@pytest.mark.parametrize("name", FILMS)
def test_files_of_models_of_one_axis(still_served: Loaded, name: str) -> None:
    if "video" in still_served.family.modalities:
        files_have_the_places_of_a_stream(still_served, name, 2.0)


def test_every_door_for_a_file_is_one(omni_loaded: Loaded, tmp_path: Path) -> None:
    data = film(FILMS["stuttering"])
    path = tmp_path / "film.webm"
    path.write_bytes(data)
    expected = in_one_shot(omni_loaded, data)
    for value in (path, "data:video/webm;base64," + base64.b64encode(data).decode(), VideoBytes(data, final=True)):
        assert_same_places(in_one_shot(omni_loaded, value), expected)


def test_sound_inside_has_the_places_of_a_stream(omni_loaded: Loaded) -> None:
    data = film(FILMS["even"], sound=(0.0, 3.0))
    streamed = in_a_stream(omni_loaded, [VideoBytes(data, final=True)], audio_in_video=True)
    assert_same_places(in_one_shot(omni_loaded, data, audio_in_video=True), streamed)


def test_pictures_and_sound_take_turns_as_the_model_has_learnt() -> None:
    """Brook counts 12 positions a second and takes turns each second; its processor knows of neither. Its tower makes
    one row more of three seconds than of each second by itself."""
    data = film(FILMS["even"], sound=(0.0, 3.0), shape=(112, 112))
    ids, positions = places(in_one_shot(brook(), data, audio_in_video=True))
    streamed = places(in_a_stream(brook(), [VideoBytes(data, final=True)], audio_in_video=True))
    assert ids[:-1] == streamed[0]
    np.testing.assert_array_equal(positions[:, :-1], streamed[1])


def test_brook_sees_a_clip_as_large_as_in_a_stream() -> None:
    for shape in ((112, 112), (224, 224), (360, 640), (64, 48)):
        data = film(FILMS["slow"], shape=shape)
        assert_same_places(in_one_shot(brook(), data), in_a_stream(brook(), [VideoBytes(data, final=True)]))


@cache
def brook() -> Loaded:
    return load(None, EngineConfig())


def test_sound_that_begins_late_stands_late(omni_loaded: Loaded) -> None:
    """The same rows as for a sound that begins with silence."""
    late = film(FILMS["even"], sound=(1.2, 3.0))
    content = [{"type": "video", "video": late}, QUESTION]
    asked = Request(messages=[{"role": "user", "content": content}], audio_in_video=True)
    limits = MediaLimits()
    whole = decoded(gather(asked, limits), Decoders(limits, None), omni_loaded.family.spec)
    video, sound = whole.media
    assert isinstance(video, Media) and isinstance(sound, Media)
    assert len(sound.data) == 48_000 and not sound.data[:19_200].any() and sound.data[19_200:].all()
    on_time = in_one_shot(omni_loaded, film(FILMS["even"], sound=(0.0, 3.0)), audio_in_video=True)
    assert_same_places(omni_loaded.towers.prompt(whole).rows, on_time)


def taken(times_ms: list[int], fps: float) -> list[int]:
    """The times of the frames that stand nearest to the ticks of `fps` from the first frame on; the last frame lasts as
    long as the one before it, and stands for no tick more than half an interval behind it."""
    stop = min(2 * times_ms[-1] - times_ms[-2] - 2, times_ms[-1] + MS / fps / 2 + 1)
    ticks = np.arange(times_ms[0], stop, MS / fps)
    return [min(times_ms, key=lambda time: (abs(time - tick), time)) for tick in ticks]


@pytest.mark.parametrize("name", ["even", "stuttering", "slow", "late"])
@pytest.mark.parametrize("model", ["qwen3_vl", "smolvlm"])
def test_the_words_for_times_are_the_librarys(request: pytest.FixtureRequest, model: str, name: str) -> None:
    """Two models are told the time of each frame in words."""
    processor, times = AutoProcessor.from_pretrained(model_path(model)), taken(FILMS[name], 2.0)
    stop = 2 * FILMS[name][-1] - FILMS[name][-2]
    known = VideoMetadata(stop, fps=MS, duration=stop / MS, frames_indices=list(times))
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "video", "video": "x"}, QUESTION]}], add_generation_prompt=True
    )
    clip = np.zeros((len(times), 56, 84, 3), np.uint8)
    nested = model == "smolvlm"
    begun = text.startswith(processor.tokenizer.bos_token or "-")
    theirs = processor(
        text=[text],
        videos=[[clip]] if nested else [clip],
        video_metadata=[[known]] if nested else [known],
        do_sample_frames=False,
        add_special_tokens=not begun,
        return_tensors="pt",
    )["input_ids"][0]
    rows = in_one_shot(load(model_path(model), EngineConfig()), film(FILMS[name]), video_fps=2.0)
    assert np.concatenate([run.ids for run in rows]).tolist() == theirs.tolist()
