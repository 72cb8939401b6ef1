"""The reference is tested against stock `transformers` wherever that can do the case; its fixture models must see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.reference import pieces as p
from tests.reference.check import REPLY, sees, sees_pictures, smallest_margin
from tests.reference.dense import Sequence, build, forward, greedy
from tests.reference.media import frames, picture, sound
from tests.reference.sound import RunningFloor, clip_features, run_blocks
from tests.reference.stock import in_video_options, video_options

QUESTION = "What do you see?"
MARKERS = {p.ImagePiece: "image", p.VideoPiece: "video", p.AudioPiece: "audio", p.AvPiece: "video", p.Text: "text"}


def turn(*media: p.Piece) -> list[p.Piece]:
    """One user turn with the media and a question, the assistant's turn open."""
    return [p.System(), p.UserStart(), *media, p.Text(QUESTION), p.UserEnd(), p.AssistantStart()]


def stock(processor: Any, pieces: list[p.Piece], fps: float = 2.0) -> dict[str, torch.Tensor]:
    """What the stock processor makes of the user turn in `pieces`; media keeps its size and its frames."""
    content = [{"type": MARKERS[type(x)], "text": getattr(x, "text", "")} for x in pieces if type(x) in MARKERS]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    images = [x.pixels for x in pieces if isinstance(x, p.ImagePiece)]
    videos = [torch.from_numpy(x.frames).permute(0, 3, 1, 2) for x in pieces if isinstance(x, p.VideoPiece | p.AvPiece)]
    sounds = [x.samples for x in pieces if isinstance(x, p.AudioPiece | p.AvPiece)]
    in_video = any(isinstance(x, p.AvPiece) for x in pieces)
    name = "omni" if hasattr(processor, "feature_extractor") else "sight"
    timing = video_options(name, [len(video) for video in videos], fps)
    timing.setdefault("videos_kwargs", {})["do_resize"] = False
    return processor(
        text=[text],
        images=images or None,
        videos=videos or None,
        **({"audio": sounds} if sounds else {}),
        **timing,
        images_kwargs={"do_resize": False},
        return_tensors="pt",
        **(in_video_options(len(sounds)) if in_video else {}),
    )


def stock_positions(model: Any, inputs: dict[str, torch.Tensor], in_video: bool = False) -> torch.Tensor:
    """`(3, T)` from the library's own code for a whole prompt."""
    lengths = inputs["feature_attention_mask"].sum(-1) if "feature_attention_mask" in inputs else None
    spacing = inputs.get("video_second_per_grid")
    places, _ = model.get_rope_index(
        inputs["input_ids"],
        inputs.get("image_grid_thw"),
        inputs.get("video_grid_thw"),
        inputs["attention_mask"],
        in_video,
        lengths,
        None if spacing is None else torch.as_tensor(spacing),
    )
    return places[:, 0]


CASES: dict[str, list[p.Piece]] = {
    "text": turn(),
    "image": turn(p.ImagePiece(picture(1))),
    "two images": turn(p.ImagePiece(picture(1)), p.Text("The picture."), p.ImagePiece(picture(2, 56, 112))),
    "video": turn(p.VideoPiece(frames(3, 4))),
    "odd video": turn(p.VideoPiece(frames(3, 5))),
    "two videos": turn(p.VideoPiece(frames(3, 8)), p.VideoPiece(frames(4, 2, 84, 84))),
    "sound": turn(p.AudioPiece(sound(5, 3.3), clip=True)),
    "sound of one token": turn(p.AudioPiece(sound(5, 0.025), clip=True)),
    "all": turn(
        p.AudioPiece(sound(5, 2.0), clip=True),
        p.ImagePiece(picture(6)),
        p.VideoPiece(frames(7, 4)),
        p.AudioPiece(sound(8, 4.7), clip=True),
    ),
    "audio in video": turn(p.AvPiece(frames(9, 8), sound(9, 4.0), clip=True)),
    "short audio in video": turn(p.AvPiece(frames(9, 8), sound(9, 2.4), clip=True)),
    "long audio in video": turn(p.AvPiece(frames(9, 4), sound(9, 5.1), clip=True)),
    "two videos with audio": turn(
        p.AvPiece(frames(9, 6), sound(9, 2.5), clip=True), p.AvPiece(frames(2, 4), sound(2, 2.0), clip=True)
    ),
}


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@pytest.mark.parametrize("name", CASES)
def test_equals_stock_generation(omni: tuple[Any, Any], omni_name: str, name: str) -> None:
    model, processor = omni
    pieces = CASES[name]
    in_video = any(isinstance(x, p.AvPiece) for x in pieces)
    inputs = stock(processor, pieces)
    ours = build(model, processor, pieces, positions="transformers")
    assert ours.ids.tolist() == inputs["input_ids"][0].tolist()
    assert torch.equal(ours.positions, stock_positions(model, inputs, in_video))

    if omni_name == "qwen3_omni" and name not in SILENT:
        return  # its tower sees up to 8 s of a whole clip, and one block of a stream: see the next test
    model.model.rope_deltas = model.rope_deltas = None
    result = model.generate(
        **inputs,
        use_audio_in_video=in_video,
        max_new_tokens=REPLY,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    ids, logits = greedy(model, ours, REPLY)
    assert ids == result.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    torch.testing.assert_close(logits, torch.cat(result.logits), rtol=0, atol=1e-4)


@pytest.mark.parametrize("omni_name", ["qwen3_omni"], indirect=True)
def test_the_sound_of_experts_is_that_of_the_library_up_to_a_second(omni: tuple[Any, Any]) -> None:
    """Class B on blocks of one second, but for the clip's last frame, behind which the processor mirrors the sound. The
    tower's own window is longer, and so a longer clip differs."""
    model, processor = omni
    for seconds, same in ((0.4, True), (1.0, True), (3.3, False)):
        pieces = turn(p.AudioPiece(sound(5, seconds), clip=True))
        inputs = stock(processor, pieces)
        mask = inputs["feature_attention_mask"]
        whole = model.get_audio_features(inputs["input_features"], feature_attention_mask=mask).last_hidden_state
        ours = build(model, processor, pieces, positions="transformers")
        start, stop = ours.marks[2]
        heard = ours.embeds[start + 1 : stop - 1]
        assert heard.shape == whole.shape
        error = float((heard - whole).detach().abs().max() / whole.detach().abs().max())
        assert error < 0.01 if same else error > 0.1, (seconds, error)


@pytest.mark.parametrize("fps", [0.5, 1.0, 1.7, 2.0, 3.0, 30.0])
def test_video_positions_equal_stock(omni: tuple[Any, Any], fps: float) -> None:
    model, processor = omni
    pieces = turn(p.VideoPiece(frames(1, 12)), p.VideoPiece(frames(2, 4)))
    inputs = stock(processor, pieces, fps)
    ours = build(model, processor, pieces, fps=fps, positions="transformers")
    assert torch.equal(ours.positions, stock_positions(model, inputs))


SILENT = [name for name, pieces in CASES.items() if not any(isinstance(x, p.AudioPiece | p.AvPiece) for x in pieces)]


def stock_sight_positions(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """`(3, T)` from the library's own code of a model that only sees."""
    names = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
    grids = {name: torch.as_tensor(inputs[name]) for name in names if name in inputs}
    types, mask = inputs["mm_token_type_ids"], inputs["attention_mask"]
    return model.model.get_rope_index(inputs["input_ids"], types, attention_mask=mask, **grids)[0][:, 0]


@pytest.mark.parametrize("name", SILENT)
def test_sight_equals_stock_generation(sight_plain: tuple[Any, Any], name: str) -> None:
    model, processor = sight_plain
    pieces = CASES[name]
    inputs = stock(processor, pieces)
    ours = build(model, processor, pieces, positions="transformers")
    assert ours.ids.tolist() == inputs["input_ids"][0].tolist()
    assert torch.equal(ours.positions, stock_sight_positions(model, inputs))
    model.model.rope_deltas = None
    result = model.generate(
        **inputs, max_new_tokens=REPLY, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    ids, logits = greedy(model, ours, REPLY)
    assert ids == result.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    torch.testing.assert_close(logits, torch.cat(result.logits), rtol=0, atol=1e-4)


@pytest.mark.parametrize("fps", [0.5, 1.0, 1.7, 2.0, 3.0, 30.0])
def test_sight_video_positions_equal_stock(sight_plain: tuple[Any, Any], fps: float) -> None:
    model, processor = sight_plain
    pieces = turn(p.VideoPiece(frames(1, 12)), p.VideoPiece(frames(2, 4)))
    inputs = stock(processor, pieces, fps)
    ours = build(model, processor, pieces, fps=fps, positions="transformers")
    assert torch.equal(ours.positions, stock_sight_positions(model, inputs))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_fixture_for_stills_sees(still_plain: tuple[Any, Any], seed: int) -> None:
    sight = sees_pictures(*still_plain, seed)
    assert sight.accepted, sight


# What else the library's model wants for two pictures that are not cut into tiles, and options of its processor.
UNCUT: dict[str, dict[str, Any]] = {"smolvlm": {"do_image_splitting": False}}


def test_stills_equal_stock_generation(still_plain: tuple[Any, Any], still_name: str) -> None:
    """A stream tokenises each piece of text by itself, so the same words may be other ids: stock gets these."""
    model, processor = still_plain
    pictures = [picture(1), picture(2, 56, 112)]
    ours = build(model, processor, turn(*(p.ImagePiece(pixels) for pixels in pictures)))
    inputs = dict(processor.image_processor([pictures], return_tensors="pt", **UNCUT.get(still_name, {})))
    ids = ours.ids[None]
    if still_name == "gemma3":
        inputs = {"pixel_values": inputs["pixel_values"], "token_type_ids": (ids == model.config.image_token_id).long()}
    theirs = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, max_new_tokens=REPLY, do_sample=False
    )
    assert greedy(model, ours, REPLY)[0] == theirs[0, ids.shape[1] :].tolist()


def test_a_stream_lays_the_words_of_the_template(still_plain: tuple[Any, Any], still_name: str) -> None:
    """The same words as a whole prompt, white space before media and tiles apart."""
    model, processor = still_plain
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    options = UNCUT.get(still_name, {})
    begun = text.startswith(processor.tokenizer.bos_token or "-")
    inputs = processor(
        text=[text], images=[[picture(1, 56, 56)]], return_tensors="pt", add_special_tokens=not begun, **options
    )
    ours = processor.decode(build(model, processor, turn(p.ImagePiece(picture(1, 56, 56)))).ids)
    theirs = processor.decode(inputs["input_ids"][0])
    if still_name == "llava_onevision":  # alone it is two tiles in stock: the whole picture, and it again
        rows = theirs.count("<image>")
        assert rows > ours.count("<image>")
        theirs = theirs.replace("<image>" * rows, "<image>" * ours.count("<image>"))
    assert "".join(ours.split()) == "".join(theirs.split())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_sight_fixtures_see(sight_plain: tuple[Any, Any], seed: int) -> None:
    sight = sees(*sight_plain, seed)
    assert sight.accepted, sight


@pytest.mark.parametrize("name", [name for name in CASES if "in video" not in name and "with audio" not in name])
def test_both_rules_agree_without_audio_in_video(omni: tuple[Any, Any], name: str) -> None:
    model, processor = omni
    by_rule = [build(model, processor, CASES[name], positions=rule).positions for rule in ("max", "transformers")]
    assert torch.equal(*by_rule)


def test_rules_differ_when_the_sound_ends_before_the_video(omni: tuple[Any, Any]) -> None:
    model, processor = omni
    pieces = turn(p.AvPiece(frames(9, 4), sound(9, 0.6), clip=True))
    ours = build(model, processor, pieces, positions="max")
    library = build(model, processor, pieces, positions="transformers")
    start, stop = ours.marks[2]
    assert torch.equal(ours.positions[:, : stop - 2], library.positions[:, : stop - 2])
    assert int(ours.positions[0, stop]) == int(ours.positions[:, start : stop - 2].max()) + 2
    assert int(library.positions[0, stop]) < int(library.positions[:, start:stop].max())
    assert torch.equal(library.positions, stock_positions(model, stock(processor, pieces), in_video=True))


def test_stock_positions_cannot_mix_plain_and_in_video_media(omni: tuple[Any, Any]) -> None:
    """The library's code goes wrong as soon as one prompt holds a video with sound and one without.

    It takes the plain video's block for text, so its tokens stand on a line instead of a grid. When this test fails,
    the library has learnt it, and the reference can be compared with it here too.
    """
    model, processor = omni
    plain, with_sound = p.VideoPiece(frames(1, 4)), p.AvPiece(frames(2, 4), sound(2, 2.0), clip=True)
    pieces = turn(with_sound, p.Text("Now."), plain)
    ours = build(model, processor, pieces, positions="transformers")
    lone = build(model, processor, turn(plain), positions="transformers")
    lengths = torch.tensor([200])
    grids = torch.tensor([[2, 4, 6], [2, 4, 6]])
    ids = ours.ids[None]
    theirs, _ = model.get_rope_index(ids, None, grids, torch.ones_like(ids), True, lengths, torch.tensor([1.0, 1.0]))
    start, stop = ours.marks[4]
    alone = slice(*lone.marks[2])
    shape = lone.positions[:, alone] - lone.positions[:, alone][:, :1]
    assert torch.equal(ours.positions[:, start:stop] - ours.positions[:, start : start + 1], shape)
    line = torch.arange(stop - start).expand(3, -1)
    assert torch.equal(theirs[:, 0, start:stop] - theirs[:, 0, start : start + 1], line)
    assert torch.equal(ours.positions[:, :start], theirs[:, 0, :start])


def test_running_floor_equals_stock_when_the_first_block_is_loudest(omni: tuple[Any, Any]) -> None:
    extractor = omni[1].feature_extractor
    samples = sound(3, 5.13)
    samples[32_000 - 400 :] *= 0.05
    blocks = run_blocks(samples, extractor)
    floor = RunningFloor()
    streamed = torch.cat([floor.features(block) for block in blocks], dim=1)
    whole = extractor(samples, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)
    assert streamed.shape[1] == int(whole["attention_mask"].sum())
    torch.testing.assert_close(streamed, whole["input_features"][0, :, : streamed.shape[1]], rtol=0, atol=2e-5)


def test_running_floor_of_a_quiet_block_before_a_loud_one(omni: tuple[Any, Any]) -> None:
    samples = sound(3, 4.0)
    samples[:32_000] *= 1e-4
    blocks = run_blocks(samples, omni[1].feature_extractor)
    floor = RunningFloor()
    streamed = [floor.features(block) for block in blocks]
    clip = clip_features(blocks)
    assert float((streamed[0] - clip[0]).abs().max()) > 0.1
    assert torch.equal(streamed[1], clip[1])


def test_block_edges_see_real_samples(omni: tuple[Any, Any]) -> None:
    extractor = omni[1].feature_extractor
    samples = sound(4, 4.0)
    together = run_blocks(samples, extractor)
    assert [block.shape[1] for block in together] == [200, 200]
    apart = [run_blocks(half, extractor)[0] for half in np.split(samples, 2)]
    inner = slice(2, -1)
    torch.testing.assert_close(together[1][:, inner], apart[1][:, inner], rtol=0, atol=1e-3)
    assert float((together[0] - apart[0])[:, -1].abs().max()) > 1e-2
    assert float((together[1] - apart[1])[:, 0].abs().max()) > 1e-2


def rows(sequence: Sequence, piece: int, wrappers: int = 1) -> torch.Tensor:
    start, stop = sequence.marks[piece]
    return sequence.embeds[start + wrappers : stop - wrappers]


def test_blocks_of_a_run_in_two_pieces_equal_one_piece(omni: tuple[Any, Any]) -> None:
    model, processor = omni
    samples = sound(6, 5.0)
    one = build(model, processor, turn(p.AudioPiece(samples)))
    parts = turn(p.AudioPiece(samples, 0, 1), p.Text("Now."), p.AudioPiece(samples, 1))
    two = build(model, processor, parts)
    joined = torch.cat([rows(two, 2), rows(two, 4)])
    torch.testing.assert_close(joined, rows(one, 2), rtol=0, atol=1e-5)


def test_units_of_a_video_in_two_pieces_equal_one_piece(omni: tuple[Any, Any]) -> None:
    model, processor = omni
    clip, samples = frames(6, 7), sound(6, 3.6)
    one = build(model, processor, turn(p.AvPiece(clip, samples)))
    two = build(model, processor, turn(p.AvPiece(clip, samples, 0, 1), p.AvPiece(clip, samples, 1, 1)))
    joined = torch.cat([rows(two, 2, 2), rows(two, 3, 2)])
    torch.testing.assert_close(joined, rows(one, 2, 2), rtol=0, atol=1e-5)
    start = two.marks[3][0]
    assert int(two.positions[0, start + 2]) == int(two.positions[:, :start].max()) + 2, "each piece counts from 0"


def test_greedy_equals_repeated_dense_forward(omni: tuple[Any, Any]) -> None:
    model, processor = omni
    prompt = turn(p.VideoPiece(frames(1, 4)), p.ImagePiece(picture(2)))
    ids, logits = greedy(model, build(model, processor, prompt), 6)
    whole = build(model, processor, [*prompt, p.Tokens(ids)])
    dense = forward(model, whole)[whole.marks[-1][0] - 1 : -1]
    torch.testing.assert_close(dense, logits, rtol=0, atol=1e-4)
    assert dense.argmax(-1).tolist() == ids


def test_media_inside_a_reply_goes_on_behind_everything(omni: tuple[Any, Any]) -> None:
    model, processor = omni
    pieces = [*turn(p.VideoPiece(frames(1, 4))), p.Tokens([5, 6]), p.VideoPiece(frames(2, 4)), p.Tokens([7])]
    built = build(model, processor, pieces)
    for earlier, later in zip(built.marks[5:], built.marks[6:], strict=False):
        before = int(built.positions[:, : earlier[1]].max())
        assert built.positions[:, later[0]].tolist() == [before + 1] * 3
    assert built.next_position == int(built.positions.max()) + 1


@pytest.mark.parametrize("omni_name", ["omni", "qwen3_omni"], indirect=True)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_omni_fixture_sees(omni: tuple[Any, Any], seed: int) -> None:
    sight = sees(*omni, seed)
    assert sight.accepted, sight


def test_the_text_fixture_varies(text_qwen: tuple[Any, Any]) -> None:
    model, tokenizer = text_qwen
    replies = []
    for question in (QUESTION, "Who came in?", "Is the light on or off?"):
        ids, logits = greedy(model, build(model, tokenizer, turn_of_text(question)), REPLY)
        assert len(set(ids)) >= 8
        assert smallest_margin(logits) > 1e-2
        replies.append(tuple(ids))
    assert len(set(replies)) == 3


def test_text_equals_stock_generation(text_qwen: tuple[Any, Any]) -> None:
    model, tokenizer = text_qwen
    messages = [{"role": "system", "content": "You watch a door."}, {"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ours = build(model, tokenizer, turn_of_text(QUESTION))
    assert ours.ids.tolist() == prompt["input_ids"][0].tolist()
    theirs = model.generate(**prompt, max_new_tokens=REPLY, do_sample=False)[0, len(ours.ids) :]
    assert greedy(model, ours, REPLY)[0] == theirs.tolist()


def turn_of_text(question: str) -> list[p.Piece]:
    return [p.System("You watch a door."), p.UserStart(), p.Text(question), p.UserEnd(), p.AssistantStart()]
