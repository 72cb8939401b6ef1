"""What a model does with its logits after the output layer: scales them, caps them, shuts out words. In: logits as the
layer gives them and as the library's model does, once. Out: the rule, which holds for all rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

SHUT = -1e4  # logits of what a model never lets be drawn are below it, in every type of number
_FULL = 1 - 1e-9  # of a cap; a logit that has it says nothing of what it was
_SAME = 2e-2  # of the largest logit; what rounding in 16 bits makes is a fraction of it


class LogitRule(NamedTuple):
    """`shut` `(vocabulary,)` bool: words that are never drawn; None: none."""

    scale: float = 1.0
    cap: float | None = None
    shut: torch.Tensor | None = None

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits `(rows, vocabulary)` as the model gives them."""
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        if self.shut is not None:
            logits = logits.masked_fill(self.shut, torch.finfo(logits.dtype).min)
        return logits


def logit_rule(layer: torch.Tensor | None, given: torch.Tensor, config: Any) -> LogitRule:
    """The rule by which what the output layer gives, `(rows, vocabulary)`, becomes what the model gives. `config`: of
    the decoder. Where none is found it is that which changes nothing."""
    if layer is None or layer.shape != given.shape:
        return LogitRule()
    shut = (given <= SHUT).all(0)
    layer, given = layer[:, ~shut].double(), given[:, ~shut].double()
    rules = []
    for cap in dict.fromkeys((None, getattr(config, "final_logit_softcapping", None))):
        plain = given if cap is None else torch.atanh((given / cap).clamp(-_FULL, _FULL)) * cap
        scale = _named(float((layer * plain).sum() / (layer * layer).sum()), config)
        rules += [LogitRule(1.0, cap), LogitRule(scale, cap)]
    # Where nothing is done the first is exact.
    offs = [float((rule(layer) - given).abs().max()) for rule in rules]
    off = min(offs)
    if off > _SAME * float(given.abs().max()):
        return LogitRule()
    return rules[offs.index(off)]._replace(shut=shut if shut.any() else None)


def _named(scale: float, config: Any) -> float:
    """The number that the configuration has for a scale that was measured, or what divides by it."""
    said = [value for value in vars(config).values() if isinstance(value, int | float) and value]
    ways = [way for value in said for way in (float(value), 1 / value)]
    near = [way for way in ways if abs(way - scale) < _SAME * abs(scale)]
    return min(near, key=lambda way: abs(way - scale), default=scale)
