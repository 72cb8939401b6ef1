"""The small models as their large siblings lie on the Hub: published key names, shards with an index, the files that
old versions of the library wrote. In: a folder. Out: that folder, filled.

They follow Qwen/Qwen2.5-Omni-3B, Qwen/Qwen3-Omni-30B-A3B-Instruct, Qwen/Qwen2-VL-2B-Instruct,
Qwen/Qwen2.5-VL-3B-Instruct, llava-hf/llava-1.5-7b-hf, llava-hf/llava-onevision-qwen2-0.5b-ov-hf and
google/gemma-3-4b-it. Keys of Qwen3-VL and SmolVLM are published as the library writes them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.fixtures.recipe import model_path

Tensors = dict[str, torch.Tensor]


def publish_omni(folder: Path, others_bytes: int = 1 << 16) -> None:
    """A whole Qwen2.5-Omni: thinker, talker and vocoder; the latter two are so large. Speakers are a pickle beside."""
    from transformers import Qwen2_5OmniConfig

    source = model_path("omni")
    whole = Qwen2_5OmniConfig(thinker_config=_read(source / "config.json")).to_dict()
    whole |= {"architectures": ["Qwen2_5OmniModel"], "enable_talker": True}
    _publish_whole(folder, source, whole, "token2wav.code2wav_bigvgan_model.conv_pre.weight", others_bytes)
    torch.save({"Chelsie": torch.zeros(4)}, folder / "spk_dict.pt")


def publish_qwen3_omni(folder: Path) -> None:
    """A whole Qwen3-Omni: thinker, talker and vocoder."""
    from transformers import Qwen3OmniMoeConfig

    source = model_path("qwen3_omni")
    whole = Qwen3OmniMoeConfig(thinker_config=_read(source / "config.json")).to_dict()
    whole |= {"architectures": ["Qwen3OmniMoeForConditionalGeneration"], "enable_audio_output": True}
    _publish_whole(folder, source, whole, "code2wav.code_embedding.weight", 1 << 16)


def _publish_whole(folder: Path, source: Path, whole: dict[str, Any], vocoder_name: str, others_bytes: int) -> None:
    _write(folder, "config.json", whole)
    thinker = {f"thinker.{name}": tensor for name, tensor in load_file(source / "model.safetensors").items()}
    talker = {
        "talker.codec_head.weight": torch.ones(8, 8),
        "talker.model.embed_tokens.weight": torch.ones(others_bytes // 2 // 4),
    }
    vocoder = {vocoder_name: torch.ones(others_bytes // 2 // 4)}
    names = sorted(thinker)
    middle = {"talker.thinker_to_talker_proj.weight": torch.ones(8, 8)}  # a shard of both
    half = len(names) // 2
    first, second = ({name: thinker[name] for name in part} for part in (names[:half], names[half:]))
    _save_shards(folder, [first, second | middle, talker | vocoder])
    _copy_words(source, folder)


def publish_qwen2_vl(folder: Path) -> None:
    """A Qwen2-VL, as the next one."""
    publish_qwen2_5_vl(folder, "qwen2_vl")


def publish_qwen2_5_vl(folder: Path, name: str = "qwen2_5_vl") -> None:
    """A Qwen2.5-VL: keys `visual.` and `model.`, the language model's configuration among that of the whole."""
    source = model_path(name)
    config = _read(source / "config.json")
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "torch_dtype": config.pop("dtype"),
    }
    _write(folder, "config.json", text | config)
    tensors = load_file(source / "model.safetensors")
    sight = {name: tensors.pop(name) for name in list(tensors) if name.startswith("visual.")}
    _save_shards(folder, [sight, tensors])
    _copy_words(source, folder)


def publish_onevision(folder: Path) -> None:
    """A LLaVA-OneVision, as the last one."""
    publish_llava(folder, "llava_onevision")


def publish_gemma3(folder: Path) -> None:
    """A Gemma 3, as the last one."""
    publish_llava(folder, "gemma3")


def publish_llava(folder: Path, name: str = "llava") -> None:
    """A LLaVA 1.5: keys `language_model.model.`, `vision_tower.vision_model.` and `multi_modal_projector.`."""
    source = model_path(name)
    config = _read(source / "config.json")
    _write(folder, "config.json", config | {"torch_dtype": config.pop("dtype")})
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in load_file(source / "model.safetensors").items()
    }
    names = sorted(tensors)
    _save_shards(folder, [{name: tensors[name] for name in names[part::3]} for part in range(3)])
    _copy_words(source, folder)


def _save_shards(folder: Path, shards: list[Tensors]) -> None:
    places = {}
    for number, tensors in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file(tensors, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
    total = sum(tensor.nbytes for tensors in shards for tensor in tensors.values())
    _write(folder, "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _copy_words(source: Path, folder: Path) -> None:
    """Tokenizer, template and processor: one flat file for images and sound, the template as JSON."""
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(source / name, folder)
    _write(folder, "chat_template.json", {"chat_template": (source / "chat_template.jinja").read_text()})
    processor = _read(source / "processor_config.json")
    images, videos = processor.pop("image_processor"), processor.pop("video_processor", None)
    size = images["size"]
    if "longest_edge" in size:
        images |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    flat = processor.pop("feature_extractor", {}) | images | {"processor_class": processor["processor_class"]}
    _write(folder, "preprocessor_config.json", flat)
    if videos is not None:
        _write(folder, "video_preprocessor_config.json", videos)
    if processor.keys() != {"processor_class"}:
        _write(folder, "processor_config.json", processor)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(folder: Path, name: str, value: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value, indent=2), encoding="utf-8")
