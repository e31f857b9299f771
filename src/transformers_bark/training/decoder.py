"""Training of the codec's decoder alone, from the finished codes, against a discriminator.

The codec is first trained as a whole for its spectra. That leaves the sound dull and buzzing: an average of the many
waveforms that the codes allow. Here encoder and codebooks stand, and a discriminator tells real from decoded speech, as in
EnCodec (Défossez et al. 2022); it looks at mel spectrograms of several resolutions, which are small enough for a CPU.
"""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import EncodecModel

from .codec import spectral_loss


class MelDiscriminator(nn.Module):
    """Log-mel spectrogram of one resolution -> a score for every region of it, and the maps of the layers below."""

    window: Tensor
    mel: Tensor

    def __init__(self, sampling_rate: int, n_fft: int, n_mels: int, n_filters: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        mel = librosa.filters.mel(sr=sampling_rate, n_fft=n_fft, n_mels=n_mels)
        self.register_buffer("mel", torch.from_numpy(mel), persistent=False)
        sizes = [1, n_filters, n_filters, n_filters, n_filters]
        strides = [(1, 1), (2, 1), (2, 2), (2, 1)]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, (3, 5), stride, padding=(1, 2)))
            for a, b, stride in zip(sizes, sizes[1:], strides, strict=False)
        )
        self.last = nn.utils.parametrizations.weight_norm(nn.Conv2d(n_filters, 1, 3, padding=1))

    def forward(self, audio: Tensor) -> list[Tensor]:
        """audio [batch, samples] -> the maps of the layers, [batch, filter, mel, frame]; the last are the scores."""
        spectrum = torch.stft(audio, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True)
        maps = [(self.mel @ spectrum.abs()).clamp_min(1e-4).log()[:, None]]
        for layer in self.layers:
            maps.append(nn.functional.leaky_relu(layer(maps[-1]), 0.2))
        return [*maps[1:], self.last(maps[-1])]


class DecoderForTraining(nn.Module):
    """The decoder with a spectral, an adversarial and a feature-matching loss.

    One backward pass serves both sides: the discriminators see the decoded audio once without its graph, for their own
    loss, and once with their weights held, for the decoder's.

    Args:
        codec: only its decoder is trained.
        n_context: frames at the start of a crop that only warm the decoder's memory up.
        adversarial_weight: 0 leaves the discriminators out.
    """

    def __init__(
        self,
        codec: EncodecModel,
        n_context: int = 4,
        waveform_weight: float = 3.0,
        adversarial_weight: float = 0.1,
        matching_weight: float = 2.0,
        resolutions: tuple[tuple[int, int], ...] = ((2048, 128), (1024, 96), (512, 64)),
        n_filters: int = 16,
    ) -> None:
        super().__init__()
        self.codec = codec.requires_grad_(False)
        self.codec.decoder.requires_grad_(True)
        self.n_context = n_context
        self.waveform_weight = waveform_weight
        self.adversarial_weight = adversarial_weight
        self.matching_weight = matching_weight
        rate = codec.config.sampling_rate
        self.spectral_loss = spectral_loss(rate)
        self.discriminators = nn.ModuleList(
            MelDiscriminator(rate, n_fft, n_mels, n_filters) for n_fft, n_mels in resolutions
        )

    def forward(self, codes: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """codes: [batch, codebook, frame]; audio: [batch, samples], the frames' own."""
        start = self.n_context * (audio.shape[-1] // codes.shape[-1])
        with torch.no_grad():
            latent = self.codec.quantizer.decode(codes.transpose(0, 1))
        decoded = self.codec.decoder(latent)[..., start : audio.shape[-1]]
        audio = audio[:, None, start:]
        spectral = self.spectral_loss(decoded, audio)
        loss = spectral + self.waveform_weight * nn.functional.l1_loss(decoded, audio)
        if not self.adversarial_weight:
            return {"loss": loss}
        judged = [self._judge(one, decoded[:, 0], audio[:, 0]) for one in self.discriminators]
        told, fooled, matched = (torch.stack(part).mean() for part in zip(*judged, strict=True))
        adversarial = self.adversarial_weight * (fooled + self.matching_weight * matched)
        parts = {"spectral": spectral, "told": told, "fooled": fooled, "matched": matched}
        return {"loss": loss + adversarial + told, **{name: part.detach() for name, part in parts.items()}}

    def _judge(self, discriminator: nn.Module, decoded: Tensor, audio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The discriminator's hinge loss, the decoder's, and the distance of the maps of both sounds."""
        real, fake = discriminator(audio), discriminator(decoded.detach())
        told = (1 - real[-1]).relu().mean() + (1 + fake[-1]).relu().mean()
        held = {name: part.detach() for name, part in discriminator.named_parameters()}
        seen = functional_call(discriminator, held, (decoded,))
        maps = [(a.detach() - b).abs().mean() / a.detach().abs().mean() for a, b in zip(real[:-1], seen, strict=False)]
        return told, -seen[-1].mean(), torch.stack(maps).mean()


class CodedCrops:
    """Collator: one random crop of `n_frames` from each row's `codes` and `audio` (int16), which are that long or longer.

    A third of the batches keep only the first codebooks, as the codes that the model makes are worse than the encoder's.
    """

    def __init__(self, n_frames: int, frame_samples: int, seed: int) -> None:
        self.n_frames = n_frames
        self.frame_samples = frame_samples
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        n_codebooks = len(rows[0]["codes"])
        codes, audio = [], []
        for row in rows:
            start = int(self.random.integers(len(row["codes"][0]) - self.n_frames + 1))
            end = start + self.n_frames
            codes.append(np.asarray(row["codes"])[:, start:end])
            audio.append(np.asarray(row["audio"], np.float32)[start * self.frame_samples : end * self.frame_samples])
        kept = int(self.random.choice([n_codebooks, n_codebooks, max(1, n_codebooks // 2)]))
        return {
            "codes": torch.from_numpy(np.stack(codes)[:, :kept].astype(np.int64)),
            "audio": torch.from_numpy(np.stack(audio) / 32768),
        }
