"""Semantic tokens: speech features, narrowed so that phonemes come apart, and grouped by k-means.

Bark's own semantic encoder was never released; this one serves models trained from scratch. The features are log-mel
frames with their neighbours. A small network, trained once to tell the teacher's phonemes by way of a narrow layer, keeps in
that layer what they differ in and little of who speaks; encoding needs audio only.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from safetensors.torch import load_file, save
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from .. import output_files
from .data import as_float

_WEIGHTS = "semantic_tokenizer.safetensors"
_CONFIG = "semantic_tokenizer.json"
_STRESS = "ˈˌ"
"""Marks that take time of their own in the teacher's alphabet but sound like the phoneme after them."""

NO_PHONEME = -100
"""Class of a token outside the phonemes, which no loss counts."""


@dataclass(frozen=True)
class SemanticTokenizerConfig:
    """Sizes of the tokenizer. `hop` is the samples of a token, `frame_hop` those of a mel frame (it divides `hop`).

    A token is heard with `context` frames on each side, of which every `stride`-th is looked at. Mel power below `floor`
    counts as silence.
    """

    sampling_rate: int = 24_000
    hop: int = 960
    frame_hop: int = 240
    n_fft: int = 1024
    n_mels: int = 40
    context: int = 12
    stride: int = 2
    hidden_size: int = 192
    n_components: int = 48
    n_tokens: int = 512
    floor: float = 1e-5
    seed: int = 1

    @property
    def rate_hz(self) -> float:
        """Tokens per second."""
        return self.sampling_rate / self.hop

    @property
    def n_features(self) -> int:
        """Numbers that describe the sound of a token."""
        return self.n_mels * len(range(0, 2 * self.context + 1, self.stride))


class Bottleneck(nn.Module):
    """Features of a token -> the few numbers that its phoneme can be told from."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: SemanticTokenizerConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(config.n_features))
        self.register_buffer("deviation", torch.ones(config.n_features))
        self.layers = nn.Sequential(
            nn.Linear(config.n_features, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.n_components),
            nn.LayerNorm(config.n_components, elementwise_affine=False),
        )

    def standardize(self, data: Tensor) -> None:
        """Takes mean and deviation from features [token, n_features]."""
        self.mean.copy_(data.mean(0))
        self.deviation.copy_(data.std(0).clamp_min(1e-3))

    def forward(self, data: Tensor) -> Tensor:
        """[..., n_features] -> [..., n_components]."""
        return self.layers((data - self.mean) / self.deviation)

    def stages(self, data: Tensor) -> list[Tensor]:
        """[..., n_features] -> what each layer of the network says after its nonlinearity; the last is `forward`'s."""
        data = (data - self.mean) / self.deviation
        out = []
        for layer in self.layers:
            data = layer(data)
            if not isinstance(layer, nn.Linear):
                out.append(data)
        return out


class WordLoss(nn.Module):
    """How far what is said is from what was said, to the network that tells phonemes.

    Spectra weigh what has energy. A word is told by less: this looks at what the phoneme classifier's layers make of both sounds.
    """

    def __init__(self, config: SemanticTokenizerConfig, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.config = config
        self.bottleneck = copy.deepcopy(bottleneck).requires_grad_(False)

    def forward(self, decoded: Tensor, audio: Tensor) -> Tensor:
        """Both [batch, samples], whole tokens -> scalar: the layers' mean difference, relative to how much they vary."""
        with torch.no_grad():
            expected = self.bottleneck.stages(features(audio, self.config))
        said = self.bottleneck.stages(features(decoded, self.config))
        parts = [
            (one - other).abs().mean() / (other - other.mean((0, 1))).abs().mean().clamp_min(1e-3)
            for one, other in zip(said, expected, strict=True)
        ]
        return torch.stack(parts).mean()


class PhonemeClassifier(nn.Module):
    """What the bottleneck is trained with: the phoneme class of every token."""

    def __init__(self, config: SemanticTokenizerConfig, n_classes: int) -> None:
        super().__init__()
        self.bottleneck = Bottleneck(config)
        self.head = nn.Linear(config.n_components, n_classes)

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """features: [token, n_features]; labels: [token], `NO_PHONEME` for none -> {"loss": scalar}."""
        logits = self.head(self.bottleneck(features))
        return {"loss": nn.functional.cross_entropy(logits, labels, ignore_index=NO_PHONEME)}


class PhonemeTargets:
    """Collator: rows with `audio` (int16) and `classes` -> inputs of `PhonemeClassifier`."""

    def __init__(self, config: SemanticTokenizerConfig) -> None:
        self.config = config

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        parts = [features(torch.from_numpy(as_float(row["audio"])), self.config) for row in rows]
        labels = [torch.as_tensor(np.asarray(row["classes"]), dtype=torch.int64) for row in rows]
        sizes = [min(len(part), len(label)) for part, label in zip(parts, labels, strict=True)]
        return {
            "features": torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]),
            "labels": torch.cat([label[:size] for label, size in zip(labels, sizes, strict=True)]),
        }


class SemanticTokenizer:
    """Audio -> semantic tokens. Make one with `fit` or `load`.

    Its numbers are rounded to 16 bits when it is made, so that the tokens of a loaded one are the same.
    """

    def __init__(self, config: SemanticTokenizerConfig, bottleneck: Bottleneck, centres: Tensor) -> None:
        self.config = config
        self.bottleneck = bottleneck.half().float().eval()
        self.centres = centres.half().float()

    @classmethod
    @torch.no_grad()
    def fit(
        cls, config: SemanticTokenizerConfig, bottleneck: Bottleneck, audios: Iterable[Tensor]
    ) -> SemanticTokenizer:
        """Groups what the trained `bottleneck` gives for `audios`, each [samples] in [-1, 1]."""
        bottleneck = bottleneck.half().float().eval()
        data = torch.cat([bottleneck(features(audio, config)) for audio in audios])
        clusters = MiniBatchKMeans(
            config.n_tokens, batch_size=16_384, n_init=3, max_iter=60, random_state=config.seed
        ).fit(data.numpy())
        return cls(config, bottleneck, torch.from_numpy(clusters.cluster_centers_).float())

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """audio [samples] in [-1, 1] at `sampling_rate` -> tokens [samples // hop], int64."""
        return torch.cdist(self.bottleneck(features(audio, self.config))[None], self.centres[None])[0].argmin(-1)

    def louder(self, gain: float) -> SemanticTokenizer:
        """The same tokens for audio of `gain` times the amplitude: log-mel features move by a constant, and the floor with them."""
        bottleneck = copy.deepcopy(self.bottleneck)
        bottleneck.mean += 2 * math.log(gain)
        return SemanticTokenizer(replace(self.config, floor=self.config.floor * gain**2), bottleneck, self.centres)

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer to `folder`."""
        folder = Path(folder)
        parts = {**self.bottleneck.state_dict(), "centres": self.centres}
        content = save({name: part.half().contiguous() for name, part in parts.items()})
        output_files.write_bytes(folder / _WEIGHTS, content, make_folder=True)
        output_files.write_json(folder / _CONFIG, asdict(self.config))

    @classmethod
    def load(cls, folder: str | Path) -> SemanticTokenizer:
        """Reads what `save` wrote."""
        parts = load_file(Path(folder) / _WEIGHTS)
        config = SemanticTokenizerConfig(**json.loads((Path(folder) / _CONFIG).read_text()))
        bottleneck, centres = Bottleneck(config), parts.pop("centres")
        bottleneck.load_state_dict(parts)
        return cls(config, bottleneck, centres)


def log_mel(audio: Tensor, config: SemanticTokenizerConfig) -> Tensor:
    """audio [..., samples] -> natural log of the mel power [..., frame, n_mels]; frame i is centred on sample i * frame_hop."""
    window = torch.hann_window(config.n_fft)
    spectrum = torch.stft(
        audio, config.n_fft, config.frame_hop, window=window, pad_mode="constant", return_complex=True
    )
    mel = mel_filters(config.sampling_rate, config.n_fft, config.n_mels)
    return (mel @ spectrum.abs().square()).clamp_min(config.floor).log().mT


@functools.cache
def mel_filters(sampling_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Mel filters [mel, bin]; made once, as making them takes longer than using them."""
    return torch.from_numpy(librosa.filters.mel(sr=sampling_rate, n_fft=n_fft, n_mels=n_mels))


def features(audio: Tensor, config: SemanticTokenizerConfig) -> Tensor:
    """audio [..., samples] -> [..., samples // hop, n_features]: the mel frames around the middle of each token."""
    n_tokens, stride = audio.shape[-1] // config.hop, config.hop // config.frame_hop
    mel = log_mel(audio, config)
    padded = torch.nn.functional.pad(mel.mT, (config.context, config.context), mode="replicate").mT
    middle = torch.arange(n_tokens) * stride + stride // 2
    around = middle[:, None] + torch.arange(0, 2 * config.context + 1, config.stride)
    return padded[..., around.clamp_max(padded.shape[-2] - 1), :].flatten(-2)


def phoneme_classes(
    phonemes: str,
    frames: Sequence[int],
    n_tokens: int,
    token_seconds: float,
    frame_seconds: float,
    index: dict[str, int],
) -> list[int]:
    """The class of each token: the phoneme at its middle, first and second half apart; `NO_PHONEME` outside.

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
            classes.append(NO_PHONEME)
            continue
        half = "first" if middle < (ends[place - 1] + ends[place]) / 2 else "second"
        symbol = phonemes[place - 1]
        if symbol in _STRESS:
            symbol = phonemes[min(place, len(phonemes) - 1)]
        name = symbol + half if symbol.isalpha() else "silence"
        classes.append(index.setdefault(name, len(index)))
    return classes
