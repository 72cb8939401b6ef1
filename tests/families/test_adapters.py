"""Every family that is tried, with an adapter over all of its linear layers: the checkpoint with the adapter merged,
saved and loaded, says the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from penstock.engine.config import EngineConfig
from penstock.engine.core import Core
from penstock.engine.loading.open import load
from penstock.errors import InputError
from penstock.streams.requests.request import Request, SamplingParams

from tests.engine.test_adapters import one_shot
from tests.engine.test_oracle1 import turn
from tests.fixtures.adapters import merge, write_adapter

from .built import BUILDERS
from .suite import MEDIA, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# Layers that are run by what they are a part of, and those that give more than rows, by family.
REFUSED = {
    "aria": ("multihead_attn.out_proj", "expected a linear layer"),
    "lfm2_vl": ("head.attention.out_proj", "expected a linear layer"),
    "phi4_multimodal": ("embed_tokens_extend", "expected a "),  # its towers are parts of its decoder
    "llama4": ("feed_forward.router", "expected a layer that gives rows"),
}
REPLY = 8


@pytest.mark.parametrize("name", BUILDERS)
def test_an_adapter_over_all_layers(name: str, tmp_path: Path) -> None:
    tried = opened(BUILDERS[name].build(tmp_path / "model"))
    linear = [key for key, part in tried.model.named_modules() if isinstance(part, torch.nn.Linear)]
    layers = [key for key in linear if not key.endswith("lm_head")]
    core = Core(tried.loaded, EngineConfig(kv_tokens=4096, backend="cpu"))
    if name in REFUSED:
        layer, why = REFUSED[name]
        wrong = [key for key in layers if layer in key]
        with pytest.raises(InputError, match=f"{layer}.*: {why}"):
            core.load_adapter("wrong", write_adapter(tmp_path / "wrong", tried.model, wrong))
        layers = [key for key in layers if key not in wrong]
    folder = write_adapter(tmp_path / "adapter", tried.model, layers, size=0.3)
    inside = {id(part) for part in tried.model.get_decoder().modules()}
    outside = [key for key in layers if id(tried.model.get_submodule(key)) not in inside]
    assert core.load_adapter("a", folder).encodes == bool(outside)

    shutil.copytree(tmp_path / "model", tmp_path / "merged")
    merge(tried.model, folder).save_pretrained(tmp_path / "merged")
    merged = Core(load(tmp_path / "merged", EngineConfig()), EngineConfig(kv_tokens=4096, backend="cpu"))
    params = SamplingParams(max_tokens=REPLY)
    for number, kind in enumerate([kind for kind in tried.kinds if kind in MEDIA] or [""]):
        asks = turn((kind, MEDIA[kind][0]), "What do you see?") if kind else {"role": "user", "content": "What is it?"}
        messages = [asks]
        asked = {"messages": messages, "positions": "transformers", "params": params}
        ids, logits, _ = one_shot(core, 2_000_000 + number, Request(**asked, adapter="a"))
        expected, theirs, _ = one_shot(merged, 2_001_000 + number, Request(**asked))
        _, plain, _ = one_shot(core, 2_002_000 + number, Request(**asked))
        assert ids == expected
        assert float((plain[0] - logits[0]).abs().max()) > 0.01  # it does something
        most = 2e-5 * float(torch.stack(theirs).abs().max())
        torch.testing.assert_close(torch.stack(logits), torch.stack(theirs), rtol=0, atol=max(1e-4, most))
