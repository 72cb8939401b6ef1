"""Architectures that nobody named: tried at load against the library, served where the numbers agree, else refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from penstock.engine.config import EngineConfig
from penstock.engine.families import opened as opened_module
from penstock.engine.families import text as text_family
from penstock.engine.loading.open import load
from penstock.engine.runner import probe
from penstock.engine.span import Rows
from penstock.errors import ModelError
from safetensors.torch import load_file, save_file

from tests.fixtures.recipe import model_path

from .rig import TOLERANCE, Rig

SIZES: dict[str, Any] = {
    "vocab_size": 1152,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
GROUPED: dict[str, Any] = SIZES | {"num_key_value_heads": 2}


def _config(kind: str, **sizes: Any) -> Any:
    """A configuration that takes more than its class names."""
    return getattr(hf, kind)(**sizes)


BOTH_WAYS: dict[str, Any] = GROUPED | {"is_causal": False}
# fmt: off
SERVED = {
    "mistral": hf.MistralConfig(**GROUPED, sliding_window=None),
    "a window": hf.MistralConfig(**GROUPED, sliding_window=8),
    "some windows": hf.Gemma3TextConfig(
        **GROUPED, head_dim=16, sliding_window=8, layer_types=["sliding_attention", "full_attention"]
    ),
    "phi3": hf.Phi3Config(**GROUPED),
    "gemma": hf.GemmaConfig(**GROUPED, head_dim=16),
    "capped scores and logits": hf.Gemma2Config(
        **GROUPED, head_dim=16, sliding_window=8, attn_logit_softcapping=0.5, final_logit_softcapping=3.0
    ),
    "logits that are divided": hf.GraniteConfig(**GROUPED, logits_scaling=8.0),
    "logits that are multiplied": hf.CohereConfig(**GROUPED, logit_scale=0.0625, eos_token_id=2, bos_token_id=1),
    "mixtral": hf.MixtralConfig(**GROUPED, num_local_experts=4, sliding_window=None),
    "a state that goes on": hf.Qwen3NextConfig(
        **GROUPED,
        head_dim=16,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    ),
    "rows of a convolution": hf.Lfm2Config(**GROUPED, layer_types=["conv", "full_attention"]),
    "qwen3_5_text": hf.Qwen3_5TextConfig(
        **GROUPED,
        head_dim=16,
        layer_types=["linear_attention", "full_attention"],
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    ),
    "mamba": _config(
        "NemotronHConfig",
        **GROUPED,
        layer_types=["linear_attention", "full_attention"],
        head_dim=16,
        mamba_num_heads=4,
        mamba_head_dim=16,
        ssm_state_size=8,
        n_groups=2,
    ),
    "keys and a state in each layer": _config(
        "FalconH1Config",
        **GROUPED,
        head_dim=16,
        mamba_d_ssm=64,
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=8,
        mamba_n_groups=1,
    ),
    "heads by layer": _config(
        "Gemma4TextConfig", **GROUPED, head_dim=16, global_head_dim=24, num_global_key_value_heads=1,
        attention_k_eq_v=True,
        sliding_window=8, layer_types=["sliding_attention", "full_attention"], hidden_size_per_layer_input=0,
    ),
    "chunks": hf.Llama4TextConfig(
        **GROUPED, intermediate_size_mlp=96, num_local_experts=2, head_dim=16, attention_chunk_size=8, floor_scale=5,
        no_rope_layers=[1, 0], attn_scale=0.5,
    ),
    "words and keys by layer": _config(
        "Gemma4TextConfig", **GROUPED | {"num_hidden_layers": 4}, head_dim=16, global_head_dim=24, sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2, num_kv_shared_layers=2,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=1152, use_double_wide_mlp=True,
        final_logit_softcapping=30.0,
    ),
    "several rows at once": _config(
        "Gemma3nTextConfig", **GROUPED | {"num_hidden_layers": 4}, head_dim=16, sliding_window=8,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=1100, laurel_rank=8, altup_num_inputs=2,
        activation_sparsity_pattern=[0.5, 0.5, 0.0, 0.0],
    ),
    "values of another size": hf.DeepseekV3Config(
        **SIZES, num_key_value_heads=4, first_k_dense_replace=1, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, moe_intermediate_size=32, q_lora_rank=32, kv_lora_rank=16, qk_nope_head_dim=16,
        qk_rope_head_dim=8, v_head_dim=12,
    ),
    "gpt_neox": hf.GPTNeoXConfig(**SIZES),
    "gpt2": hf.GPT2Config(vocab_size=1152, n_embd=64, n_layer=2, n_head=4, n_positions=512),
}
# fmt: on
REFUSED = {
    "a rotary that others stretch": (
        hf.MistralConfig(**GROUPED, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
        "rotary positions that do not change with a stream's length, got 'dynamic'",
    ),
    "a rotary for long streams": (
        hf.Phi3Config(
            **GROUPED,
            original_max_position_embeddings=128,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1e4,
                "short_factor": [1.0] * 8,
                "long_factor": [2.0] * 8,
            },
        ),
        "rotary positions that do not change with a stream's length, got 'longrope'",
    ),
    "looks both ways": (
        hf.MistralConfig(**BOTH_WAYS, sliding_window=None),
        "logits over pages differ .* by .* expected .*: in the library rows see rows behind them",
    ),
    "layers behind the decoder": (
        hf.BertConfig(**SIZES, is_decoder=True),
        "logits over pages differ .* by .* expected .*: one row alone differs, so neither attention nor positions do",
    ),
    "no keys": (hf.MambaConfig(vocab_size=1152, hidden_size=64, num_hidden_layers=2), "max_position_embeddings"),
    "no decoder": (hf.ViTConfig(hidden_size=64), "no model for it that takes media or text"),
}


def checkpoint(folder: Path, config: Any) -> tuple[Path, Any]:
    """A model with random weights beside the tokenizer of the small text model; the model as well."""
    torch.manual_seed(0)
    mapping = hf.MODEL_FOR_CAUSAL_LM_MAPPING
    model = (hf.AutoModelForCausalLM if type(config) in mapping else hf.AutoModel).from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(5)  # attention that matters
    model.save_pretrained(folder)
    for file in model_path("text").iterdir():
        if "token" in file.name or "template" in file.name:
            shutil.copy(file, folder)
    return folder, model


@pytest.mark.parametrize("name", SERVED)
def test_one_that_computes_the_same_is_served(tmp_path: Path, name: str) -> None:
    folder, model = checkpoint(tmp_path, SERVED[name])
    rig = Rig(load(folder, EngineConfig()), page_tokens=4, append_rows=5)
    session = rig.open()
    session.ask("What do you see?", max_tokens=8)
    rig.run()
    ids, _ = session.transcript()
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0]
    assert len(session.draws) >= 8
    for row, (token, drawn) in session.draws.items():
        assert float((drawn - logits[row]).abs().max()) < TOLERANCE * max(1.0, float(logits[row].abs().max()))
        assert token == int(drawn.argmax())


@pytest.mark.parametrize("name", REFUSED)
def test_one_that_does_not_is_refused_with_the_reason_and_what_is_served(tmp_path: Path, name: str) -> None:
    config, reason = REFUSED[name]
    folder, _ = checkpoint(tmp_path, config)
    with pytest.raises(ModelError, match=rf"model type '{config.model_type}' is not served: .*{reason}") as error:
        load(folder, EngineConfig())
    assert "served are gemma3, gemma3_text, llama, llava" in str(error.value)


def silent(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
    """In place of a layer's attention, in the library too: it computes the same, and asks nobody for keys."""
    return torch.zeros_like(hidden_states), None


def test_a_layer_that_does_not_call_our_attention_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    open_model = opened_module.open_model

    def opened(*what: Any) -> Any:
        model = open_model(*what)
        model.base_model.layers[1].self_attn.forward = silent
        return model

    monkeypatch.setattr(text_family, "open_model", opened)
    with pytest.raises(ModelError, match=r"layer 1 of \d does not call the attention"):
        load(model_path("text"), EngineConfig())


def test_one_that_stops_in_its_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    open_model = opened_module.open_model

    def opened(*what: Any) -> Any:
        model = open_model(*what)
        model.base_model.layers[0].mlp.forward = lambda rows: rows[:, :1] @ rows
        return model

    monkeypatch.setattr(text_family, "open_model", opened)
    with pytest.raises(ModelError, match="its decoder does not run over pages: .*"):
        load(model_path("text"), EngineConfig())


def test_other_positions_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "Rows", lambda ids, positions: Rows(ids, 2 * positions))
    why = "logits over pages differ.*: one row alone does not differ, so attention or positions do it"
    with pytest.raises(ModelError, match=why):
        load(model_path("text"), EngineConfig())


def test_in_16_bits_as_much_rounding_is_allowed_as_the_library_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trained model's logits lie farther apart than the fixed bound, which is 0 here; other positions still count."""
    monkeypatch.setattr(probe, "_TOLERANCE", 0.0)
    load(model_path("text"), EngineConfig(dtype="bfloat16"))
    with pytest.raises(ModelError, match="logits over pages differ"):
        load(model_path("text"), EngineConfig(dtype="float32"))
    monkeypatch.setattr(probe, "Rows", lambda ids, positions: Rows(ids, 2 * positions))
    with pytest.raises(ModelError, match="logits over pages differ"):
        load(model_path("text"), EngineConfig(dtype="bfloat16"))


@pytest.mark.parametrize("family", ["text", "qwen2_5_vl", "omni"])
def test_a_checkpoint_that_lacks_weights_is_refused_with_their_names(tmp_path: Path, family: str) -> None:
    """The library would make them up."""
    shutil.copytree(model_path(family), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    gone = [name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight")]
    assert gone
    save_file({name: tensor for name, tensor in tensors.items() if name not in gone}, file, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"expected all weights of \w+, got none for {len(gone)}: .*up_proj"):
        load(tmp_path / "model", EngineConfig())
