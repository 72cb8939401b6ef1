"""Linear layers whose weights are int8, one scale for each output: half of bfloat16's memory. In: a decoder. Out: the
same decoder, its layers exchanged.

Rounding is symmetric: weight = scale * round(weight / scale), scale = largest / 127 (arXiv 2208.07339, section 2.1, by
rows), itself rounded to bfloat16 first. On a CPU that multiplies int8 itself, each row of the activations becomes two
of int8: the second has what the first leaves, 254 times as fine. Together they are finer than bfloat16, and their
products are whole numbers, so that the rows of a step do not change one another's result.
"""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional

from ..runner.linears import is_plain

# So many rows, at most, are multiplied as int8; more are cheaper over a copy of the weights in the type of the rows (an
# Intel Xeon with AMX: equal at 66 rows of bfloat16).
_WHOLE_ROWS = 64
# Where a CPU does not multiply int8: torch's kernel in bfloat16, which is made for decoding.
_KERNEL_ROWS = 8
# Of another width than multiples of this that kernel reads beyond the weights. The product of whole numbers is wrong
# where a row has a single one. Torch 2.13 refuses neither.
_KERNEL_WIDTH = 16
_FINER = 254


class Int8Linear(torch.nn.Module):
    """`torch.nn.Linear` with int8 weights: `(..., in)` to `(..., out)`, in the type of its input."""

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1).clamp(min=1e-30) / 127).bfloat16().float()
        self.register_buffer("weight", (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8))
        self.register_buffer("scale", scale.to(linear.weight.dtype))
        self.bias = linear.bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        flat = rows.reshape(-1, self.in_features)
        on_cpu, width = rows.device.type == "cpu", self.in_features
        if on_cpu and len(flat) <= _WHOLE_ROWS and width > 1 and multiplies_int8():
            product = self._in_whole_numbers(flat.float()).to(rows.dtype)
        elif on_cpu and len(flat) <= _KERNEL_ROWS and width % _KERNEL_WIDTH == 0:
            # In bfloat16: in float32 the kernel is slower than the layer was.
            product = torch.ops.aten._weight_int8pack_mm(flat.bfloat16(), self.weight, self.scale.bfloat16()).to(
                rows.dtype
            )
        elif rows.dtype == torch.float16:  # a product of unscaled weights would be out of its range
            product = functional.linear(flat, self.weight.to(rows.dtype) * self.scale[:, None])
        else:
            product = functional.linear(flat, self.weight.to(rows.dtype)) * self.scale
        out = product if self.bias is None else product + self.bias
        return out.reshape(*rows.shape[:-1], self.out_features)

    def _in_whole_numbers(self, rows: torch.Tensor) -> torch.Tensor:
        """`(n, in)` float32 to `(n, out)` float32. What is not finite makes all of its row so."""
        count = len(rows)
        unit = rows.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
        values = rows / unit
        coarse = values.round()
        both = torch.empty(2 * count, rows.shape[1], dtype=torch.int8)
        both[:count] = coarse
        both[count:] = values.sub_(coarse).mul_(_FINER).round_()
        products = torch.ops.aten._int_mm(both, self.weight.t()).float()
        return products[count:].div_(_FINER).add_(products[:count]).mul_(unit).mul_(self.scale.float())


@cache
def multiplies_int8() -> bool:
    """Whether this CPU does (x86: VNNI or AMX), by what torch says."""
    return torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()


def quantize(decoder: torch.nn.Module) -> int:
    """Exchange every linear layer below `decoder`, one after the other; returns how many. Embeddings and norms stay."""
    found = [
        (parent, name) for parent in decoder.modules() for name, child in parent.named_children() if is_plain(child)
    ]
    for parent, name in found:
        setattr(parent, name, Int8Linear(getattr(parent, name)))
    return len(found)
