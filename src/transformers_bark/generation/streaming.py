"""Speech as it is made: audio of the first windows while later ones are still to come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from .. import codec
from ..voices import VoicePreset
from .coarse import coarse_windows
from .fine import generate_fine
from .options import CoarseOptions, FineOptions
from .processors import check_audio
from .progress import Advance, ignore
from .sampling import Draws

CHUNK_SECONDS = 1.0
"""Least length of a piece of audio behind the first, unless another is asked for."""


@dataclass
class BarkStreamOutput(ModelOutput):
    """A piece of a streamed utterance.

    Args:
        audio: float [samples].
        fine_codes: the codes that it was decoded from, int64 [codebook, frame].
        semantic_tokens: those of the whole utterance, int64 [n]: they are there before the first piece is.
    """

    audio: Tensor = None  # type: ignore[assignment]
    fine_codes: Tensor = None  # type: ignore[assignment]
    semantic_tokens: Tensor = None  # type: ignore[assignment]


class Pieces:
    """An utterance's pieces of audio, made of its coarse codes as they come.

    The fine stage fills each piece with the pieces before it as its history, and does not see what comes after it: the whole
    run does, so the later codebooks may differ from its.

    Args:
        model: the composite model.
        config: the composite generation config.
        draws: of the row, which is the first.
        chunk_seconds: least length of a piece; the first is as short as the coarse window and the codec allow.

    Raises:
        ValueError: a length that is not positive, or a codec that looks ahead.
    """

    def __init__(
        self,
        model: Any,
        voice: VoicePreset | None,
        config: Any,
        options: FineOptions,
        draws: Draws,
        chunk_seconds: float,
    ) -> None:
        if not 0 < chunk_seconds < math.inf:
            raise ValueError(f"`chunk_seconds` must be positive, got {chunk_seconds!r}")
        self._model, self._config, self._options, self._draws = model, config, options, draws
        self._decoder = codec.StreamDecoder(model.codec_model)
        self._least = math.ceil(chunk_seconds * config.coarse_acoustics_config.coarse_rate_hz)
        shape = (config.fine_acoustics_config.n_fine_codebooks, 0)
        past = torch.zeros(shape, dtype=torch.long) if voice is None else voice.fine_prompt
        self._n_past, self._filled = past.shape[1], past.to(model.device)

    @property
    def codes(self) -> Tensor:
        """Those of all pieces so far, int64 [codebook, frame]."""
        return self._filled[:, self._n_past :]

    def more(self, ready: Tensor) -> tuple[Tensor, Tensor] | None:
        """Coarse codes as far as they are made, [codebook, frame] -> the next piece, if they are enough for one: see `rest`."""
        n_given = self.codes.shape[1]
        is_enough = ready.shape[1] - n_given >= (self._least if n_given else self._decoder.least_frames)
        return self._make(ready, n_given) if is_enough else None

    def rest(self, ready: Tensor) -> tuple[Tensor, Tensor] | None:
        """All coarse codes -> audio [samples] and codes [codebook, frame] of what has not been given; None where nothing is left."""
        n_given = self.codes.shape[1]
        return self._make(ready, n_given) if ready.shape[1] > n_given else None

    def _make(self, ready: Tensor, n_given: int) -> tuple[Tensor, Tensor]:
        history = self._filled if self._filled.shape[1] else None
        stage, size = self._config.fine_acoustics_config, self._config.codebook_size
        new = ready[:, n_given:]
        (codes,) = generate_fine(self._model.fine_acoustics, [new], [history], stage, size, self._options, self._draws)
        self._filled = torch.cat([self._filled, codes], dim=1)
        if n_given or codes.shape[1] >= self._decoder.least_frames:
            audio = self._decoder.decode(codes)
        else:
            (audio,) = codec.decode(self._model.codec_model, [codes])
        check_audio([audio])
        return audio, codes


def stream_audio(
    model: Any,
    pieces: Pieces,
    tokens: Tensor,
    voice: VoicePreset | None,
    config: Any,
    options: CoarseOptions,
    draws: Draws,
    advance: Advance = ignore,
) -> Iterator[BarkStreamOutput]:
    """Semantic tokens [n] of one row -> pieces of audio, each after the coarse windows that it needs.

    Args:
        model: the composite model.
        pieces: fresh ones.
        config: the composite generation config.
    """
    past = [(voice.semantic_prompt, voice.coarse_prompt)] if voice else [None]
    stages = (config.semantic_config, config.coarse_acoustics_config, config.codebook_size)
    ready = tokens.new_zeros(config.coarse_acoustics_config.n_coarse_codebooks, 0)
    for (ready,) in coarse_windows(model.coarse_acoustics, [tokens], past, *stages, options, draws, advance):
        if (piece := pieces.more(ready)) is not None:
            yield BarkStreamOutput(*piece, tokens)
    if (piece := pieces.rest(ready)) is not None:
        yield BarkStreamOutput(*piece, tokens)
