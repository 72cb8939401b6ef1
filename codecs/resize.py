"""Pixels to pixels of another size, as the processors of transformers do it. Knows torch; knows no files.

The kernel is `torch.nn.functional.interpolate` with bicubic weights and antialias on uint8, which is what
`torchvision.transforms.v2.functional.resize` calls on a CPU, and through it `TorchvisionBackend.resize` of
transformers.
"""

from __future__ import annotations

import numpy as np
import torch

from ..errors import InputError


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """`pixels` `(h, w, 3)` or `(n, h, w, 3)` uint8, resized to `height` x `width`; the same rank, uint8, contiguous.

    Equal to the bit to the resize of Qwen2-VL's image and video processors (transformers 5.23, bicubic). An array that
    already has the size comes back as it is. InputError where the shape, the type or the size cannot be used.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != 3 or not pixels.size:
        raise InputError(f"resize: expected (h, w, 3) or (n, h, w, 3) uint8, got {pixels.shape} {pixels.dtype}")
    if height < 1 or width < 1:
        raise InputError(f"resize: expected a height and a width of at least 1, got {height} x {width}")
    if pixels.shape[-3:-1] == (height, width):
        return pixels
    batch = pixels if pixels.ndim == 4 else pixels[None]
    planes = torch.from_numpy(np.array(batch.transpose(0, 3, 1, 2), order="C"))
    resized = torch.nn.functional.interpolate(
        planes, size=(height, width), mode="bicubic", align_corners=False, antialias=True
    )
    rows = np.ascontiguousarray(resized.numpy().transpose(0, 2, 3, 1))
    return rows if pixels.ndim == 4 else rows[0]
