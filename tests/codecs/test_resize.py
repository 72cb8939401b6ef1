"""Resizing is the processors' own, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from penstock.codecs.resize import resize
from penstock.codecs.wheels import mend_wheels
from penstock.errors import InputError

SIDES = st.integers(28, 150)


@pytest.fixture(scope="module")
def processors() -> tuple:
    mend_wheels()
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor
    from transformers.image_processing_backends import TorchvisionBackend

    image = Qwen2VLImageProcessor()
    assert isinstance(image, TorchvisionBackend)
    return image, Qwen2VLVideoProcessor(cap_pixels_per_frame=False)


@given(SIDES, SIDES, st.sampled_from([1, 3]), st.integers(28 * 28, 120 * 120))
def test_equal_to_the_video_processor(processors: tuple, height: int, width: int, count: int, most: int) -> None:
    from transformers.image_utils import SizeDict

    pixels = np.random.default_rng(height).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    size = SizeDict(shortest_edge=28 * 28, longest_edge=most)
    expected = processors[1].resize(planes[None], size, processors[1].resample, factor=28)[0].permute(0, 2, 3, 1)
    got = resize(pixels, *expected.shape[1:3])
    assert got.dtype == np.uint8 and got.flags.c_contiguous and np.array_equal(got, expected.numpy())


@given(SIDES, SIDES, SIDES, SIDES)
def test_equal_to_the_image_processor(processors: tuple, height: int, width: int, new_h: int, new_w: int) -> None:
    from transformers.image_processing_backends import TorchvisionBackend
    from transformers.image_utils import SizeDict

    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    planes = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    size = SizeDict(height=new_h, width=new_w)
    expected = TorchvisionBackend.resize(processors[0], planes, size, processors[0].resample).permute(1, 2, 0)
    assert np.array_equal(resize(pixels, new_h, new_w), expected.numpy())


def test_each_frame_is_resized_by_itself() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 60, 90, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    together = resize(pixels, 28, 56)
    assert all(np.array_equal(resize(frame, 28, 56), row) for frame, row in zip(pixels, together, strict=True))
    assert resize(pixels, 60, 90) is pixels


def test_wrong_input() -> None:
    good = np.zeros((4, 5, 3), np.uint8)
    for bad in (good.astype(np.float32), good[:, :, :2], good[0], good[:0]):
        with pytest.raises(InputError, match="uint8, got"):
            resize(bad, 2, 2)
    with pytest.raises(InputError, match="0 x 5"):
        resize(good, 0, 5)
