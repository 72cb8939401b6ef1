"""Sound of any rate and channels to mono at one rate. Comes in: Samples in any cuts; goes out: float32 samples.

Knows PyAV's resampler for streams and torchaudio's for whole tensors; knows no media time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np

from ..errors import InputError
from .frame import Samples
from .wheels import mend_wheels

if TYPE_CHECKING:
    import torch


class Resampler:
    """Mono float32 at `rate_out` Hz from a run of Samples, with no seam: any cuts give the same samples as one shot.

    Channels are averaged. The filter is that of FFmpeg's swresample; it keeps its state between calls and delays its
    output by half its length, which `flush` gives. Where the rate of the input changes, the old rate is flushed and the
    new one starts afresh. Samples at `rate_out` pass unchanged.
    """

    def __init__(self, rate_out: int) -> None:
        if rate_out < 1:
            raise InputError(f"resampler: expected a rate of at least 1 Hz, got {rate_out}")
        self._rate_out = rate_out
        self._rate_in: int | None = None
        self._filter: av.AudioResampler | None = None

    def feed(self, samples: Samples) -> np.ndarray:
        """The samples `(n,)` at the new rate that are complete with these; n may be 0."""
        tail = self.flush() if samples.rate != self._rate_in else np.empty(0, np.float32)
        if self._rate_in is None and samples.rate != self._rate_out:
            self._filter = av.AudioResampler(format="flt", layout="mono", rate=self._rate_out)
        self._rate_in = samples.rate
        mono = samples.samples.mean(axis=0, dtype=np.float32)
        if self._filter is None or not mono.size:
            return np.concatenate((tail, mono))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(mono[None]), format="flt", layout="mono")
        frame.sample_rate = samples.rate
        return np.concatenate((tail, *_arrays(self._filter.resample(frame))))

    def flush(self) -> np.ndarray:
        """What the filter still holds, `(n,)`; the next `feed` starts a new run."""
        rest = _arrays(self._filter.resample(None)) if self._filter is not None else []
        self._filter = None
        self._rate_in = None
        return np.concatenate((np.empty(0, np.float32), *rest))


def _arrays(frames: list[av.AudioFrame]) -> list[np.ndarray]:
    return [frame.to_ndarray()[0] for frame in frames]


def resample(samples: torch.Tensor, rate_in: int, rate_out: int) -> torch.Tensor:
    """Whole sounds `(..., n)` float at `rate_in` Hz to `rate_out`, on their own device, by torchaudio's sinc filter.

    Keeps nothing between calls: cut sound goes through `Resampler`.
    """
    mend_wheels()
    from torchaudio.functional import resample as kernel

    return kernel(samples, rate_in, rate_out)
