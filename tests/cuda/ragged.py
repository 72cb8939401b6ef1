"""Ragged batches over scattered pages, of any shape and on any device, for what attends."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from penstock.engine.runner.attention import Backend, Part, merge
from penstock.engine.runner.narrow import kv_type, narrowed

from tests.cuda.where import DEVICE

# Of each sequence: rows of history, and how many of the last of them are queried.
sequences = st.lists(st.tuples(st.integers(1, 90), st.sampled_from([1, 1, 2, 7, 30])), min_size=1, max_size=4)


class Ragged:
    """Queries, and keys and values in pages dealt out at random; what nobody owns holds NaN or leads nowhere."""

    def __init__(
        self,
        shape: list[tuple[int, int]],
        *,
        seed: int,
        page_tokens: int = 16,
        kv_heads: int = 2,
        group: int = 2,
        dim: int = 16,
        wide: int | None = None,
        dtype: torch.dtype = torch.float32,
        kv_dtype: str = "auto",
        window: int | None = None,
        mutual: int = 0,
        cap: float = 0.0,
    ) -> None:
        """`window`: rows that each row sees, itself included. `mutual`: so many of a sequence's last rows, one left
        out, see one another. Values have `wide` numbers, else as many as keys. `cap`: of the scores."""
        self.cap = cap
        noise = torch.Generator().manual_seed(seed)
        needs = [-(-history // page_tokens) for history, _ in shape]
        order = torch.randperm(sum(needs) + 3, generator=noise).int()
        pool = (len(order), page_tokens, kv_heads)
        keys, values = (torch.full((*pool, size), float("nan"), dtype=dtype) for size in (dim, wide or dim))
        tables = torch.full((len(shape) + 1, len(order)), 10_000, dtype=torch.int32)
        runs, lengths, firsts, slots, used = [], [], [], [], 0
        for number, ((history, asked), need) in enumerate(zip(shape, needs, strict=True)):
            slot, asked = len(shape) - number, min(asked, history)
            tables[slot, :need] = order[used : used + need]
            used += need
            for place in range(history):
                where = int(tables[slot, place // page_tokens]), place % page_tokens
                for rows in (keys, values):
                    rows[where] = torch.randn(rows.shape[2:], generator=noise).to(dtype)
            ends = list(range(history - asked + 1, history + 1))
            firsts += [max(0, end - window) if window else 0 for end in ends]
            together = min(mutual, asked - 1)
            ends[asked - 1 - together : asked - 1] = [history - 1] * together
            runs.append((len(lengths), len(lengths) + asked))
            lengths += ends
            slots += [slot] * asked
        keys, values = (narrowed(part, kv_type(kv_dtype, dtype)) for part in (keys, values))
        query = torch.randn(len(lengths), kv_heads * group, dim, generator=noise).to(dtype)
        self.scale = dim**-0.5
        self.query, self.keys, self.values = query.to(DEVICE), keys.to(DEVICE), values.to(DEVICE)
        tables, rows = tables.to(DEVICE), torch.tensor([slots, lengths, firsts], dtype=torch.int32, device=DEVICE)
        self.part = Part(tables, rows[0], rows[1], torch.tensor(runs), rows[2] if window else None)
        self.ends, self.group = np.array(lengths, np.int32), group

    def attend(self, backend: Backend, values: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.attend_in(backend, [self.part], values, self.ends)

    def attend_in(
        self,
        backend: Backend,
        parts: list[Part],
        values: torch.Tensor | None = None,
        ends: np.ndarray | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All parts, merged. `ends`: how far the rows see in each, where that is known on the host."""
        values = self.values if values is None else values
        parts = [backend.prepare(part, ends, self.group) for part in parts]
        both = [backend.attend(self.query, self.keys, values, part, self.scale, self.cap) for part in parts]
        return merge([out for out, _ in both], [lse for _, lse in both])

    def halves(self, pages: int) -> list[Part]:
        """The first pages of every history apart from the rest; either may be empty for a row."""
        part, cut = self.part, pages * self.keys.shape[1]
        head, firsts = part.lengths.clamp(max=cut), [None, None]
        if part.firsts is not None:
            firsts = [part.firsts.clamp(max=cut), (part.firsts - cut).clamp(min=0)]
        return [
            Part(part.tables, part.slots, head, part.runs, firsts[0]),
            Part(part.tables[:, pages:], part.slots, part.lengths - head, part.runs, firsts[1]),
        ]
