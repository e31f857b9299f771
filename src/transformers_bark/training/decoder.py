"""Training of the codec's decoder alone, from the finished codes.

The codec is first trained as a whole, on little audio. Encoder and codebooks then stand, and the decoder goes on with codes of
the whole corpus. What is kept is a moving average of its weights, which sounds clearly better than any of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import EncodecModel

from .codec import SoundLoss
from .data import as_float
from .semantic_tokenizer import WordLoss


class HearingLoss(nn.Module):
    """How far decoded audio is from what was encoded: the codec's loss, and that of its words.

    Args:
        low_band_weight: of the waveform under 500 Hz, for a dB.
        words: what tells how far the words are; None leaves them to the spectra.
        word_weight: of that loss.
    """

    def __init__(self, sampling_rate: int, low_band_weight: float, words: WordLoss | None, word_weight: float) -> None:
        super().__init__()
        self.sound, self.low_band_weight = SoundLoss(sampling_rate), low_band_weight
        self.words, self.word_weight = words, word_weight

    def forward(self, decoded: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Both [batch, 1, samples] -> {"loss": scalar, and its parts, detached}."""
        parts = self.sound(decoded, audio)
        loss = parts["spectral"] + 0.25 * parts["harmonic"] + self.low_band_weight * parts["low_band"]
        if self.words is not None:
            parts["words"] = self.words(decoded[:, 0], audio[:, 0])
            loss = loss + self.word_weight * parts["words"]
        return {"loss": loss, **{name: part.detach() for name, part in parts.items()}}


class DecoderForTraining(nn.Module):
    """The decoder with the loss of the codec, and the moving average of its weights.

    Args:
        codec: only its decoder is trained.
        n_context: frames at the start of a crop that only warm the decoder's memory up.
        decay: of the average, a step.
        low_band_weight, words, word_weight: see `HearingLoss`.
    """

    def __init__(
        self,
        codec: EncodecModel,
        n_context: int = 4,
        low_band_weight: float = 0.01,
        decay: float = 0.998,
        words: WordLoss | None = None,
        word_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.codec = codec.requires_grad_(False)
        self.average = AveragedModel(codec.decoder, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.codec.decoder.requires_grad_(True)
        self.n_context = n_context
        self.loss = HearingLoss(codec.config.sampling_rate, low_band_weight, words, word_weight)

    def forward(self, codes: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """codes: [batch, codebook, frame]; audio: [batch, samples], the frames' own -> {"loss": scalar}."""
        if self.training:
            self.average.update_parameters(self.codec.decoder)
        start = self.n_context * (audio.shape[-1] // codes.shape[-1])
        with torch.no_grad():
            latent = self.codec.quantizer.decode(codes.transpose(0, 1))
        decoded = self.codec.decoder(latent)[..., start : audio.shape[-1]]
        return self.loss(decoded, audio[:, None, start:])

    def export(self) -> EncodecModel:
        """The codec with the average of the decoders that there were."""
        self.codec.decoder.load_state_dict(self.average.module.state_dict())
        return self.codec.eval()


class CodedCrops:
    """Collator: one random crop of `n_frames` from each row's `codes` and `audio` (int16), which are that long or longer.

    Only the first `n_codebooks` are kept: the codes that the model makes of the others are worse than the encoder's.
    """

    def __init__(self, n_frames: int, frame_samples: int, seed: int, n_codebooks: int) -> None:
        self.n_frames = n_frames
        self.frame_samples = frame_samples
        self.n_codebooks = n_codebooks
        self.random = np.random.default_rng(seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        codes, audio = [], []
        for row in rows:
            start = int(self.random.integers(len(row["codes"][0]) - self.n_frames + 1))
            end = start + self.n_frames
            codes.append(np.array(row["codes"])[: self.n_codebooks, start:end])
            audio.append(np.asarray(row["audio"])[start * self.frame_samples : end * self.frame_samples])
        return {
            "codes": torch.from_numpy(np.stack(codes).astype(np.int64)),
            "audio": torch.from_numpy(as_float(np.stack(audio))),
        }
