"""Thirteen traps of serving the multimodal models of `transformers`, each held by tests whose names say it.

1. The library gives what is appended to a filled cache positions of one axis:
   `test_positions_of_appended_media_do_not_come_from_the_library`.
2. Positions of several axes, counted on from a cursor, are those of the whole:
   `test_positions_counted_on_from_a_cursor_are_those_of_the_whole`.
3. After a video, text stands behind its longer side in some models, though its time goes on: `test_time_after_a_video`.
4. A tower may look at all frames of a clip or at each pair: `test_frames_encoded_alone_are_the_clip`.
5. A tower takes frames in pairs: `test_a_lone_frame_of_a_pair`.
6. A tower hears in windows, and a log-mel may hang on the loudest moment of a clip: `test_sound_windows`.
7. Rows of a picture may see one another, or all of a prompt: `test_bidirectional_pictures_enter_in_one_pass`.
8. Features for later layers travel with the rows: `test_deepstack_travels_through_chunks_and_caches`.
9. Recurrent layers keep one state of all rows: `test_recurrent_layers_keep_a_state_that_no_row_leaves`.
10. Layers see a window of the rows before them, and rows that stay keep their positions: `test_sliding_windows`.
11. Layers take rows of their own by id, and share keys and values: `test_per_layer_inputs_and_shared_keys`.
12. Attention may not be ours in every layer: `test_attention_that_cannot_be_replaced`.
13. An appended turn renders nothing again: `test_chat_templates_are_not_rendered_again`.

What other tests hold of them stands in `HELD`; that these exist is tested as well.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families.text import check_text
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.runner.encoder import Encoder
from penstock.errors import ModelError
from penstock.streams.event import Appended
from penstock.streams.requests.prompt import Content, Media
from penstock.streams.segment import VideoSegment

from tests.engine.rig import TOLERANCE, Rig, Session
from tests.families.built import BUILDERS
from tests.families.refused import REFUSED
from tests.fixtures.loaded import plain, served
from tests.reference.media import frames, picture

TESTS = Path(__file__).parents[1]
HELD: dict[str, list[str]] = {
    "test_positions_of_appended_media_do_not_come_from_the_library": [
        "engine/test_oracle3.py::test_sight",
        "reference/test_reference.py::test_stock_positions_cannot_mix_plain_and_in_video_media",
    ],
    "test_positions_counted_on_from_a_cursor_are_those_of_the_whole": [
        "reference/test_reference.py::test_sight_video_positions_equal_stock",
        "engine/test_layout_blocks.py::test_a_second_unit_counts_on_from_the_start_of_its_block",
    ],
    "test_time_after_a_video": ["reference/test_reference.py::test_rules_differ_when_the_sound_ends_before_the_video"],
    "test_frames_encoded_alone_are_the_clip": [
        "engine/test_oracle2.py::test_pictures_cut_anywhere",
        "families/test_tried_media.py::test_it_is_of_these_classes",
    ],
    "test_a_lone_frame_of_a_pair": [
        "streams/test_sampler.py::test_an_odd_frame_is_held_and_a_flush_repeats_it",
        "streams/test_sampler.py::test_a_lone_frame_and_a_flush",
    ],
    "test_sound_windows": [
        "reference/test_reference.py::test_block_edges_see_real_samples",
        "reference/test_reference.py::test_blocks_of_a_run_in_two_pieces_equal_one_piece",
        "reference/test_reference.py::test_running_floor_of_a_quiet_block_before_a_loud_one",
        "reference/test_reference.py::test_the_sound_of_experts_is_that_of_the_library_up_to_a_second",
    ],
    "test_bidirectional_pictures_enter_in_one_pass": [
        "engine/test_mutations.py::test_what_one_family_has_of_its_own_counts",
        "families/test_whole_prompts.py::test_a_prompt_beside_others_is_what_it_is_alone",
        "engine/test_families.py::test_media_that_would_change_the_cache_waits_for_a_turn",
    ],
    "test_deepstack_travels_through_chunks_and_caches": [
        "engine/test_mutations.py::test_deepstack_dropped_turns_the_logits_red",
    ],
    "test_recurrent_layers_keep_a_state_that_no_row_leaves": [
        "families/test_stateful.py::test_a_reply_that_is_cut_goes_on_from_what_is_left",
        "families/test_stateful.py::test_a_fork_and_its_stream_go_on_apart",
        "families/test_stateful.py::test_streams_that_make_room_for_one_another",
        "families/test_stateful.py::test_a_snapshot_goes_on_in_another_engine",
        "families/test_stateful.py::test_what_no_row_can_leave_has_no_window_and_finds_no_pages",
    ],
    "test_sliding_windows": [
        "engine/test_windows.py::test_positions_that_no_model_has",
        "engine/test_mutations.py::test_what_one_family_has_of_its_own_counts",
        "engine/test_tried.py::test_one_that_computes_the_same_is_served",
    ],
    "test_per_layer_inputs_and_shared_keys": [
        "families/test_tried_media.py::test_one_shot_equals_generate",
        "families/test_tried_media.py::test_media_before_and_in_a_reply_equals_a_dense_pass",
    ],
    "test_attention_that_cannot_be_replaced": [
        "engine/test_tried.py::test_a_layer_that_does_not_call_our_attention_is_noticed",
        "engine/test_tried.py::test_one_that_stops_in_its_decoder_is_refused",
    ],
    "test_chat_templates_are_not_rendered_again": [
        "engine/test_seams.py::test_words_after_a_reply",
        "engine/test_seams.py::test_texts_of_text_models",
        "reference/test_reference.py::test_a_stream_lays_the_words_of_the_template",
    ],
}


def test_what_holds_the_traps_is_there() -> None:
    """Each trap has its test in this file, and the tests beside it exist."""
    known: dict[str, set[str]] = {}

    def names(file: str) -> set[str]:
        if file not in known:
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            known[file] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        return known[file]

    here = str(Path(__file__).relative_to(TESTS))
    assert len(HELD) == 13 and HELD.keys() <= names(here)
    assert __doc__ is not None and all(f"`{name}`" in __doc__ for name in HELD)
    pairs = [one.split("::") for tests in HELD.values() for one in tests]
    assert not [(file, name) for file, name in pairs if name not in names(file)]


def sized(loaded: Loaded, seed: int) -> np.ndarray:
    """A picture that the model takes as it is: 4 by 6 merged patches at most."""
    return np.asarray(picture(seed, 56, 84))


def asked(loaded: Loaded, *shown: np.ndarray, **rig: Any) -> Session:
    """A stream that has been shown pictures one after the other, each fed before the next came."""
    session = Rig(loaded, page_tokens=4, **rig).open(format="turns", positions="transformers")
    session.text("Look.")
    session.rig.step(3)
    for one in shown:
        session.image(one)
        session.rig.step(3)
    session.ask("What is it?", max_tokens=4)
    session.rig.run()
    return session


def stock_positions(name: str, ids: list[int], grids: list[tuple[int, int, int]]) -> torch.Tensor:
    """What the library's rule gives for a whole prompt."""
    model, processor = plain(name)
    row = torch.tensor([ids])
    image = model.config.image_token_id
    return model.model.get_rope_index(
        row,
        mm_token_type_ids=(row == image).long(),
        image_grid_thw=torch.tensor(grids),
        attention_mask=torch.ones_like(row),
    )[0][:, 0]


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_positions_of_appended_media_do_not_come_from_the_library(name: str) -> None:
    """What its model gives rows that come to a filled cache, and what they have here: those of the whole."""
    model, processor = plain(name)
    pixels = sized(served(name), 1)
    session = asked(served(name), pixels)
    ids, ours = session.transcript()
    inputs = processor.image_processor([pixels], return_tensors="pt", do_resize=False)
    whole = stock_positions(name, ids, inputs["image_grid_thw"].tolist())
    prompt = len(ids) - len(session.ids())
    assert torch.equal(ours[:, :prompt], whole[:, :prompt])

    row, first = torch.tensor([ids[:prompt]]), 3
    given: list[torch.Tensor] = []
    decoder = model.get_decoder()
    hook = decoder.register_forward_pre_hook(lambda _, __, more: given.append(more["position_ids"]), with_kwargs=True)
    try:
        with torch.inference_mode():
            cache = model(row[:, :first], use_cache=True).past_key_values
            types = (row[:, first:] == model.config.image_token_id).long()
            media = {name: inputs[name] for name in ("pixel_values", "image_grid_thw")}
            model(row[:, first:], past_key_values=cache, use_cache=True, mm_token_type_ids=types, **media)
    finally:
        hook.remove()
        model.model.rope_deltas = None
    assert not torch.equal(given[-1][-3:, 0], whole[:, first:prompt])


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_positions_counted_on_from_a_cursor_are_those_of_the_whole(name: str) -> None:
    loaded = served(name)
    shown = [sized(loaded, 1), np.asarray(picture(2, 84, 56)), sized(loaded, 3)]
    session = asked(loaded, *shown)
    ids, ours = session.transcript()
    _, processor = plain(name)
    grids = processor.image_processor(shown, return_tensors="pt", do_resize=False)["image_grid_thw"].tolist()
    prompt = len(ids) - len(session.ids())
    assert torch.equal(ours[:, :prompt], stock_positions(name, ids, grids)[:, :prompt])


def test_time_after_a_video() -> None:
    """Of Qwen2.5-VL: the time of a long video goes far beyond its sides, and the text after it does not. Here the rule
    of the library is one of two; the other goes on behind the largest position."""
    loaded = served("qwen2_5_vl")
    behind = {}
    for rule in ("transformers", "max"):
        session = Rig(loaded).open(format="turns", positions=rule, video_fps=0.5)
        for tick, pixels in enumerate(frames(3, 8)):
            session.frame(pixels, 2_000_000 * tick)
        session.ask("What is it?", max_tokens=1)
        session.rig.run()
        ids, positions = session.transcript()
        token = loaded.family.spec.rows.ids["video"]
        rows = [place for place, id in enumerate(ids) if id == token]
        first, last = positions[:, rows[0]], positions[:, rows]
        behind[rule] = int(positions[0, rows[-1] + 1] - first[0])
        largest = int((last - first[:, None]).max())
        sides = int((last[1:] - first[1:, None]).max()) + 1
        assert largest > sides
        assert behind[rule] == (sides if rule == "transformers" else largest + 1)
    assert behind["max"] > behind["transformers"]


@pytest.mark.parametrize("name", ["omni", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "smolvlm"])
def test_frames_encoded_alone_are_the_clip(name: str) -> None:
    """Each temporal patch alone gives the rows that the library gives for the clip."""
    loaded = served(name)
    towers: Any = loaded.towers
    patch = loaded.family.spec.temporal_patch
    clip = np.stack([sized(loaded, seed) for seed in range(3 * patch)])
    content = Content([Media("video", clip)], text=towers.placeholders()["video"], video_fps=2.0)
    whole = torch.cat([part.rows for part in towers.prompt(content).embeds if part is not None])
    pieces = [VideoSegment(1, at, clip[at : at + patch], 0, 0) for at in range(0, len(clip), patch)]
    with torch.inference_mode():
        alone = torch.cat([one.embeds.rows for one in towers.encode([(1, piece) for piece in pieces])])
    if name == "llava_onevision":
        whole = whole[: len(alone)]  # behind it the row that closes a video
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-5)


def test_a_lone_frame_of_a_pair() -> None:
    """It waits for the other; a question takes it twice, which is what the library does with a clip of one frame."""
    loaded = served("qwen2_5_vl")
    pixels = sized(loaded, 1)
    rows = []
    for count in (1, 2):
        session = Rig(loaded).open(format="turns")
        for tick in range(count):
            session.frame(pixels, 500_000 * tick)
            session.rig.run()
            assert bool(session.of(Appended)) == (tick == 1)
        session.ask("What is it?", max_tokens=4)
        session.rig.run()
        rows.append((session.transcript()[0], session.ids()))
    assert rows[0] == rows[1]


def test_sound_windows(tmp_path: Path) -> None:
    """Omni's tower hears a window at a time, and Whisper's all that it is given: the first comes in blocks, the second
    in clips as long as the processor takes."""
    assert served("omni").family.data.classes["audio"] == "B"
    from tests.families.suite import opened

    tried = opened(BUILDERS["qwen2_audio"].build(tmp_path))
    assert tried.loaded.family.data.classes["audio"] == "E"
    spec, ear = tried.loaded.family.spec, tried.towers.ear
    assert spec.block_samples == ear.chunk_length * ear.sampling_rate


def test_bidirectional_pictures_enter_in_one_pass() -> None:
    """Though a step feeds fewer rows than a picture has: its rows go in together, and no cut is among them."""
    loaded = served("gemma3")
    session = asked(loaded, sized(loaded, 1), append_rows=3)
    token = loaded.family.spec.rows.ids["image"]
    fed = [sum(int((run.ids == token).sum()) for run in feed.rows) for plan in session.rig.plans for feed in plan.feeds]
    assert [count for count in fed if count] == [session.transcript()[0].count(token)]
    assert max(fed) > 3
    session.check(*plain("gemma3"))


def test_deepstack_travels_through_chunks_and_caches() -> None:
    """Whole, three rows at a time, and found in the cache of the encoder."""
    loaded = served("qwen3_vl")
    logits = []
    for rows in (512, 3, 3):
        rig = Rig(loaded, page_tokens=4, append_rows=rows)
        rig.core.encoder = Encoder(loaded.towers, 1 << 20, rig.core.language.spans, None, loaded.family)
        for again in range(1 + len(logits) // 2):
            session = rig.open(format="turns")
            session.image(sized(loaded, 1))
            rig.run()
            session.ask("What is it?", max_tokens=4)
            rig.run()
            assert rig.core.encoder.hits == again
        logits.append(torch.stack([drawn for _, drawn in session.draws.values()]))
        assert session.check(*plain("qwen3_vl")) == 4
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=0, atol=TOLERANCE)


def test_recurrent_layers_keep_a_state_that_no_row_leaves(tmp_path: Path) -> None:
    """So their streams have no window, and find no pages of others: a state is of all rows before."""
    loaded = load(BUILDERS["qwen3_5"].build(tmp_path), EngineConfig())
    assert loaded.family.data.stateful and loaded.family.no_window
    for words in ("Who is there, and what do they want?", "Who is there, and what do they say?"):
        alone, beside = Rig(loaded, page_tokens=4), Rig(loaded, page_tokens=4)
        said = []
        for rig in (alone, beside):
            for question in ["Who is there, and what do they want?"] * (rig is beside) + [words]:
                session = rig.open(format="turns")
                session.ask(question, max_tokens=4)
                rig.run()
            said.append(session.ids())
        assert said[0] == said[1]


def test_sliding_windows() -> None:
    """Rows that stay behind a gap keep the positions that they had: nothing in the cache is turned again."""
    loaded = served("gemma3_text")
    window = loaded.config.sliding_window
    session = Rig(loaded, page_tokens=4).open(format="turns")
    session.text("word " * (window + 8))
    session.ask("What was it?", max_tokens=6)
    session.rig.run()
    ids, positions = session.transcript()
    assert len(ids) > window and positions[0].tolist() == list(range(len(ids)))
    assert session.check(*plain("gemma3_text")) == 6


@pytest.mark.parametrize("name", ["gemma3n", "gemma4"])
def test_per_layer_inputs_and_shared_keys(name: str, tmp_path: Path) -> None:
    """Their layers have both in the small model of the suite, which the tests beside this one compare."""
    text = hf.AutoConfig.from_pretrained(BUILDERS[name].build(tmp_path)).get_text_config()
    assert text.hidden_size_per_layer_input and text.num_kv_shared_layers
    check_text(text)


def test_attention_that_cannot_be_replaced(tmp_path: Path) -> None:
    """A model that attends in a way of its own has no rows in the pages."""
    build = REFUSED["git"].build
    assert build is not None
    with pytest.raises(ModelError, match="its attention cannot be replaced"):
        load(build(tmp_path), EngineConfig())


def test_chat_templates_are_not_rendered_again() -> None:
    """What begins a text stands once, and after two turns the ids are those of the whole conversation."""
    loaded = served("gemma3")
    processor, tokenizer = plain("gemma3")[1], loaded.family.tokenizer
    session = Rig(loaded).open(format="turns")
    asked, laid = ["Who is there?", "And now?"], []
    for question in asked:
        session.ask(question, max_tokens=3, hold=False)
        session.rig.run()
        laid.append(session.transcript()[0])
    first, second = laid
    turn = [{"role": "user", "content": [{"type": "text", "text": asked[0]}]}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert first[: len(whole)] == whole and second[: len(first)] == first
    assert second.count(tokenizer.bos_token_id) == 1 == whole.count(tokenizer.bos_token_id)
