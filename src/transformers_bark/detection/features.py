"""Lines that a codec's decoder leaves: audio -> whitened audio -> long spectra -> how far each bin stands out.

A decoder of transposed convolutions repeats itself with every frame, so it adds lines at the multiples of its frame rate. They lie
far below the speech. Short spectra with every bin set to magnitude one (the phase alone) give each moment and each frequency
the same weight, whatever the level, the timbre or the room; a line goes through all of them with one phase, so that it stands out
of a long spectrum of the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

FLOOR = 2e-5
"""Magnitude below which a bin counts as empty: under the rounding noise of 16 bits, above a resampler's."""

_NEIGHBOURS = 41  # bins around one that it is compared with
_LOWEST, _HIGHEST = -1.5, 4.0  # log ratios beyond this say nothing more


def whiten(audio: Tensor, length: int, hop: int) -> Tensor:
    """[batch, samples] -> [batch, samples + length - hop] whitened, for samples a multiple of `hop`.

    Overlapping spectra of `length` samples lose their magnitudes and are added up again. `audio` begins and ends with
    `length - hop` samples of context less, so pieces that share as much are whitened as the whole is.
    """
    window = torch.hann_window(length, dtype=audio.dtype, device=audio.device)
    spectra = torch.fft.rfft(audio.unfold(-1, length, hop) * window)
    flat = torch.fft.irfft(spectra / (spectra.abs() + FLOOR), n=length) * window
    n_parts = length // hop
    parts = flat.unflatten(-1, (n_parts, hop))  # of each spectrum, those that lie on one hop each
    added = sum(F.pad(parts[:, :, part], (0, 0, part, n_parts - 1 - part)) for part in range(n_parts))
    assert isinstance(added, Tensor)
    return added.flatten(1) * (hop / length)


def window_power(whitened: Tensor, length: int, hop: int) -> Tensor:
    """Whitened audio [batch, samples] -> power spectra [batch, window, length // 2 + 1]."""
    window = torch.hann_window(length, dtype=whitened.dtype, device=whitened.device)
    spectra = torch.fft.rfft(whitened.unfold(-1, length, hop) * window)
    return spectra.real.square() + spectra.imag.square()


def prominence(power: Tensor) -> Tensor:
    """Power [..., bin] -> log of each bin against the mean of its neighbours [..., bin]; empty bins are 0."""
    flat = power.reshape(-1, 1, power.shape[-1])
    half = _NEIGHBOURS // 2
    around = F.avg_pool1d(F.pad(flat, (half, half), mode="reflect"), _NEIGHBOURS, stride=1)
    empty = 1e-3 * flat.mean(-1, keepdim=True) + 1e-12
    ratio = torch.log((flat + empty) / (around + empty))
    return ratio.clamp(_LOWEST, _HIGHEST).reshape(power.shape)


def speeds(max_speed: float, n_speeds: int) -> Tensor:
    """[2 * n_speeds + 1] factors around 1, in even steps."""
    return 1 + torch.arange(-n_speeds, n_speeds + 1, dtype=torch.float64) * (max_speed / max(n_speeds, 1))


def comb_bins(frame_rate: float, factors: Tensor, max_frequency: float, bin_width: float) -> tuple[Tensor, Tensor]:
    """Bins of a comb at each speed [speed, tooth], and those between its teeth [speed, tooth + 1]."""
    n_teeth = int(max_frequency / frame_rate)
    teeth = torch.arange(1, n_teeth + 1, dtype=torch.float64) * (frame_rate / bin_width)
    gaps = (torch.arange(0, n_teeth + 1, dtype=torch.float64) + 0.5) * (frame_rate / bin_width)
    return (factors[:, None] * teeth).round().long(), (factors[:, None] * gaps).round().long()


def own_teeth(rate: float, others: Sequence[float], max_frequency: float, bin_width: float) -> tuple[Tensor, Tensor]:
    """Bins of a comb's teeth that no comb of `others` shares, at `rate` itself [tooth], and as many a little beside them."""
    teeth = torch.arange(1, int(max_frequency / rate) + 1, dtype=torch.float64) * rate
    apart = torch.ones(len(teeth), dtype=torch.bool)
    for other in others:
        apart &= (teeth / other - (teeth / other).round()).abs() * other > 6 * bin_width
    bins = (teeth[apart] / bin_width).round().long()
    return bins, bins + round(0.37 * min(rate, *others) / bin_width)


def comb(peaks: Tensor, teeth: Tensor, gaps: Tensor) -> Tensor:
    """Prominence [..., bin], the highest of three -> how far teeth stand above the gaps beside them [..., speed, tooth]."""
    between = peaks[..., gaps]
    return peaks[..., teeth] - 0.5 * (between[..., 1:] + between[..., :-1])


def highest_of_three(values: Tensor) -> Tensor:
    """[..., bin] -> the highest of each bin and its two neighbours: a line between two bins, or one that wavers."""
    flat = values.reshape(-1, 1, values.shape[-1])
    return F.max_pool1d(flat, 3, stride=1, padding=1).reshape(values.shape)


def n_windows(n_samples: int, length: int, hop: int) -> int:
    """Long spectra of so many whitened samples: at least one, and the last may be filled up with silence."""
    return max(1, math.ceil((n_samples - length) / hop) + 1)


def analyse(audio: Tensor, config: object) -> Tensor:
    """Audio [batch, samples] -> power spectra [batch, window, bin], of the whole at once; see `Analysis` for pieces."""
    whitening, step = config.whitening_length, config.whitening_hop  # type: ignore[attr-defined]
    length, hop = config.window_length, config.window_hop  # type: ignore[attr-defined]
    margin = whitening - step
    count = n_windows(audio.shape[-1], length, hop)
    wanted = length + (count - 1) * hop
    padded = F.pad(audio, (margin, margin + wanted - audio.shape[-1]))
    whitened = whiten(padded, whitening, step)[:, margin : margin + wanted]
    return window_power(whitened, length, hop)


__all__: Sequence[str] = [
    "analyse",
    "comb",
    "comb_bins",
    "highest_of_three",
    "n_windows",
    "own_teeth",
    "prominence",
    "speeds",
    "whiten",
    "window_power",
]
