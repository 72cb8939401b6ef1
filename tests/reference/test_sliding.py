"""The reference for streams that have slid is tested against stock `transformers`, where that can do the case."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch

from tests.fixtures.loaded import WORDS, plain
from tests.reference import pieces as p
from tests.reference.dense import Sequence, build, forward
from tests.reference.media import picture
from tests.reference.sliding import Held

FAMILIES = ("omni", "qwen2_5_vl", "qwen3_vl", "llava", "gemma3", "text", "llama")
KNOWN = 4096
WORDS_BEFORE = "A brook runs down from the hill, past the mill and through the meadow to the river."
WORDS_BEHIND = "In the evening grey clouds come over the mountain, and the man with the black hat goes home."


@cache
def laid(name: str) -> Sequence:
    """Words, a picture where the model takes pictures, words."""
    seen = [] if name in WORDS else [p.ImagePiece(picture(1))]
    words = p.Text(WORDS_BEFORE), *seen, p.Text(WORDS_BEHIND)
    return build(*plain(name), [p.System("You watch a door."), p.UserStart(), *words, p.UserEnd()])


@cache
def shallow(name: str, layer: int = 0) -> Any:
    """The model with one of its layers: a key or value there tells of its own row alone."""
    model = deepcopy(plain(name)[0])
    inner = getattr(model.model, "language_model", model.model)
    inner.layers = inner.layers[layer : layer + 1]
    inner.layers[0].self_attn.layer_idx = 0
    inner.config.num_hidden_layers = 1
    if name == "gemma3":
        inner.config.layer_types = inner.config.layer_types[layer : layer + 1]
    return model


def feed(stream: Held, sequence: Sequence, start: int, stop: int, climb: int = 0) -> torch.Tensor:
    """Feed rows `[start, stop)`, cut into sevens but never within an image of Gemma's; its logits."""
    logits = []
    while start < stop:
        image = next((end for begin, end in sequence.mutual if begin == start), None)
        until = min([image or start + 7, stop, *(begin for begin, _ in sequence.mutual if begin > start)])
        rows = slice(start, until)
        deep = [layer[rows] for layer in sequence.deep]
        logits.append(
            stream.feed(sequence.embeds[rows], sequence.positions[:, rows] + climb, image is not None, deep or None)
        )
        start = until
    return torch.cat(logits)


def survivors(sequence: Sequence, rows: list[int], positions: torch.Tensor) -> Sequence:
    mutual = tuple((rows.index(start), rows.index(stop - 1) + 1) for start, stop in sequence.mutual)
    deep = [layer[rows] for layer in sequence.deep]
    return Sequence(sequence.ids[rows], positions, sequence.embeds[rows], deep, (), 0, mutual)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stream_that_never_slid_is_a_stock_forward(name: str) -> None:
    model, _ = plain(name)
    sequence = laid(name)
    expected, count = forward(model, sequence), len(sequence.ids)
    if not sequence.mutual:
        whole = Held(model, KNOWN).feed(sequence.embeds, sequence.positions, deep=sequence.deep)
        torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)
    for known, near in ((30, 1e-4), (KNOWN, 5e-5)):  # the rows from 30 on have float64 angles in the first
        stream = Held(model, known)
        torch.testing.assert_close(feed(stream, sequence, 0, count), expected, atol=near, rtol=0)
    other = stream.copy()
    other.truncate(count - 3)
    torch.testing.assert_close(feed(other, sequence, count - 3, count), expected[-3:], atol=5e-5, rtol=0)
    assert stream.now == other.now == count


# Three rows are pinned; of the words before the window four stay as the memory; the window begins at BEGIN.
PINNED, MEMORY, BEGIN, LAST = [0, 1, 2], [10, 11, 13, 14], 20, 25
ONE_LAYER = [(name, 0) for name in FAMILIES] + [("gemma3", 1)]  # Gemma's first has a window, its second has none


def slid(name: str, layer: int = 0, climb: int = 0, wrong: str = "") -> torch.Tensor:
    """The largest difference between what a stream that slid twice says of the rows from `LAST` on, and a stock
    forward over what is held. The stream's clock begins at `climb`."""
    sequence, model = laid(name), shallow(name, layer)
    stream = Held(model, KNOWN)
    feed(stream, sequence, 0, 18, climb)
    pinned = [(row, row + climb) for row in PINNED]
    stream.slide(pinned, 4, [(row, row + climb) for row in range(7, 16)], 2, 16)  # the next slide's lifts replace these
    feed(stream, sequence, 18, LAST, climb)
    memory = [(row, place) for place, row in enumerate(MEMORY, start=len(PINNED))]
    lift = BEGIN - len(PINNED) - len(MEMORY)
    lift_pinned = {"pinned twice": 2 * lift, "pinned off by one": lift + 1}.get(wrong, lift)
    raised = lift + climb
    lift_memory = {"memory twice": 2 * raised, "memory off by one": raised + 1}.get(wrong, raised)
    stream.slide(pinned, lift_pinned, memory, lift_memory, 16 if wrong == "begin ignored" else BEGIN)
    rows = [*PINNED, *MEMORY, *range(BEGIN, len(sequence.ids))]
    front = len(PINNED) + len(MEMORY)
    window = sequence.positions[:, BEGIN:] - sequence.positions[0, BEGIN] + front
    positions = torch.cat([torch.arange(front).expand(3, -1), window], dim=1)
    expected = forward(model, survivors(sequence, rows, positions))[LAST - BEGIN + front :]
    return (feed(stream, sequence, LAST, len(sequence.ids), climb) - expected).abs().max()


@pytest.mark.parametrize("climb", [0, 3_000_000_000])
@pytest.mark.parametrize(("name", "layer"), ONE_LAYER)
def test_where_keys_carry_no_trace_a_slid_stream_is_a_stock_forward_over_what_is_held(
    name: str, layer: int, climb: int
) -> None:
    assert slid(name, layer, climb) < 1e-4


@pytest.mark.parametrize(
    "wrong", ["pinned twice", "pinned off by one", "memory twice", "memory off by one", "begin ignored"]
)
@pytest.mark.parametrize(("name", "layer"), [("omni", 0), ("gemma3", 0), ("llama", 0)])
def test_a_wrong_slide_is_seen(name: str, layer: int, wrong: str) -> None:
    assert slid(name, layer, wrong=wrong) > 1e-2


def test_what_has_left_for_good_cannot_come_back() -> None:
    stream = Held(shallow("text"), KNOWN)
    feed(stream, laid("text"), 0, 20)
    stream.slide([(0, 0)], begin=10)
    with pytest.raises(ValueError, match="expected some of those held"):
        stream.slide([(3, 3)], begin=12)
    with pytest.raises(ValueError, match="begin: expected 10 to 20, got 9"):
        stream.slide(begin=9)
    with pytest.raises(ValueError, match="row: expected 10 to 20, got 4"):
        stream.truncate(4)
