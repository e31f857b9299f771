"""Codebooks that keep the words: the first says the semantic token, the others what the token leaves open.

A codec that is trained to sound like the recording spends its bits on what has energy: from the latents of such a codec, before
anything is quantized, a network tells fewer phonemes than from the semantic tokens alone. Here the latent is split. Its first
numbers are those that the semantic tokenizer clusters, and the first codebook holds its clusters; the rest is learned, so that
both together tell the spectrum and the waveform under 600 Hz. The codec's first layers stay as they are.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from transformers import EncodecModel
from vector_quantize_pytorch import VectorQuantize

from .. import codec as codec_contract
from .data import as_float
from .semantic_tokenizer import mel_filters

_LOW_BAND_RATE = 1200
"""Samples per second of the waveform under 600 Hz."""


class FrameSound:
    """What each frame of a codec should sound like: log-mel spectra, and the waveform under 600 Hz."""

    def __init__(self, sampling_rate: int, frame_samples: int, n_mels: int = 80, n_spectra: int = 3) -> None:
        self.hop = frame_samples // n_spectra
        self.n_spectra = n_spectra
        self.n_low = frame_samples * _LOW_BAND_RATE // sampling_rate
        self.width = frame_samples
        self.size = 1 << self.width.bit_length()
        self.filters = mel_filters(sampling_rate, self.size, n_mels)
        self.n_mels = n_mels

    def spectra(self, audio: Tensor) -> Tensor:
        """audio [batch, samples], whole frames -> [batch, frame, n_spectra * n_mels], log amplitudes, each spectrum in its frame."""
        room = self.size // 2 - self.hop // 2
        padded = nn.functional.pad(audio, (room, room))
        window = torch.hann_window(self.width)
        bins = torch.stft(padded, self.size, self.hop, self.width, window, center=False, return_complex=True)
        power = torch.einsum("mf,bft->btm", self.filters, bins.real.square() + bins.imag.square())
        return (0.5 * (power + 1e-6).log()).unflatten(1, (-1, self.n_spectra)).flatten(2)

    def low_band(self, audio: Tensor) -> Tensor:
        """audio [batch, samples], whole frames -> [batch, frame, n_low], the waveform under 600 Hz."""
        n_frames = audio.shape[-1] // self.width
        n_samples = n_frames * self.n_low
        bins = torch.fft.rfft(audio)[:, : n_samples // 2 + 1].clone()
        bins[:, -1] = 0
        return torch.fft.irfft(bins * (n_samples / audio.shape[-1]), n_samples).unflatten(1, (n_frames, self.n_low))


class CodebooksForTraining(nn.Module):
    """A trained codec whose upper encoder, first decoder layers and codebooks are learned anew.

    Args:
        codec: its encoder's first `n_kept` layers and its decoder's last layers stay as they are. What its decoder's first layers
            said is one of the things to tell, so that the last layers still understand.
        centres: clusters of the semantic tokens, [token, component]; as many as a codebook has entries.
        warmup_steps: steps in which the acoustic part of the latent is not quantized.
        p_quantized: share of the crops that are quantized after that; the others keep the latent worth more than one codebook.
    """

    def __init__(
        self,
        codec: EncodecModel,
        centres: Tensor,
        n_kept: int = 4,
        warmup_steps: int = 300,
        p_quantized: float = 0.8,
        n_pooled: int = 12_288,
    ) -> None:
        super().__init__()
        config = codec.config
        if len(centres) != config.codebook_size or centres.shape[1] >= config.hidden_size:
            raise ValueError(
                f"{tuple(centres.shape)} centres: a codebook has {config.codebook_size} entries, and a latent "
                f"{config.hidden_size} numbers, of which the acoustic part needs some"
            )
        self.codec = codec
        self.before = copy.deepcopy(codec).requires_grad_(False).eval()
        self.codec.requires_grad_(False)
        for layer in [*codec.encoder.layers[n_kept:], *codec.decoder.layers[:2]]:
            layer.requires_grad_(True)
        for layer in (codec.encoder.layers[-1], codec.decoder.layers[0]):
            _start_anew(layer)
        self.n_kept = n_kept
        self.centres: Tensor
        self.register_buffer("centres", centres.clone())
        self.n_phonetic = centres.shape[1]
        n_acoustic = config.hidden_size - self.n_phonetic
        self.quantizer = VectorQuantize(
            dim=n_acoustic,
            codebook_size=config.codebook_size,
            kmeans_init=True,
            decay=0.99,
            threshold_ema_dead_code=0.05,
        )
        self.warmup_steps, self.p_quantized, self.n_pooled = warmup_steps, p_quantized, n_pooled
        self.pool: list[Tensor] = []
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.sound = FrameSound(config.sampling_rate, codec_contract.samples_per_frame(config))
        width = codec.decoder.layers[0].conv.out_channels
        n_out = self.sound.n_mels * self.sound.n_spectra + self.sound.n_low
        self.head = nn.Sequential(nn.ELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, n_out))

    def forward(self, audio: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """audio: [batch, samples], whole frames; tokens: [batch, frame], semantic -> {"loss": scalar, and its parts}."""
        with torch.no_grad():
            kept = audio[:, None]
            for layer in self.codec.encoder.layers[: self.n_kept]:
                kept = layer(kept)
            told = self._told_before(kept)
        latent = kept
        for layer in self.codec.encoder.layers[self.n_kept :]:
            latent = layer(latent)
        phonetic, acoustic = latent.transpose(1, 2).split([self.n_phonetic, latent.shape[1] - self.n_phonetic], dim=-1)
        acoustic, commitment = self._quantize(acoustic)
        seen = torch.cat([self.centres[tokens], acoustic], dim=-1)
        features = self.codec.decoder.layers[1](self.codec.decoder.layers[0](seen.transpose(1, 2)))
        parts = self._parts(features, audio, told) | self._phonetic_parts(phonetic, tokens)
        loss = (
            parts["spectral"]
            + 0.05 * parts["low_band"]
            + 0.5 * parts["told"]
            + 0.5 * parts["phonetic"]
            + 0.1 * parts["token"]
            + commitment
        )
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}

    @torch.no_grad()
    def _told_before(self, kept: Tensor) -> Tensor:
        """What the decoder's last layers were given before, [batch, channel, frame]."""
        for layer in self.before.encoder.layers[self.n_kept :]:
            kept = layer(kept)
        return self.before.decoder.layers[1](self.before.decoder.layers[0](kept))

    def _parts(self, features: Tensor, audio: Tensor, told: Tensor) -> dict[str, Tensor]:
        """The losses of the frames; those at the start of a crop, which have no past, count as the others do."""
        out = self.head(features.transpose(1, 2))
        spectra, low = out.split([out.shape[-1] - self.sound.n_low, self.sound.n_low], dim=-1)
        expected = self.sound.low_band(audio)
        error = (low * 0.05 - expected).square().mean((1, 2))
        return {
            "spectral": (spectra - self.sound.spectra(audio)).abs().mean(),
            "low_band": 10 * (error / (expected.square().mean((1, 2)) + 4e-7) + 1e-3).log10().mean(),
            "told": (features - told).square().mean() / told.var(),
        }

    def _phonetic_parts(self, phonetic: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        """How far the encoder's first numbers are from their cluster, and how clearly it is the nearest."""
        centres = self.centres
        logits = phonetic @ centres.T - 0.5 * centres.square().sum(-1)
        return {
            "phonetic": (phonetic - centres[tokens]).square().mean(),
            "token": nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten()),
        }

    def _quantize(self, acoustic: Tensor) -> tuple[Tensor, Tensor]:
        """acoustic [batch, frame, hidden] -> what the decoder sees, and the commitment loss."""
        if self.training:
            self.step += 1
            self._warm_up(acoustic)
        if not self._started():
            return acoustic, acoustic.new_zeros(())
        quantized, _, commitment = self.quantizer(acoustic)
        if self.training:
            chosen = torch.rand(len(acoustic), 1, 1) < self.p_quantized
            quantized = torch.where(chosen, quantized, acoustic)
        return quantized, 0.25 * commitment.sum()

    def _started(self) -> bool:
        return bool(self.quantizer._codebook.initted)

    def _warm_up(self, acoustic: Tensor) -> None:
        """Collects latents, and fits the codebook to them when the warm-up is over."""
        if self._started():
            return
        if self.step <= self.warmup_steps or sum(map(len, self.pool)) < self.n_pooled:
            self.pool.append(acoustic.detach().flatten(0, 1))
            while sum(map(len, self.pool[1:])) >= self.n_pooled:
                self.pool.pop(0)
            return
        with torch.no_grad():
            self.quantizer(torch.cat(self.pool)[None])
        self.pool = []

    @torch.no_grad()
    def export(self, audios: list[Tensor], seed: int = 1) -> EncodecModel:
        """The codec with its codebooks; those after the second are fitted to what it leaves open of `audios`, each [samples]."""
        if not self._started():
            raise ValueError(f"no codebook after {int(self.step)} steps: the warm-up takes {self.warmup_steps}")
        self.codec.eval()
        latents = torch.cat([self.codec.encoder(audio[None, None])[0].T for audio in audios])
        acoustic = latents[:, self.n_phonetic :]
        books = [self.quantizer._codebook.embed.reshape(len(self.centres), -1)]
        rest = acoustic
        while True:
            rest = rest - books[-1][torch.cdist(rest, books[-1]).argmin(-1)]
            if len(books) == self.codec.quantizer.num_quantizers - 1:
                break
            fitted = MiniBatchKMeans(len(self.centres), batch_size=8192, n_init=1, max_iter=20, random_state=seed)
            books.append(torch.from_numpy(fitted.fit(rest.numpy()).cluster_centers_).float())
        _set_codebook(self.codec.quantizer.layers[0], nn.functional.pad(self.centres, (0, acoustic.shape[1])))
        for layer, book in zip(self.codec.quantizer.layers[1:], books, strict=True):
            _set_codebook(layer, nn.functional.pad(book, (self.n_phonetic, 0)))
        return self.codec


def _start_anew(layer: Any) -> None:
    """Draws the weights of a convolution with weight norm anew."""
    fresh = nn.Conv1d(layer.conv.in_channels, layer.conv.out_channels, layer.conv.kernel_size[0])
    with torch.no_grad():
        parts = layer.conv.parametrizations.weight
        parts.original0.copy_(fresh.weight.norm(dim=(1, 2), keepdim=True))
        parts.original1.copy_(fresh.weight)
        layer.conv.bias.copy_(fresh.bias)


def _set_codebook(layer: Any, entries: Tensor) -> None:
    book = layer.codebook
    book.embed.data.copy_(entries)
    book.embed_avg.data.copy_(entries)
    book.inited.data.fill_(1)
    book.cluster_size.data.fill_(1)


class TokenCrops:
    """Collator: one random crop of `n_frames` from each row's `audio` (int16) and its `tokens`, one a frame."""

    def __init__(self, n_frames: int, frame_samples: int, seed: int) -> None:
        self.n_frames = n_frames
        self.frame_samples = frame_samples
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        audio, tokens = [], []
        for row in rows:
            there = np.asarray(row["tokens"])
            start = int(self.random.integers(len(there) - self.n_frames + 1))
            end = start + self.n_frames
            tokens.append(there[start:end])
            audio.append(np.asarray(row["audio"])[start * self.frame_samples : end * self.frame_samples])
        return {
            "audio": torch.from_numpy(as_float(np.stack(audio))),
            "tokens": torch.from_numpy(np.stack(tokens).astype(np.int64)),
        }
