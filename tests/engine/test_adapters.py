"""What a stream says that wears an adapter equals what the model says into which it was merged, W + scale * B A, by
plain `transformers`; beside streams that wear another, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.family import Loaded
from penstock.engine.loading.adapter import read_adapter
from penstock.engine.loading.open import load
from penstock.errors import InputError
from penstock.streams.event import ReplyDone, Token
from penstock.streams.requests.request import Request, SamplingParams
from transformers import AutoModelForImageTextToText

from tests.fixtures.adapters import ATTENTION, MLP, TOWERS, adapter, linears, merge, merged, write_adapter
from tests.fixtures.loaded import WORDS, plain, served
from tests.fixtures.recipe import model_path
from tests.reference.media import picture

from . import tried
from .acts import Act, Client, perform
from .rig import Rig
from .test_oracle1 import assert_equal, generated, stock, turn

Make = Callable[..., Rig]
REPLY = 10
WORDY = [{"role": "user", "content": "door door door"}]
IMAGE = picture(1, 100, 70)
# Those with one of the shapes: a decoder alone; three axes; features for deeper layers; sound and experts; one axis;
# rows of a picture that see one another.
SLOW = ("qwen2_5_vl", "qwen3_omni", "llava", "llava_onevision")
MODELS = ("text", "qwen3_vl", "omni", "gemma3", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))


@pytest.fixture
def rig() -> Iterator[Make]:
    """Makes rigs over shared models, which are as they were after the test."""
    rigs: list[Rig] = []

    def make(loaded: Loaded, **config: Any) -> Rig:
        rigs.append(Rig(loaded, **{"kv_tokens": 2048, **config}))
        return rigs[-1]

    yield make
    for one in rigs:
        one.core.language.adapters.clear()


def media_of(name: str) -> list[str]:
    still = name in ("llava", "llava_onevision", "gemma3")
    return [] if name in WORDS else ["image"] if still else ["image", "pair", *(["sound"] if "omni" in name else [])]


def worn(name: str, which: int | None) -> tuple[Any, Any]:
    """The model with an adapter merged, and its processor."""
    return plain(name) if which is None else merged(name, which, towers=True)


@pytest.mark.parametrize("name", MODELS)
def test_two_adapters_and_the_base_in_one_batch(rig: Make, name: str) -> None:
    """Streamed, with media before the question and in the middle of the reply, and a second turn. In one batch and each
    alone the same is said, and it is what the merged models say."""
    together = rig(served(name))
    alone = {which: rig(served(name)) for which in (1, 2, None)}
    clients: dict[int | None, tuple[Client, Client]] = {}
    for which, own in alone.items():
        for one in (together, own) if which else ():
            one.core.load_adapter(str(which), adapter(name, which, towers=True))
        asked = {"adapter": None if which is None else str(which), "format": "live"}
        clients[which] = Client(together.open(**asked)), Client(own.open(**asked))
    kinds = media_of(name)
    for place, (first, second) in enumerate(clients.values()):
        for client in (first, second):
            for kind in kinds:
                client.do(kind)
            client.do("ask", place, max_tokens=REPLY)
    for act in (*(Act(2, kind, 1) for kind in kinds), Act(1, "text", 1)):
        for pair in clients.values():
            for client in pair:
                client.do(act.kind, act.size)
        for one in (together, *alone.values()):
            one.step(act.steps)
    for one in (together, *alone.values()):
        one.run()
    for pair in clients.values():
        for client in pair:
            client.do("ask", 1, max_tokens=4)
    for one in (together, *alone.values()):
        one.run()
    said = set()
    for which, (first, second) in clients.items():
        assert first.session.check(*worn(name, which)) == REPLY + 4
        assert [token for token, _ in first.session.draws.values()] == [
            token for token, _ in second.session.draws.values()
        ]
        said.add(tuple(token for token, _ in first.session.draws.values()))
    assert len(said) == 3, "expected adapters that change what is said"


@pytest.mark.parametrize("name", ["omni", "qwen3_vl", "llava"])
def test_one_shot(rig: Make, name: str) -> None:
    core = rig(served(name)).core
    for which in (1, 2):
        core.load_adapter(str(which), adapter(name, which, towers=True))
    messages = [turn(("image", IMAGE), "What do you see?")]
    for stream, which in enumerate((1, None, 2), 2_000_000):
        named = None if which is None else str(which)
        params = SamplingParams(max_tokens=16)
        request = Request(messages=messages, positions="transformers", params=params, adapter=named)
        assert_equal(one_shot(core, stream, request), stock(*worn(name, which), messages))


def one_shot(core: Any, stream: int, request: Request) -> tuple[list[int], list[torch.Tensor], str]:
    core.open(stream, request)
    core.prompt(stream, request)
    ids, logits, events = [], [], core.scheduler.events()
    while (done := core.step()) is not None:
        ids += done[1].tokens
        logits += [core.language.logits[0].clone()] if done[1].tokens else []
        events += core.scheduler.events()
    (reason,) = [event.reason for _, event in events if isinstance(event, ReplyDone)]
    return ids, logits, reason


@pytest.mark.parametrize("name", ["llama", "qwen2_5_vl"])
def test_the_librarys_own_decoder(rig: Make, name: str) -> None:
    one = rig(served(name)._replace(fast=None))
    one.core.load_adapter("a", adapter(name, 1, towers=True))
    clients = [Client(one.open(adapter=named)) for named in ("a", None)]
    for client in clients:
        perform(one, client, [Act(0, kind) for kind in media_of(name)])
        client.do("ask", max_tokens=REPLY)
    one.run()
    for client, which in zip(clients, (1, None), strict=True):
        assert client.session.check(*worn(name, which)) == REPLY


def test_scales_and_ranks_of_single_layers(rig: Make, tmp_path: Path) -> None:
    model, tokenizer = plain("qwen3")
    said = {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 1.5}}
    folder = write_adapter(tmp_path / "a", model, linears(model, ("q_proj", "down_proj", "o_proj")), **said)
    one = rig(served("qwen3"))
    one.core.load_adapter("a", folder)
    session = one.open(adapter="a")
    session.ask("Who came in?", max_tokens=REPLY)
    one.run()
    assert session.check(merge(model, folder), tokenizer) == REPLY


def test_packed_and_quantised_layers(rig: Make) -> None:
    """Over layers in int8 an adapter does what it does over the same weights as floats: nothing is merged."""
    path, folder = model_path("llama"), adapter("llama", 1)
    small, model = load(path, EngineConfig(quantize="int8")), merge(plain("llama")[0], folder)
    for name, layer in small.text.named_modules():
        if hasattr(layer, "scale"):
            told = f"model.{name}"
            delta = model.get_submodule(told).weight.data - plain("llama")[0].get_submodule(told).weight.data
            model.get_submodule(told).weight.data = layer.weight.float() * layer.scale[:, None] + delta
    one = rig(small)
    one.core.load_adapter("a", folder)
    session = one.open(adapter="a")
    session.ask("Who came in?", max_tokens=REPLY)
    one.run()
    sequence = session.expected(model, plain("llama")[1])
    from tests.reference.dense import forward

    dense = forward(model, sequence)
    for row, (_, logits) in session.draws.items():
        assert float((logits - dense[row]).abs().max()) < 0.01 * float(dense[row].abs().max())


def test_a_model_that_nobody_named(rig: Make, tmp_path: Path) -> None:
    """The checkpoint with the adapter merged, saved and loaded, says the same."""
    path = tried.llava_next(tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(path)
    folder = write_adapter(tmp_path / "a", model, linears(model, (*ATTENTION, *MLP, *TOWERS)))
    core = rig(load(path, EngineConfig())).core
    assert core.load_adapter("a", folder).encodes
    for file in path.iterdir():
        (tmp_path / "merged").mkdir(exist_ok=True)
        (tmp_path / "merged" / file.name).write_bytes(file.read_bytes())
    merge(model, folder).save_pretrained(tmp_path / "merged")
    request = Request(messages=[turn(("image", IMAGE), "What do you see?")], params=SamplingParams(max_tokens=16))
    ids, logits, _ = generated(load(tmp_path / "merged", EngineConfig()), request)
    got = one_shot(core, 2_000_100, Request(messages=request.messages, params=request.params, adapter="a"))
    assert got[0] == ids != generated(core.loaded, request)[0]
    torch.testing.assert_close(torch.stack(got[1]), torch.stack(logits), rtol=0, atol=1e-4)


# What is computed under one adapter is never used under another.


def test_pages_of_another_adapter_are_not_found(rig: Make, tmp_path: Path) -> None:
    """Nor those of the base, nor of an adapter that had this name; those of the same content are."""
    one = rig(served("qwen2_5_vl"), page_tokens=4)
    model, _ = plain("qwen2_5_vl")
    layers = linears(model, (*ATTENTION, *MLP))
    folders = [write_adapter(tmp_path / str(seed), model, layers, seed) for seed in (1, 2, 1)]
    seen: list[tuple[str | None, int]] = []

    def say(named: str | None, merged_in: Path | None) -> None:
        session = one.open(format="turns", system="You watch a door, and say who comes.", adapter=named)
        session.image(picture(1))
        session.ask("Who came in?", max_tokens=4)
        one.run()
        session.check(plain("qwen2_5_vl")[0] if merged_in is None else merge(model, merged_in), plain("qwen2_5_vl")[1])
        seen.append((named, session.of(ReplyDone)[0].cached))
        session.close()
        one.run()

    say(None, None)
    for folder in folders:  # each has the name of the one before
        one.core.load_adapter("a", folder)
        say("a", folder)
        say("a", folder)
    say(None, None)
    found = [cached for _, cached in seen]
    assert not any(found[place] for place in (0, 1, 3)), seen
    assert all(found[place] > 8 for place in (2, 4, 5, 6, 7)), seen


@pytest.mark.parametrize("towers", [True, False])
def test_the_encoders_cache_knows_the_adapter(rig: Make, towers: bool) -> None:
    """A picture is encoded once for each adapter that changes the towers; one that does not takes what the base has."""
    core = rig(served("llava")).core
    core.encoder._limit = 1 << 20
    folders = {str(which): adapter("llava", which, towers) for which in (1, 2)}
    if not towers:
        model, _ = plain("llava")
        inside = linears(model, ATTENTION, inside="language_model")
        folders = {
            name: write_adapter(folder.parent / f"text-{name}", model, inside) for name, folder in folders.items()
        }
    for name, folder in folders.items():
        core.load_adapter(name, folder)
    request = Request(messages=[turn(("image", IMAGE), "Well?")], params=SamplingParams(max_tokens=8))
    for round in range(2):
        for number, name in enumerate((None, "1", "2")):
            stream = 2_000_200 + 10 * round + number
            for_it = Request(messages=request.messages, params=request.params, adapter=name)
            ids, _, _ = one_shot(core, stream, for_it)
            if towers:
                which = None if name is None else int(name)
                assert ids == stock(*worn("llava", which), list(request.messages or []))[0][:8]
    assert len(core.encoder._cache) == (3 if towers else 1)
    core.encoder._limit = 0
    core.encoder._keep(b"", next(iter(core.encoder._cache.values())))


def test_where_towers_are_elsewhere(rig: Make, tmp_path: Path) -> None:
    """An adapter of the decoder is worn; one that changes towers, which are not here, is refused."""
    alone = load(model_path("qwen2_5_vl"), EngineConfig(language_only=True))
    model, processor = plain("qwen2_5_vl")
    folder = write_adapter(tmp_path / "a", model, linears(model, (*ATTENTION, *MLP), inside="language_model"))
    core = rig(alone).core
    with pytest.raises(InputError, match="of the decoder, since media is encoded elsewhere, got .*visual"):
        core.load_adapter("b", adapter("qwen2_5_vl", 1, towers=True))
    assert not core.load_adapter("a", folder).encodes
    messages = [turn("What do you see?")]
    request = Request(messages=messages, params=SamplingParams(max_tokens=16), adapter="a")
    assert_equal(one_shot(core, 2_000_300, request), stock(merge(model, folder), processor, messages))


@pytest.mark.parametrize("speculative", ["ngram", "draft"])
def test_guessed_tokens(speculative: str) -> None:
    """Guesses are judged by the model with the adapter, whoever has guessed: the same is said."""
    path = model_path("text")
    draft = "ngram" if speculative == "ngram" else str(path)
    config = EngineConfig(kv_tokens=2048, backend="cpu", speculative=draft)
    loaded = load(path, config)
    plainly, guessing = (
        Core(loaded._replace(draft=None), EngineConfig(kv_tokens=2048, backend="cpu")),
        Core(loaded, config),
    )
    for name in (None, "a"):
        said = []
        for number, core in enumerate((plainly, guessing)):
            if name is not None:
                core.load_adapter(name, adapter("text", 1))
            request = Request(messages=WORDY, params=SamplingParams(max_tokens=40), adapter=name)
            stream = 2_000_400 + 10 * number + (name is None)
            core.open(stream, request)
            core.prompt(stream, request)
            events = [event for _, event in core.run()]
            said.append([event.id for event in events if isinstance(event, Token)])
        assert said[0] == said[1] and len(said[0]) == 40
    for core in (plainly, guessing):
        core.language.adapters.clear()


# Wrong adapters.


def spoil(folder: Path, **said: Any) -> Path:
    model, _ = plain("llama")
    return write_adapter(folder, model, linears(model, ATTENTION), **said)


CONFIGS = {
    "use_dora": True,
    "modules_to_save": ["lm_head"],
    "bias": "all",
    "peft_type": "LOHA",
    "init_lora_weights": "pissa",
    "target_parameters": ["mlp.experts.down_proj"],
    "trainable_token_indices": [1, 2],
    "fan_in_fan_out": True,
    "layer_replication": [[0, 2]],
    "lora_bias": True,
    "some_later_option": 3,
    "r": 0,
    "lora_alpha": "16",
    "rank_pattern": {"(a+)+b": 3},
    "target_modules": ["q_proj", "gate_proj"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_asks_for_more_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{name}.*expected .*, got "):
        read_adapter(spoil(tmp_path / "a", **{name: CONFIGS[name]}))
