"""Drawing tokens from logits. Stateless: a draw depends on the row's logits and its `Draw` alone, so it can be
repeated.

Before all else what the reply has said is held against it, by penalties; then come biases and barred tokens. Filters,
in order: temperature, top-k, top-p (arXiv 1904.09751), min-p (arXiv 2407.01082). The draw itself is the Gumbel-max
trick on noise made from the token's own seed.
"""

from __future__ import annotations

import torch

from ..plan import Draw, Likely
from .upload import upload


def sample(logits: torch.Tensor, draws: list[Draw]) -> torch.Tensor:
    """One token id per row: logits `(rows, vocabulary)`, returns `(rows,)` int64 on the same device; -1 where the row's
    logits are not finite. A maximum over NaN is NaN, so it is enough to look at the logit that was drawn."""
    tokens = logits.argmax(-1)
    for row, draw in enumerate(draws):
        changed = bool(draw.said or draw.bias or draw.barred)
        if draw.temperature == 0 and not changed:
            continue
        weighed = _weighed(logits[row].float(), draw) if changed else logits[row].float()
        tokens[row] = _draw(weighed, draw) if draw.temperature > 0 else weighed.argmax()
    drawn = logits.gather(1, tokens[:, None])[:, 0]
    return torch.where(drawn.isfinite(), tokens, -1)


def likeliest(logits: torch.Tensor, tokens: list[int], draws: list[Draw]) -> list[Likely | None]:
    """How likely the drawn `tokens` were, of those draws that ask; [] where none does.

    Log probabilities are those of the model: of logits `(rows, vocabulary)` before penalties, biases and filters.
    """
    if all(draw.logprobs is None for draw in draws):
        return []
    found: list[Likely | None] = []
    for row, (token, draw) in enumerate(zip(tokens, draws, strict=True)):
        if draw.logprobs is None:
            found.append(None)
            continue
        shares = logits[row].float().log_softmax(-1)
        top = shares.topk(min(draw.logprobs, len(shares)))
        pairs = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
        found.append(Likely(float(shares[token]), pairs))
    return found


def _weighed(logits: torch.Tensor, draw: Draw) -> torch.Tensor:
    """The logits `(vocabulary,)` after penalties, biases and what is barred."""
    said = upload(torch.tensor(draw.said, dtype=torch.long), logits.device)
    counts = torch.zeros_like(logits).index_add(0, said, logits.new_ones(len(said)))
    once = counts > 0
    logits = torch.where(once, torch.where(logits > 0, logits / draw.repetition, logits * draw.repetition), logits)
    logits = logits - draw.presence * once - draw.frequency * counts
    if draw.bias:
        ids, added = zip(*draw.bias, strict=True)
        ids, added = torch.tensor(ids), torch.tensor(added, dtype=logits.dtype)
        logits = logits.index_add(0, upload(ids, logits.device), upload(added, logits.device))
    if draw.barred:
        logits = logits.index_fill(0, upload(torch.tensor(draw.barred), logits.device), float("-inf"))
    return logits


def _draw(logits: torch.Tensor, draw: Draw) -> torch.Tensor:
    logits = logits / draw.temperature
    if 0 < draw.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(draw.top_k).values[-1], float("-inf"))
    if draw.top_p < 1:
        ordered, places = logits.sort(descending=True)
        share = ordered.softmax(-1)
        # A token goes when those before it already reach top_p; the first always stays.
        over = share.cumsum(-1) - share >= draw.top_p
        logits = logits.masked_fill(torch.zeros_like(over).scatter(0, places, over), float("-inf"))
    if draw.min_p > 0:
        share = logits.softmax(-1)
        logits = logits.masked_fill(share < draw.min_p * share.max(), float("-inf"))
    noise = upload(torch.rand(len(logits), generator=torch.Generator().manual_seed(draw.seed)), logits.device)
    gumbel = -(-noise.clamp_min(1e-20).log()).log()
    return (logits + gumbel).argmax()


def seed_of(seed: int, index: int) -> int:
    """The seed of token `index` of a reply: well apart for neighbours (SplitMix64's finaliser)."""
    value = (seed * 0x9E3779B97F4A7C15 + index * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) & 0x7FFFFFFFFFFFFFFF
