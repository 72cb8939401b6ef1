"""A test of the tests: what is wrong in the engine turns the comparison with the reference red.

Each mutation breaks one thing. Those of positions and pages must show in the logits alone; those that lose rows show
in ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from penstock.engine import positions
from penstock.engine.config import EngineConfig
from penstock.engine.conversation import layout
from penstock.engine.conversation.layout import Layout
from penstock.engine.conversation.state import StreamState
from penstock.engine.core import Core
from penstock.engine.embeddings import Embeddings
from penstock.engine.family import Family, Loaded
from penstock.engine.loading.open import load
from penstock.engine.positions import Block, Cursor
from penstock.engine.runner.attention import Step
from penstock.engine.runner.cache import Cache
from penstock.engine.runner.language import LanguageModel
from penstock.engine.runner.spans import SpanStore
from penstock.engine.span import Rows, Stored
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.fixtures.recipe import model_path

from .acts import Client
from .rig import Rig, Session
from .story import Clip

Mutation = Callable[[pytest.MonkeyPatch], None]


def cursor_off_by_one(patch: pytest.MonkeyPatch) -> None:
    leave = Block.leave

    def late(self: Block, cursor: Cursor, rule: str) -> None:
        leave(self, cursor, rule)
        cursor.text_next += 1
        cursor.reply_next += 1

    patch.setattr(Block, "leave", late)


def height_and_width_swapped(patch: pytest.MonkeyPatch) -> None:
    grid = positions.grid
    patch.setattr(positions, "grid", lambda *place: grid(*place)[[0, 2, 1]])


def wrong_second_per_grid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Family, "grid_seconds", lambda self, fps: 0.5)


def stale_page(patch: pytest.MonkeyPatch) -> None:
    """A page that is added to a sequence does not reach the runner's page table."""
    move = Cache.move

    def forgetful(self: Cache, plan: Any) -> Any:
        plan.edits[:] = [edit for edit in plan.edits if edit.index == 0]
        return move(self, plan)

    patch.setattr(Cache, "move", forgetful)


def features_dropped(patch: pytest.MonkeyPatch) -> None:
    """A span's rows are fed as the embeddings of their placeholder ids."""
    media = Layout.media

    def plain(self: Layout, span: Any) -> list[Rows]:
        return [msgspec.structs.replace(rows, stored=None) for rows in media(self, span)]

    patch.setattr(layout.Layout, "media", plain)


def features_in_another_order(patch: pytest.MonkeyPatch) -> None:
    """Spans are fed with the rows of their features in another order."""
    get = SpanStore.get

    def turned(self: SpanStore, stored: Stored) -> Embeddings:
        return get(self, stored).part(torch.arange(stored.stop - stored.start - 1, -1, -1))

    patch.setattr(SpanStore, "get", turned)


def span_skipped(patch: pytest.MonkeyPatch) -> None:
    append, calls = Core.append, iter(range(1000))

    def lossy(self: Core, stream: int, seq: int, segments: list[Any]) -> None:
        append(self, stream, seq, segments[:0] if next(calls) == 3 else segments)

    patch.setattr(Core, "append", lossy)


def append_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "append", lambda self, stream, seq, segments: None)


def token_dropped(patch: pytest.MonkeyPatch) -> None:
    """A sampled token is told, but not fed."""
    lay, calls = StreamState.lay, iter(range(1000))

    def lossy(self: StreamState, rows: list[Rows]) -> None:
        sampled = len(rows) == 1 and len(rows[0]) == 1
        lay(self, [] if sampled and next(calls) == 4 else rows)

    patch.setattr(StreamState, "lay", lossy)


def words_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """The fifth token of a reply stands one position too far."""
    token, calls = Cursor.token, iter(range(1000))

    def late(self: Cursor) -> np.ndarray:
        return token(self) + (next(calls) == 4)

    patch.setattr(Cursor, "token", late)


def words_dropped(patch: pytest.MonkeyPatch) -> None:
    """Text that comes into a running reply is lost."""
    text = Core.text
    patch.setattr(Core, "text", lambda self, stream, seq, words, *rest: text(self, stream, seq, "", *rest))


IN_LOGITS: list[Mutation] = [
    cursor_off_by_one,
    height_and_width_swapped,
    wrong_second_per_grid,
    stale_page,
    features_dropped,
    features_in_another_order,
]
IN_ROWS: list[Mutation] = [span_skipped, append_does_nothing, token_dropped]


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def spoken(loaded: Loaded) -> Session:
    """A reply that what the model takes is spliced into: pairs of frames, pictures, or words."""
    kinds = {"video": "pair", "image": "image"}
    media = [kind for modality, kind in kinds.items() if modality in loaded.family.modalities] or ["text"]
    rig = Rig(loaded, page_tokens=16, kv_tokens=2048)
    client = Client(rig.open(format="live", video_fps=2.0))
    for _ in range(3):
        client.do(media[0])
    client.do("ask", max_tokens=16)
    rig.step(3)
    for kind in (media[0], media[0], media[-1]):
        client.do(kind)
        rig.step(3)
    rig.run()
    return client.session


def test_without_a_mutation_it_is_green(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    assert spoken(omni_loaded).check(*omni) == 16


@pytest.mark.parametrize("mutate", IN_LOGITS, ids=lambda mutate: mutate.__name__)
def test_the_logits_turn_red(
    omni: tuple[Any, Any], omni_loaded: Loaded, patch: pytest.MonkeyPatch, mutate: Mutation
) -> None:
    mutate(patch)
    session = spoken(omni_loaded)
    with pytest.raises(AssertionError, match="logits differ"):
        session.check_logits(omni[0], session.expected(*omni))


@pytest.mark.parametrize(
    "mutate",
    [cursor_off_by_one, height_and_width_swapped, wrong_second_per_grid, *IN_ROWS],
    ids=lambda mutate: mutate.__name__,
)
def test_the_rows_turn_red(
    omni: tuple[Any, Any], omni_loaded: Loaded, patch: pytest.MonkeyPatch, mutate: Mutation
) -> None:
    mutate(patch)
    session = spoken(omni_loaded)
    with pytest.raises(AssertionError):
        session.check_places(session.expected(*omni))


def test_one_frame_swapped_turns_the_logits_red(omni: tuple[Any, Any], omni_loaded: Loaded) -> None:
    session = spoken(omni_loaded)
    clip = next(part for part in session.story.parts if isinstance(part, Clip))
    object.__setattr__(clip, "frames", tuple(np.ascontiguousarray(frame[::-1]) for frame in clip.frames))
    with pytest.raises(AssertionError, match="logits differ"):
        session.check(*omni)


def test_deepstack_dropped_turns_the_logits_red(
    sight_name: str, sight_plain: tuple[Any, Any], sight_served: Loaded, patch: pytest.MonkeyPatch
) -> None:
    """What the tower gives for the first layers counts, where it gives any."""
    assert spoken(sight_served).check(*sight_plain) == 16
    patch.setattr(LanguageModel, "_deep", lambda self, deep: {})
    if sight_name != "qwen3_vl":
        assert spoken(sight_served).check(*sight_plain) == 16
        return
    with pytest.raises(AssertionError, match="logits differ"):
        spoken(sight_served).check(*sight_plain)


def no_window(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Step, "seen", lambda self, window: self.parts[None])


def rows_see_back_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Family, "atomic", lambda self, modality: False)


def newline_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LanguageModel, "_forward", without_single_features(LanguageModel._forward))


def without_single_features(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A row of features that stands alone is fed as its placeholder."""

    def plain(self: LanguageModel, feeds: list[Any]) -> Any:
        for feed in feeds:
            feed.rows[:] = [msgspec.structs.replace(r, stored=None) if len(r) == 1 else r for r in feed.rows]
        return forward(self, feeds)

    return plain


@pytest.mark.parametrize(
    ("name", "mutate"),
    [("gemma3", no_window), ("gemma3", rows_see_back_only), ("llava_onevision", newline_dropped)],
)
def test_what_one_family_has_of_its_own_counts(name: str, mutate: Mutation, patch: pytest.MonkeyPatch) -> None:
    path = model_path(name)
    plain = AutoModelForImageTextToText.from_pretrained(path), AutoProcessor.from_pretrained(path)
    loaded = load(path, EngineConfig())
    kind = "frame" if "video" in loaded.family.modalities else "image"

    def told() -> Session:
        rig = Rig(loaded)
        client = Client(rig.open(format="live", video_fps=2.0))
        client.do(kind)
        client.do("ask", max_tokens=16)
        rig.step(3)
        client.do(kind)
        rig.run()
        return client.session

    assert told().check(*plain) == 16
    mutate(patch)
    with pytest.raises(AssertionError, match="logits differ"):
        told().check(*plain)


def turns_red(loaded: Loaded, plain: tuple[Any, Any], patch: pytest.MonkeyPatch, mutate: Mutation) -> None:
    assert spoken(loaded).check(*plain) == 16
    mutate(patch)
    session = spoken(loaded)
    with pytest.raises(AssertionError):
        session.check(*plain)


OF_MEDIA: list[Mutation] = [append_does_nothing, cursor_off_by_one, features_in_another_order, span_skipped]
OF_WORDS: list[Mutation] = [stale_page, token_dropped, words_off_by_one, words_dropped]


@pytest.mark.parametrize("mutate", OF_MEDIA, ids=lambda mutate: mutate.__name__)
def test_models_that_only_see_turn_red_too(
    sight_plain: tuple[Any, Any], sight_served: Loaded, patch: pytest.MonkeyPatch, mutate: Mutation
) -> None:
    turns_red(sight_served, sight_plain, patch, mutate)


@pytest.mark.parametrize("mutate", OF_MEDIA, ids=lambda mutate: mutate.__name__)
def test_models_of_one_axis_turn_red_too(
    still_plain: tuple[Any, Any], still_served: Loaded, patch: pytest.MonkeyPatch, mutate: Mutation
) -> None:
    turns_red(still_served, still_plain, patch, mutate)


@pytest.mark.parametrize("omni_name", ["qwen3_omni"], indirect=True)
@pytest.mark.parametrize("mutate", OF_MEDIA, ids=lambda mutate: mutate.__name__)
def test_the_omni_of_experts_turns_red_too(
    omni: tuple[Any, Any], omni_loaded: Loaded, patch: pytest.MonkeyPatch, mutate: Mutation
) -> None:
    turns_red(omni_loaded, omni, patch, mutate)


@pytest.mark.parametrize("mutate", OF_WORDS, ids=lambda mutate: mutate.__name__)
def test_models_of_text_turn_red_too(
    text_plain: tuple[Any, Any], text_served: Loaded, patch: pytest.MonkeyPatch, mutate: Mutation
) -> None:
    turns_red(text_served, text_plain, patch, mutate)
