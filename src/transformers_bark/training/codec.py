"""Training of a small EnCodec: the codec that turns 24 kHz audio into codes and back.

The encoder and decoder are those of `transformers.EncodecModel`. Its quantizer has no training code, so training uses
the residual quantizer of `vector-quantize-pytorch` (k-means start, moving averages, replaced dead codes), and the
finished codebooks are copied over: both choose the nearest code by Euclidean distance.
"""

from __future__ import annotations

import math
from typing import Any

import auraloss
import numpy as np
import torch
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel
from vector_quantize_pytorch import ResidualVQ

from .data import as_float


class SoundLoss(nn.Module):
    """What tells a decoded sound from the recorded one, both [batch, 1, samples].

    - `spectral`: log-mel spectrograms over three resolutions, in which words are told apart;
    - `harmonic`: magnitudes under 4 kHz over windows of 50 and 100 ms, in which harmonics are;
    - `low_band`: the error's energy under 500 Hz, in dB of the sound's own. The fundamental lies there: a codec has pitch only if
      it carries its phase, and no magnitude asks for that.
    """

    def __init__(self, sampling_rate: int) -> None:
        super().__init__()
        self.sampling_rate = sampling_rate
        self.mel = auraloss.freq.MultiResolutionSTFTLoss(
            fft_sizes=[2048, 1024, 512],
            hop_sizes=[480, 240, 120],
            win_lengths=[1920, 960, 480],
            scale="mel",
            n_bins=80,
            sample_rate=sampling_rate,
            w_sc=0.0,
            eps=1e-6,
        )

    def forward(self, decoded: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """The three, each a scalar."""
        return {
            "spectral": self.mel(decoded, audio),
            "harmonic": (self._harmonic(decoded, audio, 0.05) + self._harmonic(decoded, audio, 0.1)) / 2,
            "low_band": self._low_band(decoded, audio),
        }

    def _harmonic(self, decoded: Tensor, audio: Tensor, seconds: float) -> Tensor:
        """Mean difference of compressed magnitudes, relative to those of the sound."""
        width = round(seconds * self.sampling_rate)
        size = 1 << width.bit_length()  # bins finer than the window asks for
        window = torch.hann_window(width, device=audio.device)

        def magnitudes(sound: Tensor) -> Tensor:
            bins = torch.stft(sound[:, 0], size, width // 5, width, window, return_complex=True)
            bins = bins[:, : round(4000 * size / self.sampling_rate)]
            return (bins.real.square() + bins.imag.square() + 1e-6) ** 0.25

        expected = magnitudes(audio)
        return (magnitudes(decoded) - expected).abs().mean() / expected.mean()

    def _low_band(self, decoded: Tensor, audio: Tensor) -> Tensor:
        """Mean over the batch, in dB; silence and errors beyond -30 dB count for little."""
        n_bins = round(500 * audio.shape[-1] / self.sampling_rate)

        def energy(sound: Tensor) -> Tensor:
            """Mean square of each row's part under 500 Hz."""
            bins = torch.fft.rfft(sound[:, 0])[:, :n_bins] / sound.shape[-1]
            return 2 * (bins.real.square() + bins.imag.square()).sum(-1)

        return 10 * (energy(decoded - audio) / (energy(audio) + 4e-7) + 1e-3).log10().mean()


class CodecForTraining(nn.Module):
    """EnCodec with a trainable residual quantizer; `forward` gives the loss that `transformers.Trainer` minimizes."""

    def __init__(
        self,
        config: EncodecConfig,
        commitment_weight: float = 0.25,
        low_band_weight: float = 0.25,
        warmup_steps: int = 2500,
        n_pooled: int = 8192,
    ) -> None:
        """The first `warmup_steps` pass the latents on unquantized; the last `n_pooled` of them start the codebooks.

        The waveform under 500 Hz comes first: its weight, for a dB, is the greatest during the warm-up and falls with the square of
        the steps after it, while the other losses set in. A codec that begins with magnitudes never finds the phase.

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
        self.low_band_weight = low_band_weight
        self.sound_loss = SoundLoss(config.sampling_rate)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """audio: [batch, samples], a whole number of frames -> {"loss": scalar, and its parts}."""
        latent = self.codec.encoder(audio[:, None])
        quantized, commitment = self._quantize(latent.transpose(1, 2))
        decoded = self.codec.decoder(quantized.transpose(1, 2))[..., : audio.shape[-1]]
        parts = self.sound_loss(decoded, audio[:, None])
        past = int(self.step) / max(1, self.warmup_steps)
        loss = self.low_band_weight / max(1.0, past) ** 2 * parts["low_band"]
        if past <= 1:
            loss = loss + 0.3 * past * parts["spectral"]
        else:
            loss = loss + parts["spectral"] + 0.5 * parts["harmonic"] + self.commitment_weight * commitment.sum()
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

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
            set_codebook(target, source._codebook.embed[0])
        return self.codec.eval()


@torch.no_grad()
def set_codebook(layer: Any, entries: Tensor) -> None:
    """Puts `entries` [code, component] into a layer of EnCodec's quantizer."""
    book = layer.codebook
    book.embed.data.copy_(entries)
    book.embed_avg.data.copy_(entries)
    book.inited.data.fill_(1)
    book.cluster_size.data.fill_(1)


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


def keep_codebooks(codec: EncodecModel, n_codebooks: int) -> None:
    """Leaves the first `n_codebooks`, and says in the config what they take."""
    config = codec.config
    bits = config.frame_rate * math.ceil(math.log2(config.codebook_size))
    config.target_bandwidths = [n_codebooks * bits / 1000]
    codec.quantizer.layers = codec.quantizer.layers[:n_codebooks]
    codec.quantizer.num_quantizers = n_codebooks


@torch.no_grad()
def make_louder(codec: EncodecModel, gain: float) -> None:
    """Makes a codec of audio of `gain` times the amplitude, with the same codes: its first and last convolutions are linear."""
    first, last = codec.encoder.layers[0].conv, codec.decoder.layers[-1].conv
    first.parametrizations.weight.original0.div_(gain)
    last.parametrizations.weight.original0.mul_(gain)
    last.bias.mul_(gain)


@torch.no_grad()
def trust_less(codec: EncodecModel, first: int, share: float) -> None:
    """Lets the codebooks from `first` on count for `share` of what they say.

    They were trained to say what the encoder heard. The fine model foretells little of it, and a guess that is mostly wrong does
    least harm where it counts for the share that is right (shrinkage).
    """
    for layer in codec.quantizer.layers[first:]:
        layer.codebook.embed.mul_(share)
        layer.codebook.embed_avg.mul_(share)


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
