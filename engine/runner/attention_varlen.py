"""Torch's own paged attention on CUDA, `torch.nn.attention.varlen.varlen_attn` (FlashAttention, arXiv 2307.08691),
which takes page tables since torch 2.13.

It knows two shapes of a run: each row sees one row more than the row before it, or all see the same. Runs are cut into
such pieces on the host; each kind is one call. Its pages hold a multiple of 256 rows, so short streams waste more of
the cache than with the Triton kernel. Windows, float32 and heads that FlashAttention lacks go to the backend beside it.
"""

from __future__ import annotations

import inspect
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.attention import varlen

from ...errors import ModelError
from .attention import Backend, Part
from .upload import upload

PAGE_TOKENS = 256  # what FlashAttention 2 asks of a page
_WIDEST, _STEP = 256, 8  # of a head


class _Pieces(NamedTuple):
    """All pieces of one kind: which rows they are (None: all, in order), where each begins among these, how far the
    last row of each sees, the same added up, whose pages, and the largest of both."""

    causal: bool
    rows: torch.Tensor | None
    starts: torch.Tensor
    lengths: torch.Tensor
    ends: torch.Tensor
    slots: torch.Tensor
    most_rows: int
    most_keys: int


def cut(runs: list[tuple[int, int, int]], ends: np.ndarray) -> list[tuple[int, int, int, bool]]:
    """Runs of rows as pieces (start, stop, slot, causal): in a causal piece each row sees one row more than the one
    before it, in another all see the same. `ends`: how far each row sees."""
    pieces = []
    for first, last, slot in runs:
        start = first
        while start < last:
            stop = start + 1
            step = int(ends[stop] - ends[start]) if stop < last else 1
            if step in (0, 1):
                while stop < last and ends[stop] - ends[stop - 1] == step:
                    stop += 1
            pieces.append((start, stop, slot, stop - start == 1 or step == 1))
            start = stop
    return pieces


class VarlenBackend:
    """Attention on CUDA over float16 or bfloat16 pages; `beside` attends to what it does not take."""

    page_tokens = PAGE_TOKENS

    def __init__(self, beside: Backend) -> None:
        """ModelError where the installed torch has no page tables in it."""
        if "block_table" not in inspect.signature(varlen.varlen_attn).parameters:
            raise ModelError(f"backend varlen: expected torch 2.13 or newer, got {torch.__version__}")
        self._beside = beside

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._takes(query, keys, part):
            return self._beside.attend(query, keys, values, part, scale)
        kinds = self._pieces(part)
        if len(kinds) == 1:
            return self._call(query, keys, values, part, kinds[0], scale)
        out, lse = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        for pieces in kinds:
            out[pieces.rows], lse[pieces.rows] = self._call(query[pieces.rows], keys, values, part, pieces, scale)
        return out, lse

    def _takes(self, query: torch.Tensor, keys: torch.Tensor, part: Part) -> bool:
        dim = query.shape[-1]
        return (
            part.firsts is None
            and part.ends is not None
            and query.dtype in (torch.float16, torch.bfloat16)
            and keys.shape[1] % PAGE_TOKENS == 0
            and dim <= _WIDEST
            and dim % _STEP == 0
        )

    def _call(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        part: Part,
        pieces: _Pieces,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        most_pages = -(-pieces.most_keys // keys.shape[1])
        out, lse = varlen.varlen_attn(
            query,
            keys,
            values,
            pieces.starts,
            pieces.ends,
            pieces.most_rows,
            pieces.most_keys,
            return_aux=varlen.AuxRequest(lse=True),
            scale=scale,
            window_size=(-1, 0) if pieces.causal else (-1, -1),
            enable_gqa=query.shape[1] != keys.shape[2],
            seqused_k=pieces.lengths,
            block_table=part.tables[pieces.slots, :most_pages],
            num_splits=1,  # what FlashAttention 2 merges of split histories in pages is wrong (pytorch issue 194167)
        )
        return out, lse.transpose(0, 1)  # which comes by heads

    def _pieces(self, part: Part) -> list[_Pieces]:
        """They are cut once, for all layers."""
        if "varlen" not in part.kept:
            assert part.ends is not None
            cuts = cut(part.runs, part.ends)
            kinds = [[piece for piece in cuts if piece[3] is causal] for causal in (True, False)]
            part.kept["varlen"] = [_grouped(group, part) for group in kinds if group]
        return part.kept["varlen"]


def _grouped(cuts: list[tuple[int, int, int, bool]], part: Part) -> _Pieces:
    assert part.ends is not None
    counts = np.array([stop - start for start, stop, _, _ in cuts])
    starts = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    lengths = np.array([part.ends[stop - 1] for _, stop, _, _ in cuts], dtype=np.int32)
    slots = np.array([slot for _, _, slot, _ in cuts], dtype=np.int64)
    rows = None
    if starts[-1] != len(part.ends):
        rows = np.concatenate([np.arange(start, stop) for start, stop, _, _ in cuts])
    ends = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    device = part.lengths.device
    return _Pieces(
        causal=cuts[0][3],
        rows=None if rows is None else upload(torch.from_numpy(rows), device),
        starts=upload(torch.from_numpy(starts), device),
        lengths=upload(torch.from_numpy(lengths), device),
        ends=upload(torch.from_numpy(ends), device),
        slots=upload(torch.from_numpy(slots), device),
        most_rows=int(counts.max()),
        most_keys=int(lengths.max()),
    )
