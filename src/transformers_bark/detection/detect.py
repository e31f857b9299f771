"""A detector over whole files: windows as they are read, so that hours fit into the memory of a minute."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import input_files
from . import features, reading
from .hubert_detector import HubertDetector
from .modeling_detector import BarkDetector

_WINDOWS = 32  # windows analysed at once: 16 seconds


@dataclass(frozen=True)
class Detection:
    """What is known of a recording.

    Args:
        probability: that Bark's codec made it, judged as a whole.
        seconds: the same of each second by itself, [second].
        duration: of the recording in seconds.
    """

    probability: float
    seconds: np.ndarray
    duration: float

    @property
    def words(self) -> str:
        """The probability in words."""
        bounds = ((0.02, "other"), (0.2, "probably other"), (0.8, "unclear"), (0.98, "probably Bark"))
        return next((words for bound, words in bounds if self.probability < bound), "Bark")


def load_detector(source: str | os.PathLike[str] | None = None) -> BarkDetector | HubertDetector:
    """A detector, ready to use.

    Args:
        source: folder or name on the Hub of a `BarkDetector` or `HubertDetector`; by default the one in the package.

    Raises:
        ValueError: a model of another kind.
    """
    from transformers import AutoModelForAudioClassification

    from .. import BARK_DETECTOR

    name = BARK_DETECTOR if source is None else os.fspath(source)
    with input_files.errors_name_files(name, "*.json", "*.safetensors"):
        model = AutoModelForAudioClassification.from_pretrained(name)
    if not isinstance(model, (BarkDetector, HubertDetector)):
        raise ValueError(f"{name} is a {type(model).__name__}, not a BarkDetector or HubertDetector")
    return model.eval()


def detect_file(model: BarkDetector | HubertDetector, path: str | os.PathLike[str]) -> Detection:
    """Judges a file of any length that libsndfile or PyAV reads.

    Raises:
        ValueError: the file cannot be read or holds no audio; the error names it.
    """
    return detect_pieces(model, reading.read_pieces(path, model.config.sampling_rate))


def detect_audio(model: BarkDetector | HubertDetector, audio: Any, sampling_rate: int) -> Detection:
    """Judges audio in memory: [samples], or [channels, samples] whose channels are averaged.

    Raises:
        ValueError: audio of another shape, without samples, or with samples that are not numbers.
    """
    array = np.asarray(audio, np.float32)
    array = array.mean(0) if array.ndim == 2 else array
    if array.ndim != 1 or not len(array):
        raise ValueError(f"audio must have the shape [samples] or [channels, samples], got {np.shape(audio)}")
    if not np.isfinite(array).all():
        raise ValueError("audio must be numbers, got samples that are NaN or infinite")
    return detect_pieces(model, iter([reading.resample(array, sampling_rate, model.config.sampling_rate)]))


@torch.no_grad()
def detect_pieces(model: BarkDetector | HubertDetector, pieces: Iterable[np.ndarray]) -> Detection:
    """Judges audio that comes in pieces at the model's rate, float32 [samples] each."""
    if isinstance(model, HubertDetector):
        return _by_hubert(model, pieces)
    total: Tensor | None = None
    n_windows, counted = 0, _Counted(pieces)
    probabilities = []
    for power in stream_power(model, counted):
        total = power.sum(0) if total is None else total + power.sum(0)
        n_windows += len(power)
        logits = model.logits_of(power, torch.ones(len(power), device=power.device))
        probabilities.append(logits.softmax(-1)[:, 1].cpu().numpy())
    if total is None:
        raise ValueError("there is no audio")
    whole = model.logits_of(total[None] / n_windows, torch.tensor([float(n_windows)], device=total.device))
    rate = model.config.sampling_rate
    seconds = _by_second(np.concatenate(probabilities), rate / model.config.window_hop, counted.n_samples / rate)
    return Detection(float(whole.softmax(-1)[0, 1]), seconds, counted.n_samples / rate)


class _Counted:
    def __init__(self, pieces: Iterable[np.ndarray]) -> None:
        self._pieces = pieces
        self.n_samples = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for piece in self._pieces:
            self.n_samples += len(piece)
            yield piece


def _by_second(windows: np.ndarray, per_second: float, duration: float) -> np.ndarray:
    """Probabilities [window] -> [second]: of the window that begins with it, or the last."""
    n_seconds = max(1, round(duration))
    index = np.minimum(np.round(np.arange(n_seconds) * per_second).astype(int), len(windows) - 1)
    return windows[index]


def stream_power(model: BarkDetector, pieces: Iterable[np.ndarray]) -> Iterator[Tensor]:
    """Power spectra of windows [window, bin] as audio comes: those that `BarkDetector.window_power` makes of all at once."""
    config, device = model.config, model.device
    margin = config.whitening_length - config.whitening_hop
    ahead = config.window_length + 2 * margin + (_WINDOWS - 1) * config.window_hop
    waiting = np.zeros(margin, np.float32)
    any_yet = False
    for piece in pieces:
        waiting = np.concatenate([waiting, piece])
        while len(waiting) >= ahead + config.window_hop:  # so that something is left for the last block
            yield _power(waiting[:ahead], config, device)
            waiting = waiting[_WINDOWS * config.window_hop :]
            any_yet = True
    n_samples = len(waiting) - margin
    if n_samples > 0 or any_yet:
        count = features.n_windows(n_samples, config.window_length, config.window_hop)
        wanted = config.window_length + (count - 1) * config.window_hop + 2 * margin
        yield _power(np.pad(waiting, (0, wanted - len(waiting))), config, device)


def _power(audio: np.ndarray, config: Any, device: torch.device) -> Tensor:
    margin = config.whitening_length - config.whitening_hop
    whitened = features.whiten(torch.from_numpy(audio)[None].to(device), config.whitening_length, config.whitening_hop)
    return features.window_power(whitened[:, margin:-margin], config.window_length, config.window_hop)[0]


_HUBERT_SECONDS = 10  # that HuBERT hears at once


def _by_hubert(model: HubertDetector, pieces: Iterable[np.ndarray]) -> Detection:
    """The whole is judged by the mean over all frames, a second by its own."""
    rate = model.config.sampling_rate
    total, n_frames, n_samples = None, 0, 0
    seconds = []
    for audio in _blocks(pieces, _HUBERT_SECONDS * rate):
        hidden = model.hidden(torch.from_numpy(audio).to(model.device))
        total = hidden.sum(0) if total is None else total + hidden.sum(0)
        n_frames += len(hidden)
        n_samples += len(audio)
        count = max(1, round(len(audio) / rate))
        means = torch.stack([part.mean(0) for part in hidden.tensor_split(count) if len(part)])
        seconds.append(model.classifier(means).softmax(-1)[:, 1].cpu().numpy())
    if total is None:
        raise ValueError("there is no audio")
    whole = model.classifier(total / n_frames).softmax(-1)[1]
    return Detection(float(whole), np.concatenate(seconds), n_samples / rate)


def _blocks(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Pieces of any length -> blocks of `size` samples; the last is shorter."""
    waiting = np.zeros(0, np.float32)
    for piece in pieces:
        waiting = np.concatenate([waiting, piece])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    if len(waiting):
        yield waiting
