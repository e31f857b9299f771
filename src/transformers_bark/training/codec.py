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

from .data import as_float


def spectral_loss(sampling_rate: int) -> nn.Module:
    """Distance of the log-mel spectrograms of two sounds [batch, 1, samples], over three resolutions."""
    return auraloss.freq.MultiResolutionSTFTLoss(
        fft_sizes=[2048, 1024, 512],
        hop_sizes=[480, 240, 120],
        win_lengths=[1920, 960, 480],
        scale="mel",
        n_bins=80,
        sample_rate=sampling_rate,
        w_sc=0.0,
        eps=1e-6,
    )


class CodecForTraining(nn.Module):
    """EnCodec with a trainable residual quantizer; `forward` gives the loss that `transformers.Trainer` minimizes."""

    def __init__(
        self,
        config: EncodecConfig,
        commitment_weight: float = 0.25,
        waveform_weight: float = 3.0,
        warmup_steps: int = 200,
        n_pooled: int = 8192,
    ) -> None:
        """The first `warmup_steps` pass the latents on unquantized; the last `n_pooled` of them start the codebooks.

        The warm-up lasts until `n_pooled` latents were seen, also by a run that was stopped and goes on.
        """
        super().__init__()
        self.codec = EncodecModel(config)
        self.warmup_steps = warmup_steps
        self.n_pooled = n_pooled
        self.pool: list[Tensor] = []
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
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
        self.spectral_loss = spectral_loss(config.sampling_rate)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """audio: [batch, samples], a whole number of frames -> {"loss": scalar}."""
        latent = self.codec.encoder(audio[:, None])
        quantized, commitment = self._quantize(latent.transpose(1, 2))
        decoded = self.codec.decoder(quantized.transpose(1, 2))[..., : audio.shape[-1]]
        spectral = self.spectral_loss(decoded, audio[:, None])
        waveform = nn.functional.l1_loss(decoded, audio[:, None])
        loss = spectral + self.waveform_weight * waveform + self.commitment_weight * commitment.sum()
        return {"loss": loss, "spectral": spectral.detach(), "waveform": waveform.detach()}

    def _quantize(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """latent [batch, frame, hidden] -> what the decoder sees, and the commitment loss of each codebook."""
        if self.training:
            self.step += 1
            self._warm_up(latent)
        if not self._started():
            return latent, latent.new_zeros(1)
        quantized, _, commitment = self.quantizer(latent)
        return quantized, commitment

    def _warm_up(self, latent: Tensor) -> None:
        """Collects latents, and fits all codebooks to them when the warm-up is over."""
        if self._started():
            return
        if self.step <= self.warmup_steps or sum(map(len, self.pool)) < self.n_pooled:
            self.pool.append(latent.detach().flatten(0, 1))
            while sum(map(len, self.pool[1:])) >= self.n_pooled:
                self.pool.pop(0)
            return
        # dropout would leave the last codebooks to be fitted to some later batch alone
        self.quantizer.quantize_dropout = False
        with torch.no_grad():
            self.quantizer(torch.cat(self.pool)[None])
        self.quantizer.quantize_dropout = True
        self.pool = []

    def _started(self) -> bool:
        """Whether the codebooks have been fitted to latents."""
        return bool(self.quantizer.layers[0]._codebook.initted)

    def export(self) -> EncodecModel:
        """The EnCodec with the trained codebooks in its own quantizer.

        Raises:
            ValueError: the training ended before its warm-up, so that there are no codebooks.
        """
        if not self._started():
            raise ValueError(f"no codebooks after {int(self.step)} steps: the warm-up takes {self.warmup_steps}")
        for source, target in zip(self.quantizer.layers, self.codec.quantizer.layers, strict=True):
            embed = source._codebook.embed.reshape(target.codebook.embed.shape)
            target.codebook.embed.data.copy_(embed)
            target.codebook.embed_avg.data.copy_(embed)
            target.codebook.inited.data.fill_(1)
            target.codebook.cluster_size.data.fill_(1)
        return self.codec.eval()


@torch.no_grad()
def scale_to_unit_variance(codec: EncodecModel, audio: Tensor, output_std: float = 0.05) -> None:
    """Scales every convolution so that its output on `audio` [batch, samples] has variance one, and the last so that the
    decoder starts at about the level of speech.

    The default weights shrink the signal a thousandfold on the way to the latents; the decoder then learns to ignore them
    (layer-sequential unit variance, Mishkin and Matas 2016).
    """

    def rescale(module: Any, _: Any, output: Tensor) -> Tensor:
        deviation = output.std()
        module.parametrizations.weight.original0.div_(deviation)
        return output / deviation

    kinds = (nn.Conv1d, nn.ConvTranspose1d)
    convolutions: list[Any] = [
        m for part in (codec.encoder, codec.decoder) for m in part.modules() if isinstance(m, kinds)
    ]
    for convolution in convolutions:
        convolution.bias.zero_()
    handles = [convolution.register_forward_hook(rescale) for convolution in convolutions]
    codec.decoder(codec.encoder(audio[:, None]))
    for handle in handles:
        handle.remove()
    convolutions[-1].parametrizations.weight.original0.mul_(output_std)


@torch.no_grad()
def make_louder(codec: EncodecModel, gain: float) -> None:
    """Makes a codec of audio of `gain` times the amplitude, with the same codes: its first and last convolutions are linear."""
    first, last = codec.encoder.layers[0].conv, codec.decoder.layers[-1].conv
    first.parametrizations.weight.original0.div_(gain)
    last.parametrizations.weight.original0.mul_(gain)
    last.bias.mul_(gain)


class RandomCrops:
    """Collator: one random crop of `samples` from each row's `audio` (int16), as float32 in [-1, 1]."""

    def __init__(self, samples: int, seed: int) -> None:
        self.samples = samples
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        crops = np.zeros((len(rows), self.samples), np.float32)
        for crop, row in zip(crops, rows, strict=True):
            audio = np.asarray(row["audio"], np.int16)
            start = self.random.integers(0, max(0, len(audio) - self.samples) + 1)
            piece = audio[start : start + self.samples]
            crop[: len(piece)] = as_float(piece)
        return {"audio": torch.from_numpy(crops)}
