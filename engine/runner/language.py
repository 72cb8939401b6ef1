"""The language model and the sampler: carries out plans. The only owner of the KV cache (cache.py).

What comes in: a `Plan`. What goes out: a token for each feed that draws. It knows slots and pages, not streams' lives.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import torch

from ..embeddings import Embeddings
from ..family import Loaded
from ..frozen import Snapshot
from ..plan import TABLES, Feed, Likely, Plan, Result
from .attention import Backend, Chunk, Part, Reach, ReferenceBackend, Step, number
from .batch import FrontRows, StepRows, batched
from .beside import Beside
from .cache import Cache
from .crossing import Crossing, Looked, apart
from .graphs import Graphs, Record
from .guesses import drawn_rows, laid_behind, result
from .lora import Adapters, wearing
from .narrow import kv_type
from .out_of_memory import is_out_of_memory, let_go
from .sampler import likeliest, sample
from .shapes import CHUNKED, layer_shapes
from .spans import SpanStore, laid_out
from .states import States
from .upload import on, upload

log = logging.getLogger("penstock.engine")


class LanguageModel:
    """The decoder of one checkpoint over a paged cache.

    `record`: steps are recorded by it when the cache is made (graphs.py), those that append up to `appends` rows.
    `spans` holds the embeddings that plans name, `adapters` what rows may wear. `kv_dtype` as in `EngineConfig`.
    """

    def __init__(
        self,
        loaded: Loaded,
        pages: int,
        page_tokens: int,
        slots: int,
        backend: Backend | None = None,
        record: Record | None = None,
        appends: int = 0,
        kv_dtype: str = "auto",
    ) -> None:
        config = loaded.config
        self.text = loaded.text
        taken_over = loaded.fast is not None and loaded.fast.text is loaded.text
        self.fast = loaded.fast if taken_over else None
        self.head, self.drawn = loaded.head, loaded.drawn
        self.beside = Beside(loaded)
        self.ahead_in_windows, self.together = loaded.ahead_in_windows, loaded.together
        self.axes = loaded.family.data.axes
        self.turning = loaded.turning
        self.embed = loaded.text.get_input_embeddings()
        self.device = self.embed.weight.device
        self.backend = backend or ReferenceBackend()
        self.spans = SpanStore(loaded.family.endings.values())
        self.adapters = Adapters()
        shapes = layer_shapes(config)
        self.group = max(shape.group for shape in shapes)
        self.chunks = chunks_of(config)
        self.windows: set[int | Chunk] = {*windows_of(loaded.text, config), *self.chunks.values()}
        spare = record is not None  # a page and a table for rows that pad a batch
        self.states = States(loaded.text, config, slots) if loaded.family.data.stateful else None
        self.crossing = Crossing(loaded.text) if loaded.family.data.crossing else None
        self.cache = Cache(
            shapes,
            pages + spare,
            page_tokens,
            (slots * TABLES + spare, pages),
            kv_type(kv_dtype, self.embed.weight.dtype),
            self.device,
            loaded.turning,
        )
        self.guess: Callable[[Plan], list[Feed]] = _as_planned  # or by a draft model
        self.logits: torch.Tensor | None = None  # of the last step's drawn rows, (draws, vocabulary)
        self.graphs = None
        if record is not None:
            self.cache.tables[-1] = pages
            self.graphs = Graphs(self, self._pass, record, slots, appends)
            with on(self.device):
                self.graphs.record(self.embed)

    def run(self, plan: Plan) -> Result:
        """One step; see `Plan` for the order. A step is never cancelled half-way. Where memory runs out, the stream
        that asked for most fails, and the step is done without it: rows that were written are written once more.
        """
        with torch.inference_mode(), on(self.device):
            return self._run(plan)

    def _run(self, plan: Plan) -> Result:
        failed = self.cache.move(plan) + ([] if self.states is None else self.states.move(plan))
        self.spans.release(plan.releases)
        self.spans.fed(plan.found)
        feeds = [laid_behind(feed) for feed in self.guess(plan) if feed.stream not in failed]
        while feeds:
            done = self._attempt(feeds)
            if done is not None:
                self.spans.fed(run.stored for feed in feeds for run in feed.rows if run.stored is not None)
                return result(plan.number, feeds, *done, failed)
            let_go()
            largest = max(feeds, key=lambda feed: (sum(len(run) for run in feed.rows), feeds.index(feed)))
            feeds.remove(largest)
            failed.append(largest.stream)
        return Result(plan.number, [], failed)

    def _attempt(self, feeds: list[Feed]) -> tuple[list[int], list[Likely | None]] | None:
        """The tokens of the feeds that draw, and how likely they were; None where memory ran out."""
        try:
            drawn = self._drawn(feeds)
            if drawn is None:
                return [], []
            assert self.logits is not None
            tokens = self._read(drawn)
            return tokens, likeliest(self.logits, tokens, drawn_rows(feeds)[1])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning("a step of %d streams ran out of memory: %s", len(feeds), error)
            return None

    def _drawn(self, feeds: list[Feed]) -> torch.Tensor | None:
        """The tokens that are drawn, `(draws,)` on the device; nothing here waits for it."""
        hidden = self._forward(feeds)
        rows, draws = drawn_rows(feeds)
        if not draws:
            return None
        logits = self.logits = self.drawn(self.head(hidden[upload(torch.tensor(rows), self.device)]))
        return sample(logits, draws)

    def _read(self, tokens: torch.Tensor) -> list[int]:
        """Where a step waits for the device, once; log probabilities that were asked for do so too."""
        return tokens.tolist()

    def taken(self, snapshot: Snapshot) -> Snapshot:
        """A copy whose pages are in host memory, with these and its embeddings."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        embeds = {id: tuple(self.spans.whole(id)) for id in snapshot.frozen.entries}
        states = [] if self.states is None else self.states.on_host(snapshot.twin)
        layers = self.cache.on_host(snapshot.twin)
        return msgspec.structs.replace(snapshot, layers=layers, embeds=embeds, states=states)

    def bring(self, stream: int, snapshot: Snapshot, base: int) -> None:
        """What a stream that goes on here has in host memory, before the first plan that names it."""
        if snapshot.layers:
            self.cache.bring(stream, snapshot.layers)
        if self.states is not None:
            self.states.bring(stream, snapshot.states)
        for id, embeds in snapshot.embeds.items():
            self.spans.add(base + id, Embeddings(*embeds))

    def _forward(self, feeds: list[Feed]) -> torch.Tensor:
        """All rows of the step back to back through the decoder; returns `(rows, hidden)`."""
        if self.crossing is not None:
            return self._crossed(self.crossing, feeds)
        worn = self.adapters.worn(feeds, self.device)
        with wearing(worn):  # what is recorded knows no adapters
            return self._computed(feeds, self.graphs if worn is None else None)

    def _computed(self, feeds: list[Feed], graphs: Graphs | None) -> torch.Tensor:
        if graphs is not None and (hidden := graphs.tokens(feeds)) is not None:
            return hidden
        batch = batched(feeds, self.together)
        ids = upload(torch.from_numpy(batch.ids), self.device)
        embeds = self.embed(ids)
        deep = laid_out(self.spans, [run for feed in feeds for run in feed.rows], embeds)
        if graphs is not None and deep is None and not batch.slid and not self._apart(batch):
            hidden = graphs.appended(batch, embeds)
            if hidden is not None:
                return hidden
        positions = upload(torch.from_numpy(batch.positions), self.device)
        more = self.beside(ids, positions) | ({} if deep is None else self._deep(deep))
        step = self._attention(batch)
        if self.states is not None:
            step = step._replace(states=self.states.step(feeds, self.adapters))
        return self._decoded(embeds, positions, step, more)

    def _crossed(self, crossing: Crossing, feeds: list[Feed]) -> torch.Tensor:
        """Media becomes keys and values of the layers that read it, words go through the decoder; returns
        `(rows, hidden)`, 0 where media is."""
        media, words, which = apart(feeds)
        hidden = self.embed.weight.new_zeros(len(which), self.embed.weight.shape[1])
        if media:
            batch = batched(media)
            shown = hidden.new_empty(len(batch), crossing.width(hidden.shape[1]))
            laid_out(self.spans, [run for feed in media for run in feed.rows], shown)
            slots, places = (upload(torch.from_numpy(one), self.device) for one in (batch.slots, batch.places))
            with wearing(self.adapters.worn(media, self.device)):
                crossing.keep(shown, self.cache, self.cache.rows(slots, places))
        if words:
            batch = batched(words)
            looked = Looked(words, batch)
            across = crossing.across(looked, batch, self.cache.tables, self.backend, self.group)
            step = self._attention(batch)._replace(across=across)
            embeds = self.embed(upload(torch.from_numpy(batch.ids), self.device))
            laid_out(self.spans, [run for feed in words for run in feed.rows], embeds)
            positions = upload(torch.from_numpy(batch.positions), self.device)
            worn = self.adapters.worn(words, self.device)
            more = crossing.beside(embeds, upload(torch.from_numpy(looked.own), self.device), worn is not None)
            with wearing(worn):
                said = self._decoded(embeds, positions, step, more)
            hidden[upload(torch.from_numpy(np.flatnonzero(which)), self.device)] = said
        return hidden

    def _apart(self, batch: StepRows) -> bool:
        """Whether layers without a window see less than the others: no row behind itself."""
        return self.ahead_in_windows and batch.ahead

    def _pass(
        self, ids: torch.Tensor, embeds: torch.Tensor | None, positions: torch.Tensor, step: Step
    ) -> torch.Tensor:
        """Rows with these ids `(n,)`, which are words where there are no embeddings `(n, hidden)`, at positions
        `(3, n)`."""
        return self._decoded(
            self.embed(ids) if embeds is None else embeds, positions, step, self.beside(ids, positions)
        )

    def _decoded(self, embeds: torch.Tensor, positions: torch.Tensor, step: Step, more: dict[str, Any]) -> torch.Tensor:
        """`more`: what the decoder takes beside these."""
        if self.fast is not None:
            return self.fast(embeds, positions, step, [part[0] for part in more.get("deepstack_visual_embeds", ())])
        output = self.text(
            inputs_embeds=embeds[None],
            position_ids=positions[:, None] if self.axes == 3 else positions[:1],
            use_cache=False,
            step=step,
            **more,
        )
        return output.last_hidden_state[0]

    @cached_property
    def _deep_by_layer(self) -> bool:
        return "deepstack_features" in inspect.signature(type(self.text).forward).parameters

    def _deep(self, deep: torch.Tensor) -> dict[str, Any]:
        """DeepStack as the library's decoder takes it: for the batch's one sequence, dense, so that nothing waits for
        the number of visual rows. Some decoders take it before a layer, by the layer's number."""
        if self._deep_by_layer:
            whole = torch.ones(1, deep.shape[1], 1, dtype=torch.bool, device=self.device)
            return {"vision_mask": whole, "deepstack_features": dict(enumerate(deep))}
        whole = torch.zeros(1, dtype=torch.long, device=self.device)
        return {"visual_pos_masks": whole, "deepstack_visual_embeds": [part[None] for part in deep]}

    def _attention(self, batch: StepRows) -> Step:
        slots = upload(torch.from_numpy(batch.slots), self.device)
        places = upload(torch.from_numpy(batch.places), self.device)
        target = self.cache.rows(slots, places)
        lengths = upload(torch.from_numpy(batch.ends), self.device)

        whole = Part(self.cache.tables, slots, lengths, torch.from_numpy(batch.runs))
        everything = before = self.backend.prepare(whole, batch.ends, self.group)
        if self._apart(batch):
            ends = batch.places.astype(np.int32) + 1
            before = whole._replace(lengths=upload(torch.from_numpy(ends), self.device))
            before = self.backend.prepare(before, ends, self.group)
        parts: dict[Reach, list[Part]] = {None: [self._from(before, batch.begins)]}
        for window in self.windows:
            parts[window] = [self._from(everything, batch.firsts(window))]
        for front in batch.fronts:
            self._add_front(front, batch, parts)
        turns = [self.turning(upload(torch.from_numpy(-front.lifts), self.device)) for front in batch.fronts]
        cache = self.cache
        made = number(self.backend), cache.keys, cache.values, target
        return Step(*made, parts, turns, cache.shared, self.chunks)

    def _from(self, part: Part, firsts: np.ndarray) -> Part:
        """The part from these places on."""
        return part._replace(firsts=upload(torch.from_numpy(firsts), self.device)) if firsts.any() else part

    def _add_front(self, front: FrontRows, batch: StepRows, parts: dict[Reach, list[Part]]) -> None:
        """Each row sees this front, too; where a layer has a window, as far as that reaches. A model that sees chunks
        has no streams with fronts (turning.py)."""
        slots, lengths = (upload(torch.from_numpy(numbers), self.device) for numbers in (front.slots, front.stops))
        part = Part(self.cache.tables, slots, lengths, torch.from_numpy(batch.runs))
        whole = self.backend.prepare(part, front.stops, self.group)
        for window, seen in parts.items():
            within = isinstance(window, int)
            firsts = front.within(window, batch.places - batch.begins) if within else front.begins
            seen.append(self._from(whole, np.minimum(firsts, front.stops)))


def _as_planned(plan: Plan) -> list[Feed]:
    return plan.feeds


def windows_of(text: Any, config: Any) -> set[int]:
    """The windows of a decoder's layers: what each layer says of itself, and the configuration of all."""
    layers = [module for module in text.modules() if hasattr(module, "layer_idx")]
    said = [getattr(layer, "sliding_window", None) for layer in [*layers, config]]
    return {window for window in said if window is not None}


def chunks_of(config: Any) -> dict[int, Chunk]:
    """The layers of a decoder that see chunks."""
    kinds = getattr(config, "layer_types", None) or ()
    return {layer: Chunk(config.attention_chunk_size) for layer, kind in enumerate(kinds) if kind == CHUNKED}
