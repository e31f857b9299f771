"""The codec's contract: codes -> audio, audio -> codes, and its rates. The codec is an EnCodec of Transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def samples_per_frame(config: Any) -> int:
    """Samples that a frame of an EnCodec config stands for."""
    return math.prod(config.upsampling_ratios)


def frame_rate(config: Any) -> float:
    """Frames per second of an EnCodec config."""
    return config.sampling_rate / samples_per_frame(config)


def decode(codec_model: Any, codes: Sequence[Tensor]) -> list[Tensor]:
    """Codes [codebook, frame] a row -> audio [samples] a row.

    Rows are decoded one by one: the codec's LSTM sees what follows a row, so padding would change its end.
    """
    return [_decode_row(codec_model, row) for row in codes]


def _decode_row(codec_model: Any, codes: Tensor) -> Tensor:
    parameter = next(codec_model.parameters())
    if not codes.shape[-1]:
        return torch.zeros(0, dtype=parameter.dtype, device=parameter.device)
    latent = codec_model.quantizer.decode(codes[:, None].to(parameter.device))
    return codec_model.decoder(latent.to(parameter.dtype))[0, 0]


def encode(codec_model: Any, audio: Tensor, n_codebooks: int | None = None) -> Tensor:
    """audio [batch, samples] at the codec's rate -> codes [batch, codebook, frame], the first `n_codebooks` or all."""
    latent = codec_model.encoder(audio[:, None])
    codes = codec_model.quantizer.encode(latent, codec_model.config.target_bandwidths[-1])
    return codes.transpose(0, 1)[:, :n_codebooks]


@torch.no_grad()
def encode_recording(codec_model: Any, audio: Tensor, n_codebooks: int | None = None) -> Tensor:
    """audio [samples] at the codec's rate -> codes [codebook, frame] of its whole frames, without the rest of a frame."""
    size = samples_per_frame(codec_model.config)
    return encode(codec_model, audio[: len(audio) // size * size][None], n_codebooks)[0]
