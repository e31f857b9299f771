"""Training of a small EnCodec: the codec that turns 24 kHz audio into codes and back.

The encoder and decoder are those of `transformers.EncodecModel`. Its quantizer has no training code, so training uses
the residual quantizer of `vector-quantize-pytorch` (k-means start, moving averages, replaced dead codes), and the
finished codebooks are copied over: both choose the nearest code by Euclidean distance.
"""

from __future__ import annotations

from typing import Any

import auraloss
import numpy as np
import torch
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel
from vector_quantize_pytorch import ResidualVQ


class CodecForTraining(nn.Module):
    """EnCodec with a trainable residual quantizer; `forward` gives the loss that `transformers.Trainer` minimizes."""

    def __init__(self, config: EncodecConfig, commitment_weight: float = 0.25, waveform_weight: float = 0.1) -> None:
        super().__init__()
        self.codec = EncodecModel(config)
        n_codebooks = self.codec.quantizer.num_quantizers
        self.quantizer = ResidualVQ(
            dim=config.hidden_size,
            codebook_size=config.codebook_size,
            num_quantizers=n_codebooks,
            kmeans_init=True,
            kmeans_iters=10,
            decay=0.99,
            threshold_ema_dead_code=0.05,
            quantize_dropout=True,
            quantize_dropout_cutoff_index=1,
        )
        self.commitment_weight = commitment_weight
        self.waveform_weight = waveform_weight
        self.spectral_loss = auraloss.freq.MultiResolutionSTFTLoss(
            fft_sizes=[2048, 1024, 512],
            hop_sizes=[480, 240, 120],
            win_lengths=[1920, 960, 480],
            scale="mel",
            n_bins=80,
            sample_rate=config.sampling_rate,
        )

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """audio: [batch, samples], a whole number of frames -> {"loss": scalar}."""
        latent = self.codec.encoder(audio[:, None])
        quantized, _, commitment = self.quantizer(latent.transpose(1, 2))
        decoded = self.codec.decoder(quantized.transpose(1, 2))[..., : audio.shape[-1]]
        spectral = self.spectral_loss(decoded, audio[:, None])
        waveform = nn.functional.l1_loss(decoded, audio[:, None])
        loss = spectral + self.waveform_weight * waveform + self.commitment_weight * commitment.sum()
        return {"loss": loss, "spectral": spectral.detach(), "waveform": waveform.detach()}

    def export(self) -> EncodecModel:
        """The EnCodec with the trained codebooks in its own quantizer."""
        for source, target in zip(self.quantizer.layers, self.codec.quantizer.layers, strict=True):
            embed = source._codebook.embed.reshape(target.codebook.embed.shape)
            target.codebook.embed.data.copy_(embed)
            target.codebook.embed_avg.data.copy_(embed)
            target.codebook.inited.data.fill_(1)
            target.codebook.cluster_size.data.fill_(1)
        return self.codec.eval()


class RandomCrops:
    """Collator: one random crop of `samples` from each row's `audio` (int16), as float32 in [-1, 1]."""

    def __init__(self, samples: int, seed: int) -> None:
        self.samples = samples
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        crops = np.zeros((len(rows), self.samples), np.float32)
        for crop, row in zip(crops, rows, strict=True):
            audio = np.asarray(row["audio"], np.int16)
            start = self.random.integers(0, max(1, len(audio) - self.samples))
            piece = audio[start : start + self.samples]
            crop[: len(piece)] = piece / np.float32(32768.0)
        return {"audio": torch.from_numpy(crops)}
