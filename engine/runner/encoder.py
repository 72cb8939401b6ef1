"""Encodes what is new only: a cache by content before the towers. One thread uses it.

The key is the content of the segment, or of all media of a prompt, and of the adapter that changes the towers for its
stream; the model, its processor and its type are fixed for the cache's life. Sound of a stream is not kept: its
features hang on what the stream has heard before.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from typing import NamedTuple

import msgspec
import numpy as np
import torch

from ...errors import InputError, NotFiniteError
from ...streams.item import Embedding
from ...streams.requests.prompt import Content, set_apart
from ...streams.rows import embedding_segment
from ...streams.segment import (
    AudioSegment,
    DroppedSegment,
    EmbeddingSegment,
    ImageSegment,
    Segment,
    UnitSegment,
    VideoSegment,
)
from ..embeddings import Embeddings, EncodedPrompt, EncodedSpan, Features
from ..family import Family, Towers
from ..plan import Wears
from ..span import Prompt, Span
from .content import Contents
from .gate import Gate
from .lora import Adapter, Adapters, Worn, wearing
from .ready import ReadyRows
from .spans import SpanStore

# Numbers of streams of one encoder begin here; no engine has so many.
_FIRST = count(1 << 48, 1 << 48)


class _Made(NamedTuple):
    """What the towers made of the media of a prompt, and the bytes that it holds."""

    features: Features
    nbytes: int


class Encoder:
    """The towers of one model behind a cache of `cache_bytes`. What they make goes into the span store. Their passes go
    through `gate`; None: they run in the calling thread. `family`: whose prompts may have rows that were made
    elsewhere; None: none has.

    Several encoders, each of another engine, may share towers: a stream has another number for each of them.
    """

    def __init__(
        self,
        towers: Towers,
        cache_bytes: int,
        spans: SpanStore,
        gate: Gate | None = None,
        family: Family | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        self._towers = towers
        self._adapters = adapters or Adapters()
        self._wears: dict[int, Adapter] = {}  # the adapter that changes the towers, by stream
        self._spans = spans
        self._gate = gate
        self._family = family
        self._mine = nullcontext if gate is None else gate.mine
        self._first = next(_FIRST)
        self._limit = cache_bytes
        self._waited = 0.0  # seconds, for what passes had launched
        self._cache: OrderedDict[bytes, Span | _Made] = OrderedDict()
        self._bytes = 0
        self.hits = 0
        self.encoded = 0  # segments that went through a tower
        # The seconds that the newest call's passes took, by the places of its segments; those of a prompt have place 0.
        self.spent: dict[int, float] = {}

    def rows(self, segment: Segment) -> int:
        """How many rows the segment will have. InputError where more rows see one another than a layer sees."""
        if isinstance(segment, EmbeddingSegment):
            if self._family is not None:
                self._family.check_run(segment.modality, len(segment.rows))
            return len(segment.rows)
        return self._towers.rows(segment)

    def passed(self, segment: DroppedSegment) -> Span:
        """What stands for a piece that was dropped: a span without ids. Of the piece it says how much time it took, in
        temporal patches (`grid[0]`) or in rows (`audio_rows`; `behind` by the library's rule)."""
        piece = segment.piece
        sees = isinstance(piece, VideoSegment)
        taken = self._towers.takes(piece)
        return Span(
            segment.seq,
            segment.index,
            "video" if sees else "audio",
            np.zeros(0, np.int64),
            (taken.patches, 0, 0),
            taken.rows,
            0 if sees else piece.run,
            piece.start_us,
            piece.stop_us,
            behind=taken.behind,
        )

    def knows(self, segments: list[Segment | DroppedSegment]) -> bool:
        """Whether `foreseen` says at once what it says of these; else it calls the model's processor."""
        pieces = [one.piece if isinstance(one, DroppedSegment) else one for one in segments]
        return all(isinstance(piece, EmbeddingSegment) or self._towers.knows(piece) for piece in pieces)

    def foreseen(self, segments: list[Segment | DroppedSegment]) -> list[int | Span | Exception]:
        """How many rows each will have, and what stands for a dropped one; or what its processor has against it."""
        found: list[int | Span | Exception] = []
        for segment in segments:
            try:
                found.append(self.passed(segment) if isinstance(segment, DroppedSegment) else self.rows(segment))
            except Exception as error:  # whatever a processor raises is about this segment
                found.append(error.with_traceback(None))
        return found

    def encode(self, batch: list[tuple[int, Segment]]) -> list[Span]:
        """Spans of (stream, segment) pairs, in their order. Raises NotFiniteError where a tower gives NaN or infinity:
        in the cache they would reach every later token."""
        self.spent = {}
        told = self._towers.times_inside
        keys = [_worn_key(_key(segment, told), self._worn(stream, segment)) for stream, segment in batch]
        known = {key: span for key in keys if key and isinstance(span := self._cache.get(key), Span)}
        fresh: dict[bytes | int, int] = {}  # content (or, where it has no key, the place) -> first place
        for place, key in enumerate(keys):
            if key not in known:
                fresh.setdefault(place if key is None else key, place)
        new = [batch[place] for place in fresh.values()]
        with self._mine(), self._spends({place: self.rows(batch[place][1]) for place in fresh.values()}):
            encoded = self._encode(new)
            self._wait([one.embeds for one in encoded])
        self.encoded += len(fresh)
        self.hits += len(batch) - len(fresh)
        found = dict(zip(fresh, map(self._spans.span, encoded), strict=True))
        spans = [found[place] if key is None else known.get(key) or found[key] for place, key in enumerate(keys)]
        for place, (key, span) in enumerate(zip(keys, spans, strict=True)):
            if key is not None and fresh.get(key) != place:
                self._again(span)
        for key, span in zip(keys, spans, strict=True):
            if key is not None:
                self._keep(key, span)
        return [self._of(one, key, span) for (_, one), key, span in zip(batch, keys, spans, strict=True)]

    def _encode(self, batch: list[tuple[int, Segment]]) -> list[EncodedSpan]:
        """By the towers, all at once that wear the same; rows that were made elsewhere are what they are."""
        encoded = {place: _ready(one) for place, (_, one) in enumerate(batch) if isinstance(one, EmbeddingSegment)}
        together: dict[Adapter | None, list[int]] = {}
        for place, entry in enumerate(batch):
            if place not in encoded:
                together.setdefault(self._worn(*entry), []).append(place)
        for adapter, places in together.items():
            with self._wearing(adapter):
                made = self._towers.encode([(self._first + batch[place][0], batch[place][1]) for place in places])
            encoded |= zip(places, made, strict=True)
        return [encoded[place] for place in range(len(batch))]

    def _wearing(self, adapter: Adapter | None) -> AbstractContextManager[None]:
        """Inside, all that the towers encode wears this. InputError where it has been let go, since its streams have
        ended."""
        if adapter is None:
            return nullcontext()
        if adapter not in self._adapters:
            raise InputError("adapter: expected one that is loaded, got one that has been let go")
        return wearing(Worn([(adapter, None)]))

    def _worn(self, stream: int, segment: Segment) -> Adapter | None:
        """The adapter with which a piece of a stream is encoded."""
        return None if isinstance(segment, EmbeddingSegment) else self._wears.get(stream)

    def _of(self, segment: Segment, key: bytes | None, span: Span) -> Span:
        """The span as that of this segment, which has the same content."""
        own = {name: getattr(segment, name) for name in ("seq", "index", "start_us", "stop_us")}
        mine = msgspec.structs.replace(span, **own, content=key, clip_fps=getattr(segment, "clip_fps", None))
        moved = (span.start_us, span.stop_us) != (mine.start_us, mine.stop_us)
        ready = isinstance(segment, EmbeddingSegment)
        if span.modality != "video" or not (ready or (moved and isinstance(segment, VideoSegment))):
            return mine
        return self._towers.timed(mine)

    def prompt(self, content: Content, stream: int | None = None) -> Prompt:
        """A whole prompt, as the model's own processor has it, for a stream with what it wears. Where one with the same
        media was before, no tower runs. Raises NotFiniteError as `encode` does."""
        self.spent = {}
        content, rows = set_apart(content)
        adapter = None if stream is None else self._wears.get(stream)
        contents = Contents(content, "" if adapter is None else adapter.fingerprint)
        known = None if contents.whole is None else self._cache.get(contents.whole)
        with self._mine(), self._spends({0: 1}), self._wearing(adapter):
            if isinstance(known, _Made):
                prompt = self._towers.prompt(content, known.features)
            else:
                prompt = self._towers.prompt(content)
            self._wait([part for part in prompt.embeds if part is not None])
        if prompt.features is not None and contents.whole is not None:
            self._keep(contents.whole, known or _Made(prompt.features, _nbytes(prompt.features)))
        named = zip(prompt.rows, contents.runs(prompt), strict=True)
        prompt = prompt._replace(rows=[msgspec.structs.replace(run, content=own) for run, own in named])
        return self._spans.prompt(self._with_ready(prompt, content, rows) if rows else prompt)

    def _with_ready(self, prompt: EncodedPrompt, content: Content, rows: list[Embedding]) -> EncodedPrompt:
        """The prompt with rows that were made elsewhere."""
        if self._family is None:
            raise InputError("embedding: expected a prompt without rows that were made elsewhere, got some")
        segments = [embedding_segment(one, self._family.spec.rows) for one in rows]
        made = [(_ready(segment), _key(segment, False) or b"") for segment in segments]
        return ReadyRows(self._family).put(prompt, made, content.video_fps)

    def wear(self, stream: int, wears: Wears | None) -> None:
        """A stream begins, and what it shows is encoded with this adapter; it is gone where the stream has ended."""
        adapter = None if wears is None else self._adapters.get(wears.number)
        if adapter is not None and adapter.encodes:
            self._wears[stream] = adapter

    def fork(self, stream: int, twin: int) -> None:
        if stream in self._wears:
            self._wears[twin] = self._wears[stream]
        self._towers.fork(self._first + stream, self._first + twin)

    def loudest(self, stream: int) -> float | None:
        """The loudest sound of a stream so far, where the towers ask for it."""
        return self._towers.loudest(self._first + stream)

    def heard(self, stream: int, loudest: float) -> None:
        """A stream goes on that has had such a sound."""
        self._towers.heard(self._first + stream, loudest)

    def forget(self, stream: int) -> None:
        self._wears.pop(stream, None)
        self._towers.forget(self._first + stream)

    @property
    def cached_bytes(self) -> int:
        """Bytes of embeddings that the cache holds."""
        return self._bytes

    @contextmanager
    def _spends(self, rows: dict[int, int]) -> Iterator[None]:
        """Inside, towers work: `spent` will say how long, shared out by the rows of each place."""
        before, total = self._seconds(), sum(rows.values())
        try:
            yield
        finally:
            if total:
                each = (self._seconds() - before) / total
                self.spent = {place: each * count for place, count in rows.items()}

    def _seconds(self) -> float:
        """How long passes have taken so far; without a gate all of this thread's time is theirs."""
        elsewhere = getattr(self._towers, "worked", 0.0)  # of an encoder in another process
        return time.perf_counter() if self._gate is None else self._gate.pass_seconds + self._waited + elsewhere

    def _wait(self, embeds: list[Embeddings]) -> None:
        """On CUDA a pass has ended before what it launched is computed; here that is waited for."""
        begun = time.perf_counter()
        try:
            _check_finite(embeds)
        finally:
            self._waited += time.perf_counter() - begun

    def _keep(self, key: bytes, found: Span | _Made) -> None:
        """This is the newest of the cache; the oldest go where it holds too much."""
        if key not in self._cache:
            self._cache[key] = found
            self._bytes += found.nbytes if isinstance(found, _Made) else self._again(found)
        self._cache.move_to_end(key)
        while self._bytes > self._limit:
            _, oldest = self._cache.popitem(last=False)
            if isinstance(oldest, _Made):
                self._bytes -= oldest.nbytes
                continue
            assert oldest.stored is not None
            self._spans.release([(oldest.stored.id, 1)])
            self._bytes -= oldest.stored.nbytes

    def _again(self, span: Span) -> int:
        """One more has the span's embeddings; returns their bytes."""
        assert span.stored is not None
        self._spans.again(span.stored)
        return span.stored.nbytes


def _worn_key(key: bytes | None, adapter: Adapter | None) -> bytes | None:
    """The key of what is encoded with an adapter."""
    if key is None or adapter is None:
        return key
    return hashlib.blake2b(key + adapter.fingerprint.encode(), digest_size=16).digest()


def _nbytes(features: Features) -> int:
    """The memory that they hold: towers give parts of larger tensors."""
    tensors = [
        tensor for *_, parts in features for part in parts for tensor in (part.rows, part.deep) if tensor is not None
    ]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def _check_finite(embeds: list[Embeddings]) -> None:
    if embeds and not bool(torch.stack([each.finite() for each in embeds]).all()):
        raise NotFiniteError("the encoder gave values that are not finite numbers for this input")


def _ready(segment: EmbeddingSegment) -> EncodedSpan:
    """The span of rows that were made elsewhere."""
    count = len(segment.rows)
    ids = np.full(count, segment.token, dtype=np.int64)
    counted = 0 if segment.grid[0] else count  # they stand one after the other
    place, times = (segment.seq, segment.index, segment.modality), (segment.start_us, segment.stop_us)
    deep = None if segment.deep is None else torch.from_numpy(segment.deep)
    return EncodedSpan(
        Span(*place, ids, segment.grid, counted, 0, *times), Embeddings(torch.from_numpy(segment.rows), deep)
    )


def _key(segment: Segment, told: bool) -> bytes | None:
    """`told`: what is made of frames also hangs on when they were taken."""
    if isinstance(segment, AudioSegment | UnitSegment):
        return None
    if isinstance(segment, EmbeddingSegment):
        what = f"{segment.modality} {segment.token} {segment.rows.shape} {segment.grid}"
        content = hashlib.blake2b(what.encode(), digest_size=16)
        content.update(segment.rows.data)
        content.update(b"" if segment.deep is None else segment.deep.tobytes())
        return content.digest()
    assert isinstance(segment, ImageSegment | VideoSegment)
    pixels = segment.pixels
    content = hashlib.blake2b(
        f"{type(segment).__name__} {pixels.shape} {pixels.dtype} {sorted(segment.asked.items())}".encode(),
        digest_size=16,
    )
    content.update(np.ascontiguousarray(pixels).data)
    if told and isinstance(segment, VideoSegment):
        content.update(f"{segment.start_us} {segment.stop_us}".encode())
    return content.digest()
