"""How an engine is set up. Plain data; no torch."""

from __future__ import annotations

import msgspec


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint is served; fixed at start.

    device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first of cuda, mps and cpu that is here. dtype:
    "float32", "bfloat16", "float16", or "auto" for the checkpoint's own, on a CPU only where that is fast
    (docs/memory.md). quantize: "int8" keeps the decoder's linear layers as int8. kv_tokens: rows of KV cache over all
    streams; 0: as many as fit into `memory_fraction` of what is left (None: the device's own). kv_gib: the KV cache's
    size instead. page_tokens: rows per page; 0 takes the backend's best. backend: "cpu"; "triton" or
    "varlen" (CUDA; torch's own, with pages of 256 rows); "reference"; or "auto" for the one that fits the device.
    cuda_graphs: decode steps are recorded and launched whole. threads: how many compute on a CPU, in the whole process;
    0: as the environment says (PENSTOCK_THREADS, else OMP_NUM_THREADS), else one for each core. decode: "inline"
    (threads) or "workers" (processes with limits) for client media. processor: options of the model's own processor
    that hold where a request has none (`Request.processor`). limits_per_request: how many images, videos and audios a
    prompt may have, by kind; any number of those not named. record: a folder in which the run is written to a file, for
    `penstock replay`; what clients say and show can be made out from it.
    """

    device: str = "cpu"
    dtype: str = "float32"
    quantize: str | None = None
    kv_tokens: int = 32_768
    kv_gib: float | None = None
    memory_fraction: float | None = None
    page_tokens: int = 0
    backend: str = "auto"
    cuda_graphs: bool = False
    threads: int = 0
    slots: int = 256
    step_rows: int = 1024
    append_rows: int = 256
    host_pages: int = 1 << 16
    span_bytes: int = 1 << 30
    encoder_cache_bytes: int = 256 << 20
    encoder_tokens: int = 4096
    # A step that appends while a reply decodes, and one turn of the encoder, are sized to take about so long.
    step_ms: float = 50.0
    encoder_ms: float = 200.0
    decode: str = "inline"
    processor: dict[str, bool | int | float] = {}
    limits_per_request: dict[str, int] = {}
    record: str | None = None


# What fits this machine and the model: for those who name nothing.
FITTING = EngineConfig(device="auto", dtype="auto", kv_tokens=0)
