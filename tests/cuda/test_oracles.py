"""Oracles 1 to 4 where numbers are rounded otherwise than in the reference: bfloat16 on the CPU, and with `-m gpu`
float32 and bfloat16 on CUDA.

The reference is a dense forward of plain `transformers` in float32 on the CPU over what the engine fed and said. The
engine's logits may differ from it by at most twice as much as those of plain `transformers` in bfloat16 do, and it says
a token that is, within that, the likeliest.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.family import Loaded
from penstock.engine.loading.open import load
from penstock.streams.requests.request import Request, SamplingParams
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
)

from tests.cuda import test_device
from tests.engine.acts import Act, Client, perform, strangers
from tests.engine.rig import Rig, Session
from tests.engine.test_oracle1 import CASES, generated, stock
from tests.fixtures.recipe import model_path
from tests.reference.dense import forward

REPLY = 16
LOADERS: dict[str, tuple[Any, Any]] = {
    "omni": (Qwen2_5OmniThinkerForConditionalGeneration, Qwen2_5OmniProcessor),
    "qwen3_vl": (AutoModelForImageTextToText, AutoProcessor),
    "gemma3": (AutoModelForImageTextToText, AutoProcessor),
    "text": (AutoModelForCausalLM, AutoTokenizer),
}
MEDIA = {
    "omni": ["pair", "sound", "image"],
    "qwen3_vl": ["pair", "image", "frame"],
    "gemma3": ["image", "image"],
    "text": ["text"],
}
models = pytest.mark.parametrize("name", LOADERS)
places = pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ("cpu", "bfloat16"),
        pytest.param("cuda", "float32", marks=pytest.mark.gpu),
        pytest.param("cuda", "bfloat16", marks=pytest.mark.gpu),
    ],
)


@dataclass
class Plain:
    """The reference, and what it makes in bfloat16."""

    model: Any
    rounded: Any
    processor: Any

    def check(self, session: Session) -> int:
        """Hold every token of a stream against the reference. Returns how many there were."""
        sequence = session.expected(self.model, self.processor)
        session.check_places(sequence)
        dense = forward(self.model, sequence)
        deep = [part.bfloat16() for part in sequence.deep]
        low = replace(sequence, embeds=sequence.embeds.bfloat16(), deep=deep)
        rows = [sequence.marks[place][0] for place in session.story.tokens()]
        before = [row - 1 for row in rows]
        allowed = 2 * float((forward(self.rounded, low).float()[before] - dense[before]).abs().max())
        assert allowed > 0
        for row in rows:
            token, logits = session.draws[row - 1]
            assert token == int(sequence.ids[row])
            error = float((logits.float().cpu() - dense[row - 1]).abs().max())
            assert error <= allowed, f"row {row}: logits differ by {error}, allowed {allowed}"
            assert float(dense[row - 1].max() - dense[row - 1, token]) <= 2 * allowed
        return len(rows)


@cache
def plain(name: str) -> Plain:
    model, processor = (kind.from_pretrained(model_path(name)) for kind in LOADERS[name])
    return Plain(model, copy.deepcopy(model).bfloat16(), processor)


@cache
def served(name: str, device: str, dtype: str) -> Loaded:
    loaded = load(model_path(name), EngineConfig(device=device, dtype=dtype))
    assert (loaded.device.type, loaded.dtype) == (device, getattr(torch, dtype))
    return loaded


@places
@models
def test_one_shot(name: str, device: str, dtype: str) -> None:
    """As far as both say the same, and where they part it was a close decision."""
    reference = plain(name)
    case = CASES["all" if name == "omni" else "image" if name != "text" else "text"]
    if name == "text":
        case = [{"role": "user", "content": "What do you see?"}]
        prompt = reference.processor.apply_chat_template(case, add_generation_prompt=True, tokenize=False)
        inputs = reference.processor(prompt, return_tensors="pt", add_special_tokens=False)
        options = {"max_new_tokens": REPLY, "return_dict_in_generate": True, "output_logits": True}
        results = [model.generate(**inputs, **options) for model in (reference.model, reference.rounded)]
        (ids, logits), (low_ids, low) = (
            (result.sequences[0, inputs["input_ids"].shape[1] :].tolist(), torch.cat(result.logits))
            for result in results
        )
    else:
        ids, logits = stock(reference.model, reference.processor, case)
        low_ids, low = stock(reference.rounded, reference.processor, case)
    request = Request(messages=case, positions="transformers", params=SamplingParams(max_tokens=REPLY))
    got, drawn, _ = generated(served(name, device, dtype), request, "auto")
    same = next((place for place in range(REPLY - 1) if ids[place] != low_ids[place]), REPLY - 1) + 1
    allowed = 2 * float((low[:same].float() - logits[:same]).abs().max())
    for place, (token, row) in enumerate(zip(got, drawn, strict=True)):
        assert float((row.float().cpu() - logits[place]).abs().max()) <= allowed
        if token != ids[place]:
            assert float(logits[place].max() - logits[place, token]) <= 2 * allowed
            break
    assert len(got) == REPLY


@places
@models
def test_streamed_in_pieces(name: str, device: str, dtype: str) -> None:
    """With a step after each piece and without, the same rows at the same places."""
    rows = []
    for steps in (0, 2):
        rig = Rig(served(name, device, dtype), backend="auto")
        client = Client(rig.open(format="turns"))
        perform(rig, client, [Act(steps, kind, place) for place, kind in enumerate(MEDIA[name])])
        client.do("ask", max_tokens=REPLY)
        asked = rig.core.scheduler.streams[client.session.stream].rows
        rig.run()
        assert plain(name).check(client.session) == REPLY
        ids, positions = client.session.transcript()
        rows.append((ids[:asked], positions[:, :asked].tolist()))
    assert rows[0] == rows[1]


@places
@models
def test_appended_while_decoding(name: str, device: str, dtype: str) -> None:
    """Media goes into a running reply; then it is cut, and another follows."""
    rig = Rig(served(name, device, dtype), backend="auto", append_rows=32)
    client = Client(rig.open(format="live"))
    client.do(MEDIA[name][0])
    client.do("ask", max_tokens=20)
    perform(rig, client, [Act(3, kind, place) for place, kind in enumerate(MEDIA[name])])
    rig.step(4)
    client.do("interrupt", 8)
    client.do(MEDIA[name][-1])
    client.do("ask", 1, max_tokens=6)
    rig.run()
    assert plain(name).check(client.session) >= 6
    assert client.session.ends()[-1] == ("length", 6)


@places
@models
def test_beside_strangers_preempted_and_forked(name: str, device: str, dtype: str) -> None:
    """Streams take pages from one another, by way of the host; one is copied in mid-reply."""
    rig = Rig(served(name, device, dtype), backend="auto", page_tokens=4, kv_tokens=200)
    others = strangers(rig, 3, 60, with_media=name == "omni")
    client = Client(rig.open(format="live"))
    client.do(MEDIA[name][0])
    client.do("ask", max_tokens=REPLY)
    rig.step(6)
    twin = Client(rig.fork(client.session))
    client.do(MEDIA[name][-1], 1)
    rig.run()
    for one in (client, twin, *others):
        assert plain(name).check(one.session) >= 12
    assert any(plan.saves for plan in rig.plans) and any(plan.restores for plan in rig.plans)


def test_a_device_has_all_oracles_in_both_types_and_the_benchmark(on_a_device: list[str]) -> None:
    """What `-m gpu` chooses of this file, and of the tests of a real device."""
    oracles = (
        test_one_shot,
        test_streamed_in_pieces,
        test_appended_while_decoding,
        test_beside_strangers_preempted_and_forked,
    )
    for oracle in oracles:
        for dtype in ("float32", "bfloat16"):
            found = [name for name in on_a_device if f"{oracle.__name__}[" in name and f"cuda-{dtype}" in name]
            assert len(found) >= 4, (oracle, dtype, on_a_device)
    assert callable(test_device.test_bench_append) and test_device.pytestmark.name == "gpu"
