"""Semantic tokens: speech features, projected so that phonemes come apart, and grouped by k-means.

Bark's own semantic encoder was never released; this one serves models trained from scratch. The features are log-mel
frames with their neighbours. A linear discriminant analysis, fitted once on the teacher's phoneme times, keeps what tells
phonemes apart; encoding needs audio only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import librosa
import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from sklearn.cluster import MiniBatchKMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

_WEIGHTS = "semantic_tokenizer.safetensors"
_CONFIG = "semantic_tokenizer.json"
_STRESS = "ˈˌ"
"""Marks that take time of their own in the teacher's alphabet but sound like the phoneme after them."""


@dataclass(frozen=True)
class SemanticTokenizerConfig:
    """Sizes of the tokenizer. `hop` is the samples of a token, `frame_hop` those of a mel frame (it divides `hop`)."""

    sampling_rate: int = 24_000
    hop: int = 960
    frame_hop: int = 240
    n_fft: int = 1024
    n_mels: int = 40
    context: int = 5
    n_components: int = 40
    n_tokens: int = 512
    seed: int = 1

    @property
    def rate_hz(self) -> float:
        """Tokens per second."""
        return self.sampling_rate / self.hop


class SemanticTokenizer:
    """Audio -> semantic tokens. Make one with `fit` or `load`."""

    def __init__(self, config: SemanticTokenizerConfig, projection: np.ndarray, mean: np.ndarray, centres: np.ndarray):
        self.config = config
        self.projection, self.mean, self.centres = (
            torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in (projection, mean, centres)
        )

    @classmethod
    def fit(
        cls, config: SemanticTokenizerConfig, audios: Iterable[np.ndarray], labels: Iterable[Sequence[int]]
    ) -> SemanticTokenizer:
        """Fits the projection and the clusters.

        Args:
            audios: float32 [samples] in [-1, 1], one an utterance.
            labels: for each utterance the class of every token, -1 for none; used only to fit the projection.
        """
        rows, classes = [], []
        for audio, label in zip(audios, labels, strict=True):
            part = features(torch.from_numpy(audio), config).numpy()
            size = min(len(part), len(label))
            rows.append(part[:size])
            classes.append(np.asarray(label[:size]))
        data, target = np.concatenate(rows), np.concatenate(classes)
        known = target >= 0
        analysis = LinearDiscriminantAnalysis(n_components=config.n_components, solver="eigen", shrinkage=1e-3)
        analysis.fit(data[known], target[known])
        mean = data.mean(0)
        projection = analysis.scalings_[:, : config.n_components]
        projected = (data - mean) @ projection
        clusters = MiniBatchKMeans(
            config.n_tokens, batch_size=16_384, n_init=3, max_iter=60, random_state=config.seed
        ).fit(projected)
        return cls(config, projection, mean, clusters.cluster_centers_)

    def project(self, audio: Tensor) -> Tensor:
        """audio [samples] -> features after the projection [token, n_components]."""
        return (features(audio, self.config) - self.mean) @ self.projection

    def encode(self, audio: Tensor) -> Tensor:
        """audio [samples] in [-1, 1] at `sampling_rate` -> tokens [samples // hop], int64."""
        return torch.cdist(self.project(audio)[None], self.centres[None])[0].argmin(-1)

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer to `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        parts = {"projection": self.projection, "mean": self.mean, "centres": self.centres}
        save_file({name: part.numpy() for name, part in parts.items()}, folder / _WEIGHTS)
        (folder / _CONFIG).write_text(json.dumps(asdict(self.config), indent=2))

    @classmethod
    def load(cls, folder: str | Path) -> SemanticTokenizer:
        """Reads what `save` wrote."""
        parts = load_file(Path(folder) / _WEIGHTS)
        config = SemanticTokenizerConfig(**json.loads((Path(folder) / _CONFIG).read_text()))
        return cls(config, parts["projection"], parts["mean"], parts["centres"])


def log_mel(audio: Tensor, config: SemanticTokenizerConfig) -> Tensor:
    """audio [samples] -> natural log of the mel power [frame, n_mels]; frame i is centred on sample i * frame_hop."""
    window = torch.hann_window(config.n_fft)
    spectrum = torch.stft(
        audio, config.n_fft, config.frame_hop, window=window, pad_mode="constant", return_complex=True
    )
    mel = torch.from_numpy(librosa.filters.mel(sr=config.sampling_rate, n_fft=config.n_fft, n_mels=config.n_mels))
    return (mel @ spectrum.abs().square()).clamp_min(1e-5).log().T


def features(audio: Tensor, config: SemanticTokenizerConfig) -> Tensor:
    """audio [samples] -> [samples // hop, (2 * context + 1) * n_mels]: the mel frames around the middle of each token."""
    n_tokens, stride = len(audio) // config.hop, config.hop // config.frame_hop
    mel = log_mel(audio, config)
    padded = torch.nn.functional.pad(mel.T, (config.context, config.context), mode="replicate").T
    middle = torch.arange(n_tokens) * stride + stride // 2
    around = middle[:, None] + torch.arange(2 * config.context + 1)
    return padded[around.clamp_max(len(padded) - 1)].flatten(1)


def phoneme_classes(
    phonemes: str,
    frames: Sequence[int],
    n_tokens: int,
    token_seconds: float,
    frame_seconds: float,
    index: dict[str, int],
) -> list[int]:
    """The class of each token: the phoneme at its middle, first and second half apart; -1 outside the phonemes.

    Args:
        frames: teacher frames of the leading pad, each phoneme and the trailing pad.
        index: classes met so far, grown here.
    """
    ends = np.cumsum(frames) * frame_seconds
    classes = []
    for token in range(n_tokens):
        middle = (token + 0.5) * token_seconds
        place = int(np.searchsorted(ends, middle, side="right"))
        if not 1 <= place <= len(phonemes):
            classes.append(-1)
            continue
        half = "first" if middle < (ends[place - 1] + ends[place]) / 2 else "second"
        symbol = phonemes[place - 1]
        if symbol in _STRESS:
            symbol = phonemes[min(place, len(phonemes) - 1)]
        name = symbol + half if symbol.isalpha() else "silence"
        classes.append(index.setdefault(name, len(index)))
    return classes
