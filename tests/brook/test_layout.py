"""What Brook learns from is what the engine serves: rows, positions, features, hidden states."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from penstock import AudioChunk, Engine, ReplyDone, Request, SamplingParams, Stream, VideoFrame
from penstock.demos.brook.batch import blocks_of
from penstock.demos.brook.draw import Painter
from penstock.demos.brook.layout import Vocabulary, Writer
from penstock.demos.brook.lessons import LessonMaker, LessonPiece, LessonPlan, cut
from penstock.demos.brook.senses import FIELDS, block_rows, hear, patches, power, see
from penstock.demos.brook.sound import RATE, Bank
from penstock.demos.brook.speech import speak, visible
from penstock.demos.brook.world import SceneMaker, Wish
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.streams.event import TranscriptRow
from penstock.streams.segment import AudioSegment, VideoSegment

SILENT = Bank((), half=0)


@pytest.fixture(scope="module")
def brook() -> Loaded:
    return load(None, EngineConfig())


def scene(seed: int, seconds: float):
    return SceneMaker(np.random.default_rng(seed), {}).scene(Wish(seconds=seconds, beeps=1.0, sound_gap=0.6))


async def shown(stream: Stream, seconds: float, asks: dict[float, str]) -> list[list[int]]:
    """Play a scene's pictures and sound, sample by sample in order of time, and ask; the replies' ids."""
    script = scene(3, seconds)
    painter, track = Painter(script, 112), SILENT.track(script)
    replies = []
    for step in range(round(seconds * 10) + 1):
        time = step / 10
        if time in asks:
            reply = await stream.watch(asks[time], SamplingParams(max_tokens=12 if stream.format == "turns" else 1000))
            if stream.format == "turns":
                replies.append([token.id async for token in reply])
        if step % 5 == 0 and time < seconds:
            await stream.append(VideoFrame(painter.picture(time), pts_us=round(time * 1e6)))
        if time < seconds:
            piece = track[round(time * RATE) : round((time + 0.1) * RATE)]
            await stream.append(AudioChunk(piece[None], rate=RATE, pts_us=round(time * 1e6)))
    return replies


def laid(rows: list[TranscriptRow]) -> tuple[list[int], np.ndarray]:
    """A transcript's ids and positions."""
    return [id for row in rows for id in row.ids], np.concatenate([np.array(row.positions) for row in rows], axis=1)


def test_turns_are_laid_as_in_training(brook: Loaded) -> None:
    asks = {2.3: "What do you see?", 4.0: "What did you hear?"}

    async def main() -> tuple[list[list[int]], list[TranscriptRow]]:
        engine = Engine(brook, EngineConfig(kv_tokens=4096))
        async with engine, await engine.stream(Request(format="turns")) as stream:
            return await shown(stream, 4.0, asks), await stream.transcript()

    replies, rows = asyncio.run(main())
    ends = brook.family.stop_ids
    writer = Writer(Vocabulary(brook.family.tokenizer))
    said = iter(replies)
    pairs = blocks = run = 0
    for step in [*cut(LessonPlan(4.01, True, True, False, list(asks)))]:
        if not isinstance(step, LessonPiece):
            writer.ask(asks[step])
            writer.say([id for id in next(said) if id not in ends], None, "answer")
            writer.finish()
        elif step.kind == "video":
            writer.video(pairs, FIELDS, FIELDS)
            pairs += 1
        else:
            writer.audio(blocks, block_rows(round((step.stop - step.start) * 50)), step.run != run)
            blocks, run = blocks + 1, step.run
    ids, positions = laid(rows)
    expected = writer.rows()
    assert ids == expected.ids.tolist()
    assert np.array_equal(positions, expected.positions)


def test_live_is_laid_as_in_training(brook: Loaded) -> None:
    async def main() -> list[TranscriptRow]:
        engine = Engine(brook, EngineConfig(kv_tokens=4096))
        async with engine, await engine.stream(Request(format="live")) as stream:
            await shown(stream, 5.0, {1.2: "Tell me what happens."})
            await stream.end()
            async for event in stream:
                if isinstance(event, ReplyDone):
                    break
            return await stream.transcript()

    rows = asyncio.run(main())
    words = Vocabulary(brook.family.tokenizer)
    writer = Writer(words)
    ids, positions = laid(rows)
    wrappers = {*words.sight, *words.sound}
    question = words.ids("Tell me what happens.")
    rest = ids
    head = [*words.ids("<|im_start|>user\n")]
    assert rest[: len(head)] == head
    pieces: list[int] = []
    asked = False
    at = len(head)
    while at < len(rest):
        if rest[at] in wrappers:
            at += 1
        elif rest[at] in (words.video, words.audio):
            stop = at
            while stop < len(rest) and rest[stop] == rest[at] and (stop - at < 16 or rest[at] != words.video):
                stop += 1
            if rest[at] == words.video:
                writer.video(len(pieces), FIELDS, FIELDS)
            else:
                writer.audio(len(pieces), stop - at, False)
            pieces.append(rest[at])
            at = stop
        elif not asked:
            assert rest[at : at + len(question)] == question
            writer.ask("Tell me what happens.")
            at += len(question) + len(words.ids("<|im_end|>\n")) + len(words.ids("<|im_start|>assistant\n"))
            asked = True
        else:
            writer.say([rest[at]], None, "narrated")
            at += 1
    assert pieces.count(words.video) >= 4 and pieces.count(words.audio) >= 4
    expected = writer.rows()
    assert ids == expected.ids.tolist()
    assert np.array_equal(positions, expected.positions)


def test_the_towers_see_and_hear_as_in_training(brook: Loaded) -> None:
    script = scene(5, 3.0)
    painter, track = Painter(script, 112), SILENT.track(script)
    pairs = np.stack([[painter.picture(second), painter.picture(second + 0.5)] for second in range(3)])
    towers = brook.towers
    clips = [VideoSegment(1, number, pair, 0, 0) for number, pair in enumerate(pairs)]
    sounds = [AudioSegment(2, 3, track[: RATE + 400], 0, 50, 0, 0, 1_000_000)]
    spans = towers.encode([*((1, clip) for clip in clips), *((1, sound) for sound in sounds)])
    model = towers.model  # pyright: ignore[reportAttributeAccessIssue]
    banks = torch.from_numpy(towers.processor.feature_extractor.mel_filters).float()  # pyright: ignore
    with torch.no_grad():
        seen = see(model.visual, patches(torch.from_numpy(pairs)), 8, 8)
        mel = power(track[: RATE + 400], banks)[:, :50]
        mel = (torch.clamp(mel, min=float(mel.max()) - 8) + 4) / 4
        heard = hear(model.audio_tower, mel[None], torch.tensor([50]))
    for number in range(3):
        torch.testing.assert_close(seen[number], spans[number].embeds.rows, atol=1e-4, rtol=1e-4)
    assert len(spans[3].embeds.rows) == block_rows(50)
    torch.testing.assert_close(heard[0, : block_rows(50)], spans[3].embeds.rows, atol=2e-3, rtol=1e-3)


def test_the_language_model_of_training_is_the_stock_one() -> None:
    from penstock.demos.brook.checkpoint import HIDDEN, build_model, build_tokenizer, members

    _, _, language = members(build_model(build_tokenizer([])))
    embeds = torch.randn(2, 40, HIDDEN, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(40).expand(3, 2, 40).clone()
    positions[1, :, 10:20] += 3
    with torch.no_grad():
        stock = language(inputs_embeds=embeds, position_ids=positions, use_cache=False, output_hidden_states=True)
        mask = visible(torch.zeros(2, 40, dtype=torch.long))
        ours, (middle,) = speak(language, embeds, positions, mask, taps=(4,), fast=False)
        tapped = torch.nn.functional.rms_norm(stock.hidden_states[4], (HIDDEN,), eps=1e-6)
    for theirs, own in ((stock.last_hidden_state, ours), (tapped, middle)):
        assert float((theirs - own.float()).abs().mean()) < 0.01 * float(theirs.abs().mean())


def test_a_lesson_has_a_block_of_sound_for_each_piece() -> None:
    from penstock.demos.brook.checkpoint import build_processor, build_tokenizer
    from penstock.demos.brook.words import sentences

    tokenizer = build_tokenizer(sentences(scenes=20))
    bank = Bank((), half=0)
    maker = LessonMaker(np.random.default_rng(0), bank, Vocabulary(tokenizer))
    script = scene(7, 5.0)
    lesson = maker._lesson(script, LessonPlan(5.0, True, True, False, [2.3]))
    banks = torch.from_numpy(build_processor(tokenizer).feature_extractor.mel_filters).float()
    blocks = blocks_of(lesson, banks)
    pieces = [piece for piece in cut(LessonPlan(5.0, True, True, False, [2.3])) if isinstance(piece, LessonPiece)]
    assert len(blocks) == sum(piece.kind == "audio" for piece in pieces)
    assert len(lesson.pairs) == sum(piece.kind == "video" for piece in pieces)
    assert sum(frames for _, frames in lesson.blocks) == pytest.approx(50 * 5, abs=50)
