"""Torch's own paged attention on CUDA, `torch.nn.attention.varlen.varlen_attn` (FlashAttention, arXiv 2307.08691),
which takes page tables since torch 2.13.

It knows two shapes of a run: each row sees one row more than the row before it, or all see the same. Runs are cut into
such pieces on the host; each kind is one call. Its pages hold a multiple of 256 rows, so short streams waste more of
the cache than with the Triton kernel. Windows, float32 and sizes of heads that FlashAttention lacks go to the backend
beside it.
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
    """All pieces of one kind: which rows they are (empty: all, in order), where each begins among these, how far the
    last row of each sees, the same added up, its pages `(pieces, pages)`; on the host `most`, the most rows and the
    most keys of a piece, both 0 where there is no piece of the kind."""

    rows: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    ends: torch.Tensor
    tables: torch.Tensor
    most: torch.Tensor


_FIELDS = len(_Pieces._fields)


def cut(runs: list[list[int]], ends: np.ndarray) -> list[tuple[int, int, bool]]:
    """Runs of rows as pieces (start, stop, causal): in a causal piece each row sees one row more than the one
    before it, in another all see the same. `ends`: how far each row sees."""
    pieces = []
    for first, last in runs:
        start = first
        while start < last:
            stop = start + 1
            step = int(ends[stop] - ends[start]) if stop < last else 1
            if step in (0, 1):
                while stop < last and ends[stop] - ends[stop - 1] == step:
                    stop += 1
            pieces.append((start, stop, stop - start == 1 or step == 1))
            start = stop
    return pieces


class VarlenBackend(Backend):
    """Attention on CUDA over float16 or bfloat16 pages; `beside` attends to what it does not take."""

    page_tokens = PAGE_TOKENS

    def __init__(self, beside: Backend) -> None:
        """ModelError where the installed torch has no page tables in it."""
        if "block_table" not in inspect.signature(varlen.varlen_attn).parameters:
            raise ModelError(f"backend varlen: expected torch 2.13 or newer, got {torch.__version__}")
        self._beside = beside

    def prepare(self, part: Part, ends: np.ndarray | None, group: int) -> Part:
        """Adds the causal pieces, the others, and what the backend beside it makes."""
        pieces = [] if ends is None else cut(part.runs.numpy().tolist(), ends)
        kinds = [_grouped([piece for piece in pieces if piece[2] is causal], part, ends) for causal in (True, False)]
        return part._replace(made=[*kinds[0], *kinds[1], *self._beside.prepare(part, ends, group).made])

    def refill(self, made: list[torch.Tensor], part: Part, group: int) -> bool:
        return self._beside.refill(made[2 * _FIELDS :], part, group)  # which attends where ends are not known

    def attend(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, part: Part, scale: float, cap: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kinds = [(_Pieces(*part.made[:_FIELDS]), True), (_Pieces(*part.made[_FIELDS : 2 * _FIELDS]), False)]
        kinds = [(pieces, causal) for pieces, causal in kinds if len(pieces.lengths)]
        if not kinds or part.firsts is not None or cap or not _takes(query, keys, values):
            return self._beside.attend(query, keys, values, part._replace(made=part.made[2 * _FIELDS :]), scale, cap)
        if len(kinds) == 1:
            return _call(query, keys, values, *kinds[0], scale)
        out, lse = torch.empty_like(query), query.new_empty(query.shape[:2], dtype=torch.float32)
        for pieces, causal in kinds:
            rows = pieces.rows
            out[rows], lse[rows] = _call(query[rows], keys, values, pieces, causal, scale)
        return out, lse


def _takes(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> bool:
    dim = query.shape[-1]
    return (
        query.dtype in (torch.float16, torch.bfloat16)
        and keys.dtype == query.dtype
        and keys.shape[1] % PAGE_TOKENS == 0
        and dim <= _WIDEST
        and dim % _STEP == 0
        and values.shape[3] == dim
    )


def _call(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, pieces: _Pieces, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    most_rows, most_keys = pieces.most.numpy().tolist()
    out, lse = varlen.varlen_attn(
        query,
        keys,
        values,
        pieces.starts,
        pieces.ends,
        most_rows,
        most_keys,
        return_aux=varlen.AuxRequest(lse=True),
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != keys.shape[2],
        seqused_k=pieces.lengths,
        block_table=pieces.tables[:, : -(-most_keys // keys.shape[1])],
        num_splits=1,  # what FlashAttention 2 merges of split histories in pages is wrong (pytorch issue 194167)
    )
    return out, lse.transpose(0, 1)  # which comes by heads


def _grouped(cuts: list[tuple[int, int, bool]], part: Part, ends: np.ndarray | None) -> _Pieces:
    """Pieces of one kind, or none."""
    starts = np.array([start for start, _, _ in cuts], dtype=np.int64)
    stops = np.array([stop for _, stop, _ in cuts], dtype=np.int64)
    lengths = np.zeros(0, np.int32) if ends is None else ends[stops - 1].astype(np.int32)
    borders = np.concatenate([[0], (stops - starts).cumsum()]).astype(np.int32)
    rows = np.concatenate([np.arange(0), *(np.arange(start, stop) for start, stop, _ in cuts)])
    if ends is not None and len(rows) == len(ends):
        rows = rows[:0]
    most = np.array([(stops - starts).max(initial=0), lengths.max(initial=0)])

    def sent(values: np.ndarray) -> torch.Tensor:
        return upload(torch.from_numpy(values), part.lengths.device)

    return _Pieces(
        rows=sent(rows),
        starts=sent(borders),
        lengths=sent(lengths),
        ends=sent(np.concatenate([[0], lengths.cumsum()]).astype(np.int32)),
        tables=part.tables[part.slots[sent(starts)].long()],
        most=torch.from_numpy(most),
    )
