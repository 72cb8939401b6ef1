"""One step down for all weights: Muon for the matrices inside a network, AdamW for everything else.

In: modules with the rate for each. Out: weights changed in place. On these small models Muon (Jordan 2024, "Muon: an
optimizer for hidden layers in neural networks") needs about half the steps of AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

CLIPPED = 1.0  # largest norm of the whole gradient
WARM_STEPS = 100


class Descent:
    """`inner`: networks whose matrices go to Muon; `outer`: what goes to AdamW whole, as words and heads. Each with its
    rate.

    A rate is reached over the first `WARM_STEPS` and falls to nothing over the last share `cooling` of `steps`.
    """

    def __init__(
        self,
        inner: Iterable[tuple[nn.Module, float]],
        outer: Iterable[tuple[nn.Module, float]],
        steps: int,
        cooling: float,
    ) -> None:
        matrices, others = [], []
        for module, rate in inner:
            weights = [weight for weight in module.parameters() if weight.requires_grad]
            matrices.append({"params": [weight for weight in weights if weight.ndim == 2], "lr": rate})
            others.append({"params": [weight for weight in weights if weight.ndim != 2], "lr": rate})
        for module, rate in outer:
            others.append({"params": [weight for weight in module.parameters() if weight.requires_grad], "lr": rate})
        self._both = (
            torch.optim.Muon(matrices, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.02),
        )
        self._groups = [(group, group["lr"]) for optimizer in self._both for group in optimizer.param_groups]
        self._weights = [weight for group, _ in self._groups for weight in group["params"]]
        self._steps, self._cooling, self._step = steps, cooling, 0

    def step(self, loss: Tensor) -> None:
        """Follow the gradient of `loss`."""
        self._step += 1
        left = 0.01 + (1 - self._step / self._steps) / self._cooling
        for group, rate in self._groups:
            group["lr"] = rate * min(1.0, self._step / WARM_STEPS, left)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._weights, CLIPPED)
        for optimizer in self._both:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
