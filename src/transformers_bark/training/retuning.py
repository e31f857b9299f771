"""A trained codec that goes on: encoder, codebooks and decoder together, while a network that tells phonemes listens.

A codec that is trained on spectra alone spends itself on what has energy, and words are told by less. Here the codec that there is
already learns to be understood, from the codebooks that the coarse stage will make.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import EncodecModel
from vector_quantize_pytorch import ResidualVQ

from .codec import set_codebook
from .decoder import HearingLoss
from .semantic_tokenizer import WordLoss

_PARTS = ("encoder", "decoder")


class CodecRetuning(nn.Module):
    """EnCodec from weights that there are; `forward` gives the loss that `transformers.Trainer` minimizes.

    Args:
        codec: as many codebooks as it has are kept, and go on from where they are.
        words: what tells how far the words are.
        n_coarse: codebooks that are always used; the others are left out of some batches.
        n_kept: first layers of the encoder that stay as they are: those at the rate of the samples cost most and hear well enough.
        n_context: frames at the start of a crop that only warm up the memories of encoder and decoder.
        word_weight, low_band_weight: of these losses; the spectral loss has 1.
        decay: of the moving average of the weights, which is what is kept, a step.
    """

    def __init__(
        self,
        codec: EncodecModel,
        words: WordLoss,
        n_coarse: int,
        n_kept: int = 4,
        n_context: int = 4,
        word_weight: float = 2.0,
        low_band_weight: float = 0.01,
        decay: float = 0.998,
    ) -> None:
        super().__init__()
        self.codec = codec
        self.loss = HearingLoss(codec.config.sampling_rate, low_band_weight, words, word_weight)
        for layer in codec.encoder.layers[:n_kept]:
            layer.requires_grad_(False)
        keep = get_ema_multi_avg_fn(decay)
        self.averages: Any = nn.ModuleDict(
            {name: AveragedModel(getattr(codec, name), multi_avg_fn=keep).requires_grad_(False) for name in _PARTS}
        )
        self.n_context = n_context
        books: Any = codec.quantizer.layers
        self.quantizer = ResidualVQ(
            dim=codec.config.hidden_size,
            codebook_size=codec.config.codebook_size,
            num_quantizers=len(books),
            kmeans_init=False,
            decay=0.99,
            threshold_ema_dead_code=0.05,
            quantize_dropout=len(books) > n_coarse,
            quantize_dropout_cutoff_index=n_coarse - 1,
        )
        for layer, book in zip(self.quantizer.layers, books, strict=True):
            inner = layer._codebook
            inner.embed.data.copy_(book.codebook.embed[None])
            inner.embed_avg.data.copy_(book.codebook.embed[None])
            inner.cluster_size.data.fill_(1)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """audio: [batch, samples], a whole number of frames -> {"loss": scalar, and its parts}."""
        if self.training:
            for name, average in self.averages.items():
                average.update_parameters(getattr(self.codec, name))
        latent = self.codec.encoder(audio[:, None])
        quantized, _, commitment = self.quantizer(latent.transpose(1, 2))
        start = self.n_context * (audio.shape[-1] // latent.shape[-1])
        decoded = self.codec.decoder(quantized.transpose(1, 2))[..., start : audio.shape[-1]]
        parts = self.loss(decoded, audio[:, None, start:])
        return {**parts, "loss": parts["loss"] + 0.25 * commitment.sum()}

    @torch.no_grad()
    def export(self) -> EncodecModel:
        """The codec with the averages of its weights, and the codebooks."""
        for name, average in self.averages.items():
            getattr(self.codec, name).load_state_dict(average.module.state_dict())
        for layer, book in zip(self.quantizer.layers, self.codec.quantizer.layers, strict=True):
            set_codebook(book, layer._codebook.embed[0])
        return self.codec.eval()
