"""The language model, its KV cache and the sampler: carries out plans. The only owner of the cache's tensors.

What comes in: a `Plan`. What goes out: a token for each feed that draws. It knows slots and pages, not streams' lives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import torch

from ..embeddings import Embeddings
from ..family import Loaded
from ..frozen import Snapshot
from ..plan import TABLES, Feed, Likely, Plan, Recalled, Result
from .attention import Backend, Part, ReferenceBackend, Step, number
from .batch import FrontRows, StepRows, batched
from .graphs import Graphs, Record
from .lora import Adapters, wearing
from .out_of_memory import is_out_of_memory, let_go
from .sampler import likeliest, sample
from .spans import SpanStore, laid_out
from .upload import on, to_host, upload

log = logging.getLogger("penstock.engine")


class LanguageModel:
    """The decoder of one checkpoint over a paged cache of `(pages, page_tokens, kv_heads, head_dim)` per layer.

    `record`: steps are recorded by it when the cache is made (graphs.py), those that append up to `appends` rows.
    `spans` holds the embeddings that plans name, `adapters` what rows may wear.
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
    ) -> None:
        config = loaded.config
        self.text = loaded.text
        taken_over = loaded.fast is not None and loaded.fast.text is loaded.text
        self.fast = loaded.fast if taken_over else None
        self.head = loaded.head
        self.axes = loaded.family.data.axes
        self.turning = loaded.turning
        self.embed = loaded.text.get_input_embeddings()
        self.device = self.embed.weight.device
        self.backend = backend or ReferenceBackend()
        self.spans = SpanStore(loaded.family.endings.values())
        self.adapters = Adapters()
        self.page_tokens = page_tokens
        self.group = config.num_attention_heads // token_shape(config)[0]
        self.windows = _windows(loaded.text, config)
        spare = record is not None  # a page and a table for rows that pad a batch
        shape = (pages + spare, page_tokens, *token_shape(config))
        dtype = self.embed.weight.dtype
        self.keys = [torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(config.num_hidden_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(config.num_hidden_layers)]
        # Page tables of all slots, for windows and fronts; entries after a sequence's length are stale and never read.
        self.tables = torch.zeros((slots * TABLES + spare, pages), dtype=torch.int32, device=self.device)
        self._host: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.logits: torch.Tensor | None = None  # of the last step's drawn rows, (draws, vocabulary)
        self.graphs = None
        if record is not None:
            self.tables[-1] = pages
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
        failed = self._move_pages(plan)
        self.spans.fed(plan.found)
        feeds = [feed for feed in plan.feeds if feed.stream not in failed]
        while feeds:
            done = self._attempt(feeds)
            if done is not None:
                self.spans.fed(run.stored for feed in feeds for run in feed.rows if run.stored is not None)
                return _result(plan.number, feeds, *done, failed)
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
            return tokens, likeliest(self.logits, tokens, [feed.draw for feed in feeds if feed.draw is not None])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning("a step of %d streams ran out of memory: %s", len(feeds), error)
            return None

    def _drawn(self, feeds: list[Feed]) -> torch.Tensor | None:
        """The tokens of the feeds that draw, `(draws,)` on the device; nothing here waits for it."""
        hidden = self._forward(feeds)
        last = np.cumsum([sum(len(run) for run in feed.rows) for feed in feeds]) - 1
        drawn = [(int(row), feed.draw) for row, feed in zip(last, feeds, strict=True) if feed.draw is not None]
        if not drawn:
            return None
        rows = upload(torch.tensor([row for row, _ in drawn]), self.device)
        logits = self.logits = self.head(hidden[rows])
        return sample(logits, [draw for _, draw in drawn])

    def _read(self, tokens: torch.Tensor) -> list[int]:
        """Where a step waits for the device, once; log probabilities that were asked for do so too."""
        return tokens.tolist()

    def _move_pages(self, plan: Plan) -> list[int]:
        """What is done before the forward pass; returns the streams whose pages are lost, as memory ran out."""
        for stream, twin in plan.twins:
            self._host[twin] = self._host[stream]
        lost = [rows.stream for rows in plan.recalled if not self._moved(self._recall, rows)]
        lost += [stream for stream, pages in plan.saves if not self._moved(self._save, stream, pages)]
        self._copy(plan.copies)
        for edit in plan.edits:
            pages = upload(torch.tensor(edit.pages, dtype=torch.int32), self.device)
            self.tables[edit.slot, edit.index : edit.index + len(edit.pages)] = pages
        lost += [stream for stream, pages in plan.restores if not self._moved(self._restore, stream, pages)]
        for stream in plan.drops:
            self._host.pop(stream, None)
        self.spans.release(plan.releases)
        return lost

    def _moved(self, move: Callable[..., None], *what: Any) -> bool:
        try:
            move(*what)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning("moving pages ran out of memory: %s", error)
            return False
        return True

    def _copy(self, pages: list[tuple[int, int]]) -> None:
        for tensor in (*self.keys, *self.values) if pages else ():
            for source, target in pages:
                tensor[target] = tensor[source]

    def _recall(self, rows: Recalled) -> None:
        """Sources are read before anything is written: they may be free by now, and taken again as targets."""
        sources, targets, steps = (
            upload(torch.tensor(numbers), self.device) for numbers in (rows.sources, rows.targets, rows.turns)
        )
        turns = self.turning(steps)
        keys = [turn(pool.flatten(0, 1)[sources]) for turn, pool in zip(turns, self.keys, strict=True)]
        values = [pool.flatten(0, 1)[sources] for pool in self.values]
        self._copy(rows.copies)
        for pool, moved in zip((*self.keys, *self.values), (*keys, *values), strict=True):
            pool.flatten(0, 1).index_copy_(0, targets, moved)

    def _save(self, stream: int, pages: list[int]) -> None:
        index = upload(torch.tensor(pages), self.device)
        self._host[stream] = [
            (to_host(key[index]), to_host(value[index])) for key, value in zip(self.keys, self.values, strict=True)
        ]

    def taken(self, snapshot: Snapshot) -> Snapshot:
        """A copy whose pages are in host memory, with these and its embeddings."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        embeds = {id: tuple(self.spans.whole(id)) for id in snapshot.frozen.entries}
        return msgspec.structs.replace(snapshot, layers=self._host.get(snapshot.twin, []), embeds=embeds)

    def bring(self, stream: int, snapshot: Snapshot, base: int) -> None:
        """What a stream that goes on here has in host memory, before the first plan that names it."""
        if snapshot.layers:
            self._host[stream] = snapshot.layers
        for id, embeds in snapshot.embeds.items():
            self.spans.add(base + id, Embeddings(*embeds))

    def _restore(self, stream: int, pages: list[int]) -> None:
        index = upload(torch.tensor(pages), self.device)
        for (key, value), keys, values in zip(self._host.pop(stream), self.keys, self.values, strict=True):
            keys[index] = upload(key[: len(pages)], self.device)
            values[index] = upload(value[: len(pages)], self.device)

    def _forward(self, feeds: list[Feed]) -> torch.Tensor:
        """All rows of the step back to back through the decoder; returns `(rows, hidden)`."""
        worn = self.adapters.worn(feeds, self.device)
        graphs = self.graphs if worn is None else None  # what is recorded knows no adapters
        if graphs is not None and (hidden := graphs.tokens(feeds)) is not None:
            return hidden
        batch = batched(feeds)
        embeds = self.embed(upload(torch.from_numpy(batch.ids), self.device))
        deep = laid_out(self.spans, [run for feed in feeds for run in feed.rows], embeds)
        if graphs is not None and deep is None and not batch.slid:
            hidden = graphs.appended(batch, embeds)
            if hidden is not None:
                return hidden
        positions = upload(torch.from_numpy(batch.positions), self.device)
        with wearing(worn):
            return self._decoded(embeds, positions, self._attention(batch), {} if deep is None else self._deep(deep))

    def _pass(self, given: torch.Tensor, positions: torch.Tensor, step: Step) -> torch.Tensor:
        """Rows, as ids `(n,)` or as embeddings `(n, hidden)`, at positions `(3, n)`."""
        return self._decoded(self.embed(given) if given.dim() == 1 else given, positions, step, {})

    def _decoded(self, embeds: torch.Tensor, positions: torch.Tensor, step: Step, deep: dict[str, Any]) -> torch.Tensor:
        if self.fast is not None:
            return self.fast(embeds, positions, step, [part[0] for part in deep.get("deepstack_visual_embeds", ())])
        output = self.text(
            inputs_embeds=embeds[None],
            position_ids=positions[:, None] if self.axes == 3 else positions[:1],
            use_cache=False,
            step=step,
            **deep,
        )
        return output.last_hidden_state[0]

    def _deep(self, deep: torch.Tensor) -> dict[str, Any]:
        """DeepStack as the library's decoder takes it: for the batch's one sequence, dense, so that nothing waits for
        the number of visual rows."""
        whole = torch.zeros(1, dtype=torch.long, device=self.device)
        return {"visual_pos_masks": whole, "deepstack_visual_embeds": [part[None] for part in deep]}

    def _attention(self, batch: StepRows) -> Step:
        slots = upload(torch.from_numpy(batch.slots), self.device)
        places = upload(torch.from_numpy(batch.places), self.device)
        pages = self.tables[slots.long(), places // self.page_tokens].long()
        target = pages * self.page_tokens + places % self.page_tokens
        lengths = upload(torch.from_numpy(batch.ends), self.device)

        whole = Part(self.tables, slots, lengths, torch.from_numpy(batch.runs))
        everything = self.backend.prepare(whole, batch.ends, self.group)
        parts: dict[int | None, list[Part]] = {None: [self._from(everything, batch.begins)]}
        for window in self.windows:
            firsts = np.maximum(batch.places + 1 - window, batch.begins).astype(np.int32)
            parts[window] = [self._from(everything, firsts)]
        for front in batch.fronts:
            self._add_front(front, batch, parts)
        turns = [self.turning(upload(torch.from_numpy(-front.lifts), self.device)) for front in batch.fronts]
        return Step(number(self.backend), self.keys, self.values, target, parts, turns)

    def _from(self, part: Part, firsts: np.ndarray) -> Part:
        """The part from these places on."""
        return part._replace(firsts=upload(torch.from_numpy(firsts), self.device)) if firsts.any() else part

    def _add_front(self, front: FrontRows, batch: StepRows, parts: dict[int | None, list[Part]]) -> None:
        """Each row sees this front, too; where a layer has a window, as far as that reaches."""
        slots, lengths = (upload(torch.from_numpy(numbers), self.device) for numbers in (front.slots, front.stops))
        part = Part(self.tables, slots, lengths, torch.from_numpy(batch.runs))
        whole = self.backend.prepare(part, front.stops, self.group)
        for window, seen in parts.items():
            firsts = front.begins if window is None else front.within(window, batch.places - batch.begins)
            seen.append(self._from(whole, np.minimum(firsts, front.stops)))


def _result(
    number: int, feeds: list[Feed], tokens: list[int], likely: list[Likely | None], failed: list[int]
) -> Result:
    """What a step gave, without the draws (token -1) whose logits were not finite."""
    drawing = [feed.stream for feed in feeds if feed.draw is not None]
    poisoned = [stream for stream, token in zip(drawing, tokens, strict=True) if token < 0]
    if poisoned:
        likely = [how for how, token in zip(likely, tokens, strict=False) if token >= 0]
        tokens = [token for token in tokens if token >= 0]
    return Result(number, tokens, failed, poisoned, likely)


def token_shape(config: Any) -> tuple[int, int]:
    """The keys, and the values, of one token in one layer: (kv_heads, head_dim)."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return kv_heads, head_dim


def _windows(text: Any, config: Any) -> set[int]:
    """The windows of a decoder's layers: what each layer says of itself, and the configuration of all."""
    layers = [module for module in text.modules() if hasattr(module, "layer_idx")]
    said = [getattr(layer, "sliding_window", None) for layer in [*layers, config]]
    return {window for window in said if window is not None}
