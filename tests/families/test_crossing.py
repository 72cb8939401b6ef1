"""Whisper and Llama 3.2 Vision: words read media by cross-attention, whose keys and values lie in pages of the stream.
A prompt is what `generate` makes of it, in whatever pieces and company it is computed."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers as hf
from penstock.actors.engine import Engine
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.embeddings import EncodedPrompt
from penstock.engine.families.prompt import process
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.loading.worst import measured, worst_case
from penstock.engine.runner.attention import ReferenceBackend
from penstock.engine.runner.crossing import packed
from penstock.errors import InputError
from penstock.streams.event import Token
from penstock.streams.item import AudioChunk, Embedding, Image, Text
from penstock.streams.requests.prompt import Content, Media, Piece
from penstock.streams.requests.request import Request, SamplingParams

from tests.engine.rig import TOLERANCE
from tests.engine.test_oracle1 import REPLY, assert_equal, generated, said, turn
from tests.families.crossing import mllama, whisper
from tests.families.suite import Tried
from tests.families.test_whole_prompts import Prompts, each_alone
from tests.fixtures.adapters import merge, write_adapter
from tests.reference.media import picture, sound

# transformers 5.17 warns of a name that it uses itself.
pytestmark = pytest.mark.filterwarnings("ignore:`hidden_state` is deprecated:FutureWarning")
RATE = 16_000
GREEDY = SamplingParams(max_tokens=REPLY)
WIDE, TALL, SMALL = picture(1, 60, 130), picture(2, 130, 50), picture(3, 40, 40)
SHORT, LONG = sound(5, 0.7), sound(6, 1.9)
TURNS: dict[str, list[dict[str, Any]]] = {
    "words": [turn("What do you see?")],
    "a picture": [turn(("image", WIDE), "What do you see?")],
    "words before it": [turn("What do you see?", ("image", SMALL))],
    "side by side": [turn(("image", SMALL), ("image", WIDE), ("image", TALL), "What do you see?")],
    "apart": [turn("One", ("image", TALL), "two", ("image", SMALL), "and?")],
    "two turns": [turn(("image", WIDE), "Well?"), said("A red door."), turn("Who came in?")],
    "pictures in two turns": [turn(("image", WIDE), "Well?"), said("A door."), turn(("image", SMALL), "And now?")],
}
ASKS: dict[str, dict[str, Any]] = {
    "transcribe german": {"language": "de", "task": "transcribe"},
    "Transcribe.": {"task": "transcribe"},
    "": {"task": "transcribe"},
    "translate fr": {"language": "fr", "task": "translate"},
}


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Any]:
    folder = mllama(tmp_path_factory.mktemp("mllama"))
    model = hf.MllamaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return load(folder, EngineConfig()), model.eval()


@pytest.fixture(scope="module")
def hears(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Any, Any]:
    return heard(whisper(tmp_path_factory.mktemp("whisper")))


def heard(folder: Path) -> tuple[Loaded, Any, Any]:
    """The engine's, the library's model, and its processor."""
    make = hf.WhisperForConditionalGeneration
    model = make.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return load(folder, EngineConfig()), model.eval(), hf.AutoProcessor.from_pretrained(folder)


def by_library(model: Any, inputs: Any, **more: Any) -> tuple[list[int], torch.Tensor]:
    """Ids and logits of `generate`."""
    ways: dict[str, Any] = {"max_new_tokens": REPLY, "return_dict_in_generate": True, "output_logits": True}
    result = model.generate(**inputs, **ways, do_sample=False, **more)
    return result.sequences[0, -len(result.logits) :].tolist(), torch.cat(result.logits)


def seen_by(loaded: Loaded, model: Any, messages: list[dict[str, Any]]) -> tuple[list[int], torch.Tensor]:
    parts = [part for message in messages for part in message["content"]]
    media: list[Piece] = [Media("image", part["image"]) for part in parts if part["type"] == "image"]
    plain = [
        {**one, "content": [{"type": "image", "image": "x"} if part["type"] == "image" else part
                            for part in one["content"]]}
        for one in messages
    ]  # fmt: skip
    towers: Any = loaded.towers
    return by_library(model, process(towers, Content(media, messages=plain, video_fps=1.0)))


def transcribed(hears: tuple[Loaded, Any, Any], samples: np.ndarray, **asks: Any) -> tuple[list[int], torch.Tensor]:
    """By the library; its logits without what it shuts out, as ours are."""
    _, model, processor = hears
    features = processor(audio=samples, sampling_rate=RATE, return_tensors="pt").input_features
    ids, logits = by_library(model, {"input_features": features}, **asks)
    logits[:, model.generation_config.suppress_tokens] = torch.finfo(logits.dtype).min
    return ids, logits


@pytest.mark.parametrize("case", TURNS)
def test_a_prompt_with_pictures_equals_generate(case: str, sees: tuple[Loaded, Any]) -> None:
    loaded, model = sees
    request = Request(messages=TURNS[case], params=GREEDY)
    assert_equal(generated(loaded, request), seen_by(loaded, model, TURNS[case]))


@pytest.mark.parametrize("words", ASKS)
def test_a_sound_equals_generate(words: str, hears: tuple[Loaded, Any, Any]) -> None:
    for samples in (SHORT, LONG):
        request = Request(messages=[turn(("audio", samples), words)], params=GREEDY)
        assert_equal(generated(hears[0], request), transcribed(hears, samples, **ASKS[words]))


def test_words_of_the_sound_come_before(hears: tuple[Loaded, Any, Any]) -> None:
    """Of many of them the last, as the library's own window has it."""
    loaded, model, processor = hears
    for hint in ("the red door", "the red door and the man who came in " * 8):
        before = torch.from_numpy(processor.get_prompt_ids(hint))
        before = torch.cat([before[:1], before[1:][-(model.config.max_target_positions // 2 - 1) :]])
        request = Request(messages=[turn(("audio", SHORT), f"{hint}\ntranscribe en")], params=GREEDY)
        ours, _, _ = generated(loaded, request)
        theirs, _ = transcribed(hears, SHORT, language="en", task="transcribe", prompt_ids=before)
        assert ours == theirs[: len(ours)]


def test_the_decoder_begins_with_what_a_client_writes(hears: tuple[Loaded, Any, Any]) -> None:
    loaded, _, processor = hears
    text = "<|startoftranscript|><|de|><|transcribe|><|notimestamps|>"
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = transcribed(hears, SHORT, language="de", task="transcribe")
    for request in (
        Request(prompt=text, media=[AudioChunk(SHORT[None], RATE)], params=GREEDY),
        Request(prompt_ids=ids, media=[AudioChunk(SHORT[None], RATE)], params=GREEDY),
    ):
        assert_equal(generated(loaded, request), expected)


def test_no_reply_begins_with_what_the_checkpoint_suppresses_there(
    hears: tuple[Loaded, Any, Any], tmp_path: Path
) -> None:
    """It may still be said later."""
    request = Request(messages=[turn(("audio", LONG), "translate fr")], params=GREEDY)
    first = generated(hears[0], request)[0][0]
    folder = shutil.copytree(hears[0].family.data.model, tmp_path / "other")
    told = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(told | {"begin_suppress_tokens": [first]}))
    ids, _, _ = generated(heard(folder)[0], request)
    assert ids == transcribed(heard(folder), LONG, language="fr", task="translate")[0]
    assert ids[0] != first and first in ids


def test_an_english_model_has_neither_languages_nor_tasks(tmp_path: Path) -> None:
    english = heard(whisper(tmp_path, languages=False))
    request = Request(messages=[turn(("audio", LONG))], params=GREEDY)
    assert_equal(generated(english[0], request), transcribed(english, LONG))
    with pytest.raises(InputError, match="words: expected transcribe"):
        generated(english[0], Request(messages=[turn(("audio", LONG), "translate")]))


def streams_of(kind: str) -> list[Request]:
    if kind == "sees":
        cases = ("a picture", "words", "apart", "side by side")
        return [Request(messages=TURNS[case], params=GREEDY) for case in cases]
    return [
        Request(messages=[turn(("audio", samples), words)], params=GREEDY)
        for samples in (SHORT, LONG)
        for words in ("transcribe", "the red door\ntranslate fr")
    ]


def prompts_of(loaded: Loaded, **config: Any) -> Prompts:
    return Prompts(Tried(loaded, None), **config)


@pytest.mark.parametrize("kind", ["sees", "hears"])
@pytest.mark.parametrize("way", [{}, {"backend": "reference"}, {"page_tokens": 16, "step_rows": 16}, {"step_rows": 7}])
def test_prompts_beside_others_are_what_they_are_alone(
    kind: str, way: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """In steps that cut media and words anywhere, and where pages are taken away and given back."""
    loaded = request.getfixturevalue(kind)[0]
    alone, most = each_alone(Tried(loaded, None), streams_of(kind))
    prompts = prompts_of(loaded, kv_tokens=most + most // 2 + 20, prefix_cache=True, **way)
    streams = []
    for one in streams_of(kind):
        streams.append(prompts.begin(one))
        prompts.step()
    prompts.run()
    assert prompts.moved
    for stream, expected in zip(streams, alone, strict=True):
        torch.testing.assert_close(torch.stack(prompts.draws[stream]), torch.stack(expected), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["sees", "hears"])
def test_a_second_reply_to_a_prompt_is_the_first_once_more(kind: str, request: pytest.FixtureRequest) -> None:
    prompts = prompts_of(request.getfixturevalue(kind)[0])
    stream = prompts.begin(streams_of(kind)[0])
    prompts.run()
    torch.testing.assert_close(prompts.again(stream), torch.stack(prompts.draws[stream]), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["sees", "hears"])
def test_guesses_change_nothing_that_is_said(kind: str, request: pytest.FixtureRequest) -> None:
    loaded, said = request.getfixturevalue(kind)[0], []
    for guesses in (None, "ngram"):
        core = Core(loaded, EngineConfig(kv_tokens=2048, backend="cpu", speculative=guesses))
        tokens: dict[int, list[int]] = {}
        for number, one in enumerate(streams_of(kind), 9_000_000):
            one = msgspec.structs.replace(one, params=SamplingParams(max_tokens=24))
            core.open(number, one)
            core.prompt(number, one)
        guessed = 0
        while (done := core.step()) is not None:
            guessed += sum(feed.guesses is not None for feed in done[0].feeds)
            for stream, event in core.scheduler.events():
                if isinstance(event, Token):
                    tokens.setdefault(stream, []).append(event.id)
        assert bool(guessed) == (guesses is not None)
        said.append(tokens)
    assert said[0] == said[1]


def test_a_picture_takes_no_more_rows_than_its_keys_and_values(sees: tuple[Loaded, Any]) -> None:
    """Two layers of five read pictures, so a row of the cache has room for two of theirs."""
    loaded, _ = sees
    assert packed(loaded.text) == 2
    rows = []
    for case in ("a picture", "words"):
        prompts = prompts_of(loaded)
        stream = prompts.begin(Request(messages=TURNS[case], params=GREEDY))
        prompts.run()
        rows.append(prompts.core.scheduler.streams[stream].rows)
    tiles, patches = 4, 5
    assert rows[0] - rows[1] == tiles * patches // 2 + 1  # the picture's own token


@pytest.mark.parametrize("kv", ["int8", "fp8"])
@pytest.mark.parametrize("kind", ["sees", "hears"])
def test_fewer_bits_are_near(kind: str, kv: str, request: pytest.FixtureRequest) -> None:
    loaded = request.getfixturevalue(kind)[0]
    exact, near = (prompts_of(loaded, **way) for way in ({}, {"kv_dtype": kv}))
    draws = []
    for prompts in (exact, near):
        stream = prompts.begin(streams_of(kind)[-1])
        prompts.run()
        draws.append(prompts.draws[stream][0])
    shut = draws[0] < -1e30
    assert 0 < (draws[0] - draws[1])[~shut].abs().max() < 0.2 * draws[0][~shut].std()


@pytest.mark.parametrize("kind", ["sees", "hears"])
def test_an_adapter_over_all_layers_beside_prompts_without(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What reads media wears it too: the answers are those of the merged checkpoint, and the others' those without."""
    loaded, model = request.getfixturevalue(kind)[:2]
    linear = [key for key, part in model.named_modules() if isinstance(part, torch.nn.Linear)]
    layers = [key for key in linear if not key.endswith(("lm_head", "proj_out"))]
    folder = write_adapter(tmp_path / "adapter", model, layers, size=0.3)
    shutil.copytree(loaded.family.data.model, tmp_path / "merged")
    merge(model, folder).save_pretrained(tmp_path / "merged")
    merged = prompts_of(load(tmp_path / "merged", EngineConfig()))
    plain, both = prompts_of(loaded), prompts_of(loaded)
    both.core.load_adapter("a", folder)
    request_of = streams_of(kind)[-1]
    alone = [prompts.begin(request_of) for prompts in (plain, merged)]
    together = [both.begin(request_of), both.begin(msgspec.structs.replace(request_of, adapter="a"))]
    for prompts in (plain, merged, both):
        prompts.run()
    for prompts, one, other in zip((plain, merged), alone, together, strict=True):
        torch.testing.assert_close(torch.stack(both.draws[other]), torch.stack(prompts.draws[one]), rtol=0, atol=1e-4)
    first = [prompts.draws[stream][0] for prompts, stream in zip((plain, merged), alone, strict=True)]
    assert float((first[0] - first[1]).abs().max()) > 0.01


def test_the_same_picture_is_encoded_once(sees: tuple[Loaded, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, _ = sees
    towers: Any = loaded.towers
    ran, make = [], towers._tiles
    monkeypatch.setattr(towers, "_tiles", lambda inputs: ran.append(1) or make(inputs))
    requests = [Request(messages=[turn("Well?", ("image", WIDE)), said("A door."), turn(words)], params=GREEDY)
                for words in ("What do you see?", "What do you hear?")]  # fmt: skip
    assert asyncio.run(_replies(loaded, requests)) == [_words(loaded, request) for request in requests]
    assert len(ran) == 1 + len(requests)


def _words(loaded: Loaded, request: Request) -> str:
    return loaded.family.tokenizer.decode(generated(loaded, request)[0])


async def _replies(loaded: Loaded, requests: list[Request]) -> list[str]:
    async with Engine(loaded, EngineConfig(kv_tokens=1024)) as engine:
        return [await (await (await engine.stream(request)).prompted()).text() for request in requests]


def test_a_snapshot_goes_on_in_another_engine(sees: tuple[Loaded, Any], tmp_path: Path) -> None:
    asyncio.run(_goes_on_elsewhere(sees[0], tmp_path / "here"))


async def _goes_on_elsewhere(loaded: Loaded, file: Path) -> None:
    config = EngineConfig(kv_tokens=1024, page_tokens=4)
    async with Engine(loaded, config) as engine, Engine(loaded, config) as other:
        stream = await engine.stream(Request(messages=TURNS["apart"], params=GREEDY))
        await (await stream.prompted()).text()
        await stream.snapshot(file)
        twin = await other.restore(file)
        words = [await (await one.ask("And now?", GREEDY)).text() for one in (stream, twin)]
        assert words[0] == words[1]
        for one in (stream, twin):
            await one.close()


@pytest.mark.parametrize("kind", ["sees", "hears"])
def test_memory_is_kept_for_the_largest_prompt(kind: str, request: pytest.FixtureRequest) -> None:
    """Which is run where memory is measured, and estimated elsewhere."""
    loaded, ran = request.getfixturevalue(kind)[0], []

    def peak(work: Callable[[], Any]) -> int:
        ran.append(work())
        return len(ran)

    assert measured(loaded, EngineConfig(), ReferenceBackend(), peak) == (1, 2)
    assert isinstance(ran[1], EncodedPrompt) and ran[1].looks
    _, turn_bytes = worst_case(loaded, EngineConfig(), ReferenceBackend())
    assert turn_bytes > 10 * loaded.towers.largest_prompt.rows


Refusal = tuple[Callable[[], Request], str]
REFUSED: dict[str, Refusal] = {
    "two sounds": (
        lambda: Request(messages=[turn(("audio", SHORT), ("audio", LONG))]),
        "messages: expected one sound, which is what Whisper hears, got 2 sounds",
    ),
    "no sound": (lambda: Request(messages=[turn("transcribe")]), "expected one sound"),
    "a picture": (lambda: Request(messages=[turn(("image", SMALL))]), "expected one sound.* got image"),
    "a long sound": (
        lambda: Request(messages=[turn(("audio", sound(1, 2.5)))]),
        r"audio: expected at most 2 s, which Whisper hears at once, got 2\.5 s",
    ),
    "other words": (
        lambda: Request(messages=[turn(("audio", SHORT), "What do you hear?")]),
        "words: expected transcribe or translate, .* got 'What do you hear\\?'",
    ),
    "tools": (
        lambda: Request(messages=[turn(("audio", SHORT))], tools=[{"type": "function", "function": {"name": "go"}}]),
        "tools: expected none, since Whisper calls nothing, got 1",
    ),
    "a conversation": (
        lambda: Request(messages=[turn(("audio", SHORT)), said("A door."), turn("transcribe")]),
        "messages: expected one message of the user, since Whisper has no conversations",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_whisper_says_what_it_expected(case: str, hears: tuple[Loaded, Any, Any]) -> None:
    make, expected = REFUSED[case]
    with pytest.raises(InputError, match=expected):
        generated(hears[0], make())
    request = Request(messages=[turn(("audio", SHORT), "transcribe")], params=GREEDY)
    assert generated(hears[0], request)[0]  # and nothing else is lost


def test_media_comes_in_prompts_alone(sees: tuple[Loaded, Any], hears: tuple[Loaded, Any, Any]) -> None:
    asyncio.run(_prompts_alone(sees[0], hears[0]))


async def _prompts_alone(sees: Loaded, hears: Loaded) -> None:
    async with Engine(sees, EngineConfig(kv_tokens=512)) as engine:
        with pytest.raises(InputError, match="format: expected turns or interrupt, .* image of mllama would change"):
            await engine.stream(Request(format="live"))
        rows = Embedding(np.zeros((3, 64), np.float32), "text")
        with pytest.raises(InputError, match="embedding: expected none, since this model takes no rows made elsewhere"):
            await (await engine.stream(Request(messages=[turn(("embedding", rows), "Well?")]))).prompted()
        stream = await engine.stream(Request())
        with pytest.raises(InputError, match="image: expected it in the request's own prompt"):
            await stream.append(Image(SMALL))
        await stream.close()
    async with Engine(hears, EngineConfig(kv_tokens=512)) as engine:
        with pytest.raises(InputError, match="expected messages, prompt or prompt_ids, since whisper answers one"):
            await engine.stream(Request())
        stream = await engine.stream(Request(messages=[turn(("audio", SHORT))], params=GREEDY))
        with pytest.raises(InputError, match="expected nothing behind the prompt"):
            await stream.append(Text("Go on."))
        with pytest.raises(InputError, match="expected nothing behind the prompt"):
            await stream.ask("What?")
        await stream.close()
