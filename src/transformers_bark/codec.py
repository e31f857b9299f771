"""The codec's contract: codes -> audio, audio -> codes, and its rates. The codec is an EnCodec of Transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

PIECE = 125
"""Frames that are decoded at once (1.7 seconds of Bark): as fast as more, and 375 take 130 MB more memory."""

STRIDE = 25
"""Rows are filled up to a multiple of so many frames: kernels are prepared anew for every length that was not seen before.

Odd, as channels that lie a power of two apart compete for the same lines of the processor's caches: 384 frames take three times
as long as 375.
"""

ROWS = 16
"""Rows that are decoded together at most: a piece of theirs takes about 1 GB of a GPU's memory."""


def samples_per_frame(config: Any) -> int:
    """Samples that a frame of an EnCodec config stands for."""
    return math.prod(config.upsampling_ratios)


def frame_rate(config: Any) -> float:
    """Frames per second of an EnCodec config."""
    return config.sampling_rate / samples_per_frame(config)


def decode(codec_model: Any, codes: Sequence[Tensor]) -> list[Tensor]:
    """Codes [codebook, frame] a row -> audio [samples] a row.

    Rows are decoded one by one on a CPU, and together elsewhere, where one is too little work for the device. A causal codec
    never hears what a row is filled up with, behind its end.
    """
    if not codec_model.config.use_causal_conv or torch.is_grad_enabled():
        return [_decode_row(codec_model, row) for row in codes]
    on_cpu = next(codec_model.parameters()).device.type == "cpu"
    return decode_together(codec_model, codes, 1 if on_cpu else ROWS)


@torch.no_grad()
def decode_together(codec_model: Any, codes: Sequence[Tensor], n_rows: int = ROWS) -> list[Tensor]:
    """`decode` with a causal codec, `n_rows` at a time, those of like length together. In pieces, and the last of them filled up."""
    parameter = next(codec_model.parameters())
    audio = [torch.zeros(0, dtype=parameter.dtype, device=parameter.device) for _ in codes]
    order = sorted((row for row, part in enumerate(codes) if part.shape[-1]), key=lambda row: codes[row].shape[-1])
    size = samples_per_frame(codec_model.config)
    for group in (order[start : start + n_rows] for start in range(0, len(order), n_rows)):
        lengths = [codes[row].shape[-1] for row in group]
        longest = -(-max(lengths) // STRIDE) * STRIDE
        filled = torch.stack([_filled(codes[row], longest) for row in group])
        decoder = StreamDecoder(codec_model)
        together = torch.cat([decoder.decode_rows(piece) for piece in filled.split(PIECE, dim=-1)], dim=-1)
        for row, length, decoded in zip(group, lengths, together, strict=True):
            audio[row] = decoded[: length * size]
    return audio


def _filled(codes: Tensor, n_frames: int) -> Tensor:
    """Codes [codebook, frame] filled up with their last frame."""
    return torch.cat([codes, codes[:, -1:].expand(-1, n_frames - codes.shape[-1])], dim=-1)


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


class StreamDecoder:
    """Decodes codes as they come: the pieces of audio together are what `decode` makes of all codes.

    The codec is causal. Its LSTM goes on from its state; each convolution is given the frames before, which reach further
    back than it looks.

    Raises:
        ValueError: a codec that looks ahead.
    """

    _CONTEXT = 8
    """Frames that the upsampling layers are given again. They look back less than two."""

    def __init__(self, codec_model: Any) -> None:
        if not codec_model.config.use_causal_conv:
            raise ValueError("the codec looks ahead (`use_causal_conv` is False): its audio cannot be streamed")
        self._codec = codec_model
        self._first, self._recurrent, *self._rest = codec_model.decoder.layers
        self._latent: Tensor | None = None
        self._hidden: Tensor | None = None
        self._state: tuple[Tensor, Tensor] | None = None
        self._size = samples_per_frame(codec_model.config)

    @property
    def least_frames(self) -> int:
        """Frames of the first piece at least, since the first convolution pads with a reflection of its input."""
        return int(self._first.kernel_size)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """The next codes, [codebook, frame] -> their audio, [samples].

        Raises:
            ValueError: a first piece of fewer than `least_frames`.
        """
        return self.decode_rows(codes[None])[0]

    @torch.no_grad()
    def decode_rows(self, codes: Tensor) -> Tensor:
        """`decode` for rows that go on together: [row, codebook, frame] -> [row, samples]."""
        parameter = next(self._codec.parameters())
        if self._latent is None and codes.shape[-1] < self.least_frames:
            raise ValueError(f"the first piece must have at least {self.least_frames} frames, got {codes.shape[-1]}")
        new = self._codec.quantizer.decode(codes.transpose(0, 1).to(parameter.device)).to(parameter.dtype)
        latent, n_new = _behind(self._latent, new), new.shape[-1]
        sequence = self._first(latent)[..., -n_new:].permute(2, 0, 1)
        recurrent, self._state = self._recurrent.lstm(sequence, self._state)
        hidden = _behind(self._hidden, (recurrent + sequence).permute(1, 2, 0))
        self._latent, self._hidden = latent[..., -self.least_frames :], hidden[..., -self._CONTEXT :]
        for layer in self._rest:
            hidden = layer(hidden)
        return hidden[:, 0, -n_new * self._size :]


def _behind(past: Tensor | None, new: Tensor) -> Tensor:
    return new if past is None else torch.cat([past, new], dim=-1)
