"""Sound to log-mel, block by block, equal to what Whisper's feature extractor makes of the whole clip.

Comes in: mono samples with their real neighbours; goes out: log10 mel power and, with a maximum, features. Knows
torchaudio; knows neither where blocks begin nor which maximum holds.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from ..errors import InputError
from .wheels import mend_wheels


def _banks(bins: int, rate: int, n_fft: int) -> torch.Tensor:
    """Mel filters `(n_fft // 2 + 1, bins)` float32: triangles on the slaney scale, each of area 1.

    Worked out in float64: a triangle may reach so little over one frequency that float32 steps are a part in a thousand
    of its weight there (torchaudio's `melscale_fbanks` has them).
    """

    def mel(hertz: torch.Tensor) -> torch.Tensor:
        return torch.where(hertz < 1000, hertz * 3 / 200, 15 + torch.log(hertz / 1000) * 27 / math.log(6.4))

    def hertz(mel: torch.Tensor) -> torch.Tensor:
        return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))

    top = mel(torch.tensor(rate / 2, dtype=torch.float64))
    edges = hertz(torch.linspace(0, float(top), bins + 2, dtype=torch.float64))
    frequencies = torch.linspace(0, rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return (torch.minimum(rising, falling).clamp(min=0) * 2 / (edges[2:] - edges[:-2])).float()


class LogMel:
    """Log-mel of Whisper (Radford et al. 2022, section 2.2; `WhisperFeatureExtractor` of transformers) in two steps.

    `power` is what a block gives by itself; `floor_and_scale` needs the maximum of the clip, which is the caller's.
    bins: mel bins, slaney scale and norm, 0 Hz to half of `rate`. n_fft, hop: samples of a window, between windows.
    """

    def __init__(self, bins: int, rate: int = 16000, n_fft: int = 400, hop: int = 160, device: str = "cpu") -> None:
        mend_wheels()
        from torchaudio.transforms import Spectrogram

        self.hop = hop
        self._half = n_fft // 2
        self._spectrum = Spectrogram(n_fft, hop_length=hop, power=2.0, center=False).to(device)
        self._banks = _banks(bins, rate, n_fft).to(device)

    def power(self, samples: torch.Tensor, lead: int, frames: int) -> torch.Tensor:
        """`(bins, frames)` float32: log10 of the mel power, at least -10, of a block in `samples` `(n,)`.

        Frame i is centred on sample `lead + i * hop`. The first `lead` samples are what comes before the block. With a
        lead of less than half a window they are a clip's start, which is mirrored there, as `torch.stft` does; past the
        end of `samples` there are zeros. InputError for a lead below 0.
        """
        if samples.ndim != 1 or frames < 1:
            raise InputError(f"log-mel: expected samples (n,) and 1 frame or more, got {samples.shape}, {frames}")
        if lead < 0:
            raise InputError(f"log-mel: expected a lead of 0 samples or more, got {lead}")
        last = lead + (frames - 1) * self.hop + self._half
        block = torch.nn.functional.pad(samples.float(), (0, max(last + 1 - samples.shape[0], 0)))
        if lead < self._half:
            block = torch.cat((block[1 : self._half + 1].flip(0), block))
            first = lead
        else:
            first = lead - self._half
        block = block[first : first + (frames - 1) * self.hop + 2 * self._half]
        spectrum = self._spectrum(block.to(self._banks.device))
        return torch.clamp(self._banks.T @ spectrum, min=1e-10).log10()


@cache
def log_mel(bins: int, rate: int = 16000, n_fft: int = 400, hop: int = 160, device: str = "cpu") -> LogMel:
    """One `LogMel` for all who ask for the same; it keeps nothing of what it is given, so threads may share it."""
    return LogMel(bins, rate, n_fft, hop, device)


def floor_and_scale(power: torch.Tensor, maximum: torch.Tensor | float) -> torch.Tensor:
    """Features from `power`: no value lower than `maximum - 8`, then `(x + 4) / 4`. Same shape, float32."""
    floor = torch.as_tensor(maximum, dtype=power.dtype, device=power.device) - 8.0
    return (torch.maximum(power, floor) + 4.0) / 4.0
