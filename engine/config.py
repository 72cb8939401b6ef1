"""How an engine is set up. Plain data; no torch."""

from __future__ import annotations

import msgspec


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint is served. It is fixed when the engine starts.

    The defaults are those of a program that wants the same result everywhere: a CPU, float32, 32,768 rows of cache.
    `Engine.load` without a configuration takes what fits this machine and the model instead (docs/memory.md).

    device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first of cuda, mps and cpu that this machine has.
    dtype: "float32", "bfloat16", "float16", or "auto" for the type of the checkpoint, on a CPU only if it is fast.
    quantize: "int8" keeps the decoder's linear layers as int8. `None`: they stay as they are.
    kv_dtype: "int8" or "fp8" (e4m3) keeps keys and values in eight bits, with a scale for each row and head. "auto": in
        the model's own type.
    kv_tokens: rows of KV cache, for all streams together. 0: as many as fit into `memory_fraction`.
    kv_gib: the size of the KV cache in GiB, instead of `kv_tokens`.
    memory_fraction: with `kv_tokens` 0, the part of the memory left by the weights and the largest step that the KV
        cache takes, above 0 and at most 1. `None`: 0.9 on cuda, elsewhere 0.5 and at most 32,768 rows.
    page_tokens: rows of a page. 0: what is best for the backend.
    backend: how attention is computed: "cpu"; "triton" or "varlen" (torch's, with pages of 256 rows) on CUDA;
        "reference" (slow); or "auto" for the one that fits the device.
    cuda_graphs: on CUDA, steps that decode and steps that append a few rows are recorded at the start, and each is
        launched as one. `None`: they are, but not with the reference backend.
    threads: how many threads compute on a CPU, in the process. 0: as the environment says (PENSTOCK_THREADS, else
        OMP_NUM_THREADS), else one for each core that the machine and the control group of the process give.
    slots: how many streams may be open at once. One more is refused with OverloadError.
    step_rows: the most rows of one step.
    append_rows: the most rows that one step appends while a reply decodes and media comes in live.
    host_pages: the most pages that may lie in host memory, for streams that have made room for others. They take at
        most half of the host memory that is free at the start.
    span_bytes: the most bytes of encoded media that are kept, so that a stream can be fed again or a reply can be cut
        before media. If there is more, the oldest goes.
    encoder_cache_bytes: the most bytes of encoded images and frames, and of the encoded media of prompts, that are kept
        in case the same comes again.
    encoder_tokens: the most rows that the encoder makes at once.
    step_ms: about how many milliseconds a step may take that appends while a reply decodes and media comes in live. 0:
        1.75 times what a step takes on this machine that only decodes. It takes longer if the rows of live media could
        not keep up otherwise. If no media has come for ten seconds, steps are filled up to `step_rows`.
    encoder_ms: about how many milliseconds the encoder may take at once.
    admit: "measured" refuses a live stream (`Request.policy` "latest") whose `video_fps` this machine would not keep up
        with, by what was measured so far, with OverloadError. "anyway" refuses none.
    prefix_cache: what a new stream begins with is not computed if full pages with the same rows are still in the cache
        (docs/memory.md). False: every stream computes its own rows.
    speculative: how tokens of a reply are guessed, so that one step says several (docs/speculative.md): "ngram", what
        followed the same words earlier in the stream; or the folder or id of a smaller model with the same words. What
        is said stays the same. `None`: nothing is guessed.
    speculative_tokens: the most tokens that are guessed of a stream in a step.
    decode: where client media is decoded: "inline" (threads) or "workers" (processes with limits of memory and time).
    processor: options of the model's processor, by name, for requests that do not set them (`Request.processor`).
    limits_per_request: how many pieces of media one prompt may have: "image", "video", "audio" and a number. A kind
        that is not named has no limit.
    chat_template: a file with the chat template, in Jinja, in place of the checkpoint's own: it writes what stands
        around turns and where media goes. `None`: the checkpoint's own.
    turn_model: the file of smart-turn v3 (ONNX), which hears whether somebody has finished (`TurnDetection.semantic`).
        `None`: the one that the package pipecat-ai has, if it is installed.
    language_only: no weights of towers are loaded. Media comes in as `Embedding`: what an encoder elsewhere made of it.
    encoder: the address ("ws://host:port") of a `penstock encode-serve` with the same checkpoint, which encodes media;
        several with commas between them. No weights of towers are loaded here then. `None`: towers are loaded here.
    encoder_key_file: a file whose first line is the key that the encoder wants.
    encoder_seconds: how long media waits for an encoder that is away, before it is refused.
    record: a folder in which the run is written to a file, for `penstock replay`. What clients say and show can be made
        out from it. `None`: nothing is written.
    """

    device: str = "cpu"
    dtype: str = "float32"
    quantize: str | None = None
    kv_dtype: str = "auto"
    kv_tokens: int = 32_768
    kv_gib: float | None = None
    memory_fraction: float | None = None
    page_tokens: int = 0
    backend: str = "auto"
    cuda_graphs: bool | None = None
    threads: int = 0
    slots: int = 256
    step_rows: int = 1024
    append_rows: int = 256
    host_pages: int = 1 << 16
    span_bytes: int = 1 << 30
    encoder_cache_bytes: int = 256 << 20
    encoder_tokens: int = 4096
    step_ms: float = 0.0
    encoder_ms: float = 200.0
    admit: str = "measured"
    prefix_cache: bool = True
    speculative: str | None = None
    speculative_tokens: int = 4
    decode: str = "inline"
    processor: dict[str, bool | int | float] = {}
    limits_per_request: dict[str, int] = {}
    chat_template: str | None = None
    turn_model: str | None = None
    language_only: bool = False
    encoder: str | None = None
    encoder_key_file: str | None = None
    encoder_seconds: float = 30.0
    record: str | None = None


# What fits this machine and the model: for those who name nothing.
FITTING = EngineConfig(device="auto", dtype="auto", kv_tokens=0)
