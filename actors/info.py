"""What an engine serves, as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..streams.format import BY_NAME
from ..streams.requests.options import sized, sizes_pieces
from ..streams.requests.request import Sampling
from ..streams.requests.transcription import Transcription
from .adapters import AdapterInfo

if TYPE_CHECKING:
    from ..engine.config import EngineConfig
    from ..engine.family import FamilyData, Loaded
    from ..engine.loading.memory import Memory


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine serves: `Engine.info`.

    model: the name or folder of the checkpoint.
    family: its model type, such as "qwen2_5_omni".
    modalities: the media that it takes: "image", "video", "audio", "unit" (sound inside video).
    classes: how exact each of these is in a stream, as a letter of formats.md.
    pieces: how long a piece of each is in seconds, where it comes in pieces. A piece waits until it is complete, or
        until a question, which takes what there is.
    left_out: other media, each with the reason why this model is served without it.
    stateful: its layers keep a state of all rows (class G), so that its streams have no window and find no pages.
    one_shot: a stream is a request's own prompt and one reply to it; nothing may be appended or asked.
    embeddings: the kinds of rows that `Embedding` may bring.
    formats: the formats that `Request.format` may name.
    live_trained: the checkpoint declares that it was trained for the format `live`.
    max_positions: the most positions of a stream.
    vocabulary: how many token ids there are.
    kv_tokens: the rows of the KV cache, for all streams together.
    device, dtype: where it computes, and in which type of number.
    why: why these two were chosen. Empty if they were asked for.
    sampling: how a reply is drawn if its params do not say.
    memory: how the memory of the device is shared out.
    turn_model: the file of the model that hears whether somebody has finished; `None`: there is none.
    transcription: how the model is asked for the words of a sound; `None`: that is not known, or it does not hear.
    encoder: the address of the encoder in another process, where media is encoded; `None`: it is encoded here.
    picture_rows: the most rows of a picture with the engine's options; 0: all pictures have the same number of rows.
    adapters: those that are loaded (`Engine.load_adapter`).
    row_pixels: how many pixels of a picture one row stands for, where a request may bound them (`Request.processor`).
    threads: how many threads compute on a CPU, and why so many. Empty elsewhere.
    """

    model: str
    family: str
    modalities: tuple[str, ...]
    formats: tuple[str, ...]
    live_trained: bool
    max_positions: int
    vocabulary: int
    kv_tokens: int
    device: str
    dtype: str
    why: str
    sampling: Sampling
    memory: Memory
    threads: str = ""
    turn_model: str | None = None
    transcription: Transcription | None = None
    classes: dict[str, str] = {}
    pieces: dict[str, float] = {}
    left_out: dict[str, str] = {}
    embeddings: tuple[str, ...] = ()
    encoder: str | None = None
    picture_rows: int = 0
    row_pixels: int = 0
    adapters: tuple[AdapterInfo, ...] = ()
    stateful: bool = False
    one_shot: bool = False


def info_of(loaded: Loaded, config: EngineConfig, memory: Memory) -> EngineInfo:
    """What an engine of this model, with this configuration and its memory shared out so, serves."""
    from ..engine.families.absent import ELSEWHERE, AbsentTowers
    from ..engine.runner.threads import choose_threads
    from .wiring import turn_model

    data, spec = loaded.family.data, loaded.family.spec
    absent = type(loaded.towers) is AbsentTowers
    takes = () if absent else loaded.family.modalities
    without = dict.fromkeys(loaded.family.modalities, ELSEWHERE) if absent else {}
    picture = sized(spec, config.processor).image if sizes_pieces(spec) else None
    row_pixels = 0 if picture is None else picture.factor**2
    return EngineInfo(
        model=data.model,
        family=data.name,
        modalities=takes,
        formats=tuple(BY_NAME),
        live_trained=data.live_trained,
        max_positions=data.max_positions,
        vocabulary=data.vocabulary,
        kv_tokens=memory.tokens,
        device=str(loaded.device),
        dtype=str(loaded.dtype).removeprefix("torch."),
        why=loaded.why,
        sampling=data.sampling,
        memory=memory,
        threads=str(choose_threads(config)) if loaded.device.type == "cpu" else "",
        turn_model=turn_model(config),
        transcription=data.transcription,
        classes={} if absent else data.classes,
        pieces={} if absent else _pieces(data),
        left_out=data.left_out | without,
        embeddings=tuple(kind for kind in spec.rows.ids if data.classes.get(kind) != "F"),
        encoder=config.encoder,
        picture_rows=0 if picture is None else picture.largest // row_pixels,
        row_pixels=row_pixels,
        stateful=data.stateful,
        one_shot=data.one_shot,
    )


def _pieces(data: FamilyData) -> dict[str, float]:
    spec, seconds = data.spec, {}
    if spec.video is not None:
        seconds["video"] = spec.temporal_patch / spec.video_fps
    if spec.audio_rate and data.classes.get("audio") != "F":
        seconds["audio"] = spec.block_samples / spec.audio_rate
    return seconds
