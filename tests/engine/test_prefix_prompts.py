"""Whole prompts that begin alike share pages: with the same words and the same media, whatever comes after."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import pytest
import torch
from penstock.engine.command import Close
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.engine.runner.encoder import Encoder
from penstock.engine.runner.spans import SpanStore
from penstock.streams.event import ReplyDone, Token
from penstock.streams.requests.prompt import Content, Media
from penstock.streams.requests.request import Request, SamplingParams

from tests.fixtures.recipe import model_path
from tests.reference.media import frames, picture, sound

REPLY, SIZE = 6, 4
streams = itertools.count(3_000_000)  # no other test opens these
FIRST, OTHER, CLIP, OTHER_CLIP = picture(1, 84, 84), picture(2, 84, 84), frames(3, 4), frames(4, 4)
SOUND, OTHER_SOUND = sound(5, 1.3), sound(6, 1.3)

Turn = dict[str, Any]


def asked(*parts: Any) -> Turn:
    """A user turn of words and of (kind, media)."""
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": p[0], p[0]: p[1]} for p in parts]
    return {"role": "user", "content": content}


def answered(words: str) -> Turn:
    return {"role": "assistant", "content": [{"type": "text", "text": words}]}


class Prompted(NamedTuple):
    """What came of a prompt: the reply's ids and logits, the rows that were found, and where its media stands."""

    ids: list[int]
    logits: torch.Tensor
    cached: int
    media: list[tuple[int, int]]


class Shared:
    """One engine, on which prompts come one after the other."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.core = Core(loaded, EngineConfig(kv_tokens=4096, page_tokens=SIZE, backend="cpu"))

    def asks(self, *turns: Turn, **request: Any) -> Prompted:
        """The reply is that of an engine on which nothing was before."""
        given = Request(messages=list(turns), params=SamplingParams(max_tokens=REPLY), **request)
        config = EngineConfig(kv_tokens=4096, page_tokens=SIZE, backend="cpu", prefix_cache=False)
        alone, again = replied(Core(self.loaded, config), given), replied(self.core, given)
        assert len(alone.ids) == REPLY and alone.cached == 0
        assert again.ids == alone.ids
        torch.testing.assert_close(again.logits, alone.logits, rtol=0, atol=1e-4)
        return again


def replied(core: Core, request: Request) -> Prompted:
    stream = next(streams)
    core.open(stream, request)
    core.prompt(stream, request)
    state = core.scheduler.streams[stream]
    media = [(row, row + len(run)) for row, run in zip(state.starts, state.laid, strict=True) if run.seen]
    events, logits = core.scheduler.events(), []
    while (done := core.step()) is not None:
        core.scheduler.check()
        if done[1].tokens:
            assert core.language.logits is not None
            logits.append(core.language.logits[0].clone())
        events += core.scheduler.events()
    core.scheduler.apply(Close(stream, "closed"))
    (done,) = [event for _, event in events if isinstance(event, ReplyDone)]
    ids = [event.id for _, event in events if isinstance(event, Token)]
    return Prompted(ids, torch.stack(logits), done.cached, media)


def begin_alike(loaded: Loaded, kind: str, one: Any, other: Any, apart: bool = True) -> None:
    """`apart`: it is known which rows are of which piece of media, and what comes later changes none of them."""
    shared = Shared(loaded)

    def look(piece: Any, question: str) -> Turn:
        return asked("Look here, and say no more than you have to:", (kind, piece), question)

    first = shared.asks(look(one, "What is it?"))
    assert first.cached == 0
    (start, _), (_, stop) = first.media[0], first.media[-1]
    same = shared.asks(look(one, "Who, then?"))
    assert same.cached > stop - SIZE, "the words and the media before the question"
    another = shared.asks(look(other, "What is it?"))
    assert another.media == first.media and start - SIZE < another.cached <= start, (
        "other media, though the ids are not"
    )

    talk = look(one, "What is it?"), answered("A door.")
    longer = shared.asks(*talk, asked((kind, other), "And this?"))
    assert longer.cached > stop - SIZE if apart else longer.cached <= stop
    end = longer.media[-1][1]
    assert shared.asks(*talk, asked((kind, other), "And that?")).cached > end - SIZE
    assert shared.asks(*talk, asked((kind, one), "And that?")).cached < end - SIZE, "the second is another"
    assert shared.asks(*talk, asked((kind, other), "And that?"), cache_salt="a tenant").cached == 0


@pytest.mark.parametrize(("kind", "one", "other"), [("image", FIRST, OTHER), ("video", CLIP, OTHER_CLIP)])
def test_pictures_on_three_axes(sight_served: Loaded, kind: str, one: Any, other: Any) -> None:
    begin_alike(sight_served, kind, one, other)


def test_pictures_on_one_axis(still_name: str, still_served: Loaded) -> None:
    """Where pictures may be cut into tiles, all of a prompt count as one."""
    begin_alike(still_served, "image", FIRST, OTHER, apart=still_name in ("llava", "gemma3"))


def test_sound(omni_loaded: Loaded) -> None:
    """The tower gives the sounds of a prompt in one."""
    begin_alike(omni_loaded, "audio", SOUND, OTHER_SOUND, apart=False)


def test_other_options_make_another_picture(sight_served: Loaded) -> None:
    shared = Shared(sight_served)
    turn = asked("Look here, and say no more than you have to:", ("image", picture(1, 168, 168)), "What is it?")
    size = sight_served.family.spec.image
    assert size is not None
    least = {"min_pixels": size.factor**2}
    first = shared.asks(turn, processor=least | {"max_pixels": 168 * 168})
    again = shared.asks(turn, processor=least | {"max_pixels": 168 * 168})
    ((start, stop),) = first.media
    assert first.cached == 0 and again.cached > stop
    assert shared.asks(turn, processor=least | {"max_pixels": 168 * 168 + 1}).cached <= start


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3", "smolvlm", "llava_onevision"])
def test_media_that_was_before_goes_through_no_tower(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked about it; the rows and their embeddings are those that the tower would have made."""
    towers, passes = load(model_path(name), EngineConfig()).towers, []
    encode: Any = towers.encode_prompt  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(towers, "encode_prompt", lambda inputs: passes.append(1) or encode(inputs))
    store = SpanStore()
    encoder, none = Encoder(towers, 1 << 20, store), Encoder(towers, 0, store)

    def embeds(encoder: Encoder, question: str, pixels: Any) -> list[torch.Tensor]:
        content = [{"type": "image", "image": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        prompt = encoder.prompt(Content([Media("image", pixels)], messages, video_fps=1.0))
        named = [store.get(run.stored) for run in prompt.rows if run.stored is not None]
        return [tensor for part in named for tensor in (part.rows, part.deep) if tensor is not None]

    first = embeds(encoder, "What is it?", FIRST)
    again = embeds(encoder, "Who is it, then?", FIRST.copy())
    assert len(passes) == 1 and first and all(map(torch.equal, first, again))
    other = embeds(encoder, "What is it?", OTHER)
    assert len(passes) == 2 and not all(map(torch.equal, first, other))
    assert 0 < encoder.cached_bytes <= 1 << 20
    assert all(map(torch.equal, first, embeds(none, "What is it?", FIRST)))
    assert all(map(torch.equal, first, embeds(none, "What is it?", FIRST)))
    assert len(passes) == 4 and none.cached_bytes == 0
