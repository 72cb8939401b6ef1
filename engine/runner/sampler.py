"""Drawing tokens from logits. Stateless: a draw depends on the row's logits and its `Draw` alone, so it can be
repeated, alone and among any others.

Before all else what the reply has said is held against it, by penalties; then come biases, barred tokens and tokens
that are not allowed. Then filters (filters.py) leave each token a weight. The draw is the Gumbel-max trick, twice:
first on the sums of blocks of neighbouring tokens, then on the tokens of the block that was drawn. So noise is made for
a small part of the vocabulary. It is a hash of the token's own seed and of the place that it is for.
"""

from __future__ import annotations

import numpy as np
import torch

from ..plan import Draw, Likely
from .blocks import BLOCK, best, blocks, largest
from .filters import first_tokens, weights
from .upload import upload

_NOTHING = float("-inf")
# What is added to the logits of eight neighbours, by the byte that says which are allowed, the lowest bit first.
_ADDED = np.where(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], 1, bitorder="little"), 0, -np.inf)
_ADDED = _ADDED.astype(np.float32)
# So many logits are worked on at once, and more rows than these make after them: on a CPU so many as its caches hold.
_ON_CPU, _ELSEWHERE = 1 << 20, 1 << 25
# Places of noise: those of a block's tokens are their ids, and those of blocks begin here.
_OF_BLOCKS = 1 << 32
# The constants of SplitMix64.
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def sample(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    """One token id per row: logits `(rows, vocabulary)`, returns `(rows,)` int64 on the same device; -1 where the row's
    logits are not finite, or nothing is left to draw. Minus infinity is a logit like others, unless all are."""
    rows = [row for row, draw in enumerate(draws) if draw.temperature > 0 or _changes(draw)]
    if len(rows) == len(draws):
        tokens = torch.empty(len(draws), dtype=torch.long, device=logits.device)
    else:
        tokens = best(logits)
        tokens = _sound(tokens, logits.gather(1, tokens[:, None]))
    size = max(1, at_once(logits.device) // logits.shape[1])
    for part in (rows[start : start + size] for start in range(0, len(rows), size)):
        index = upload(torch.tensor(part), logits.device)
        neighbours = part[-1] - part[0] == len(part) - 1
        given = logits[part[0] : part[-1] + 1] if neighbours else logits[index]
        tokens.index_copy_(0, index, _sampled(given, [draws[row] for row in part]))
    return tokens


def at_once(device: torch.device) -> int:
    """How many logits are worked on at once."""
    return _ON_CPU if device.type == "cpu" else _ELSEWHERE


def likeliest(logits: torch.Tensor, tokens: list[int], draws: list[Draw]) -> list[Likely | None]:
    """How likely the drawn `tokens` were, of those draws that ask; [] where none does.

    Log probabilities are those of the model: of logits `(rows, vocabulary)` before penalties, biases and filters.
    """
    asked = [(row, draw.logprobs) for row, draw in enumerate(draws) if draw.logprobs is not None]
    if not asked:
        return []
    rows = [row for row, _ in asked]
    of_rows = logits[upload(torch.tensor(rows), logits.device)].float()
    drawn = upload(torch.tensor([[max(tokens[row], 0)] for row in rows]), logits.device)
    top, ids = largest(of_rows, first_tokens(max(count for _, count in asked)))
    shares = (torch.cat([of_rows.gather(1, drawn), top], 1) - of_rows.logsumexp(-1, keepdim=True)).tolist()
    found: list[Likely | None] = [None] * len(draws)
    for (row, count), places, (logprob, *others) in zip(asked, ids.tolist(), shares, strict=True):
        found[row] = Likely(logprob, list(zip(places[:count], others[:count], strict=True)))
    return found


def _changes(draw: Draw) -> bool:
    return bool(draw.said or draw.bias or draw.barred or draw.allowed)


def _sound(tokens: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """-1 where the row's largest logit `(rows, 1)` is not finite: a maximum over NaN is NaN."""
    return torch.where(most[:, 0].isfinite(), tokens, -1)


def _sampled(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    """What `sample` gives for rows of which each is changed or drawn."""
    first = most = logits.amax(-1, keepdim=True).float()
    weighed = logits.float()
    if any(_changes(draw) for draw in draws):
        weighed = _weighed(weighed, draws)
        most = weighed.amax(-1, keepdim=True)
    warm = [row for row, draw in enumerate(draws) if draw.temperature > 0]
    chosen = [draws[row] for row in warm]
    seeds = upload(torch.tensor([[draw.seed] for draw in chosen], dtype=torch.long), logits.device)
    if len(warm) == len(draws):
        tokens = _draw(weights(weighed, most, chosen), seeds)
    else:
        tokens = best(weighed)
        if warm:
            index = upload(torch.tensor(warm), logits.device)
            tokens.index_copy_(0, index, _draw(weights(weighed[index], most[index], chosen), seeds))
    return _sound(_sound(tokens, first), most)


def _weighed(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    """The logits `(rows, vocabulary)` after penalties, biases, what is barred and what is not allowed."""
    for change in (_penalised, _biased, _barred, _within):
        logits = change(logits, draws)
    return logits


def _penalised(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    said = [(row, draw, *np.unique(draw.said, return_counts=True)) for row, draw in enumerate(draws) if draw.said]
    if not said:
        return logits
    rows, ids = (
        np.concatenate([np.full(len(ids), row) for row, _, ids, _ in said]),
        np.concatenate([ids for _, _, ids, _ in said]),
    )
    penalties = [(draw.repetition, draw.presence, draw.frequency) for _, draw, _, _ in said]
    each = np.repeat(np.array(penalties, np.float32), [len(ids) for _, _, ids, _ in said], axis=0)
    counts = np.concatenate([counts for *_, counts in said]).astype(np.float32)
    places = tuple(upload(torch.from_numpy(index), logits.device) for index in (rows, ids))
    repetition, less = (
        upload(torch.from_numpy(values), logits.device) for values in (each[:, 0], each[:, 1] + each[:, 2] * counts)
    )
    now = logits[places]
    return logits.index_put(places, torch.where(now > 0, now / repetition, now * repetition) - less)


def _biased(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    bias = [(row, id, added) for row, draw in enumerate(draws) for id, added in draw.bias]
    if not bias:
        return logits
    rows, ids, added = zip(*bias, strict=True)
    places = _places(rows, ids, logits.device)
    return logits.index_put(places, upload(torch.tensor(added, dtype=logits.dtype), logits.device), accumulate=True)


def _barred(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    barred = [(row, id) for row, draw in enumerate(draws) for id in draw.barred]
    if not barred:
        return logits
    rows, ids = zip(*barred, strict=True)
    return logits.index_put(_places(rows, ids, logits.device), logits.new_full((), _NOTHING))


def _within(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    """Minus infinity where a draw does not allow a token; added, which on a CPU is the fastest way."""
    rows = [row for row, draw in enumerate(draws) if draw.allowed]
    if not rows:
        return logits
    packed = np.frombuffer(b"".join(draws[row].allowed for row in rows), np.uint8).astype(np.int32)
    of_bytes = upload(torch.from_numpy(_ADDED), logits.device)
    added = of_bytes.index_select(0, upload(torch.from_numpy(packed), logits.device)).view(len(rows), -1)
    added = added[:, : logits.shape[1]]
    if len(rows) == len(draws):
        return logits + added
    return logits.index_add(0, upload(torch.tensor(rows), logits.device), added)


def _places(rows: tuple[int, ...], ids: tuple[int, ...], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    return upload(torch.tensor(rows), device), upload(torch.tensor(ids), device)


def _draw(weights: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """A token for each row: `weights` `(rows, vocabulary)` at least 0, `seeds` `(rows, 1)` int64."""
    of_blocks = blocks(weights)
    count = torch.arange(of_blocks.shape[1], device=weights.device)
    block = (of_blocks.sum(-1).log() + _gumbel(seeds, _OF_BLOCKS + count)).argmax(-1, keepdim=True)
    inside = of_blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK))[:, 0]
    ids = block * BLOCK + torch.arange(BLOCK, device=weights.device)
    return ids.gather(1, (inside.log() + _gumbel(seeds, ids)).argmax(-1, keepdim=True))[:, 0]


def _gumbel(seeds: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise: `seeds` `(rows, 1)`, `places` `(n,)` or `(rows, n)`, returns `(rows, n)` float32.

    It is number `place` of the sequence that SplitMix64 makes of the seed: whole numbers, the same on every device.
    Small ones are told apart well, and these make what is large here.
    """
    value = seeds + places * _signed(_STEP)
    value = (value ^ _right(value, 30)) * _signed(_FIRST)
    value = (value ^ _right(value, 27)) * _signed(_SECOND)
    value = _right(value ^ _right(value, 31), 1)
    uniform = (value.float() * 2.0**-63).clamp_(2.0**-64, 1 - 2.0**-24)
    return uniform.neg_().log1p_().neg_().log_().neg_()


def _right(value: torch.Tensor, bits: int) -> torch.Tensor:
    """The 64 bits moved to the right, zeros after them."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def seed_of(seed: int, index: int) -> int:
    """The seed of token `index` of a reply: well apart for neighbours (SplitMix64's finaliser)."""
    value = (seed * _STEP + index * _FIRST + _SECOND) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * _FIRST) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * _SECOND) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) & 0x7FFFFFFFFFFFFFFF
