"""How an engine is set up. Plain data; no torch."""

from __future__ import annotations

import msgspec


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint is served; fixed at start.

    kv_tokens: rows of KV cache over all streams. page_tokens: rows per page; 0 takes the backend's best. backend:
    "cpu", "reference", or "auto" for the one that fits the device. decode: "inline" (threads) or "workers" (processes
    with limits) for client media.
    """

    device: str = "cpu"
    dtype: str = "float32"
    kv_tokens: int = 32_768
    page_tokens: int = 0
    backend: str = "auto"
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
    # Messages between actors are encoded and decoded, as they would be between processes.
    encoded: bool = False
