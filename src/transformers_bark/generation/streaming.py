"""Speech as it is made: audio of the first windows while later ones are still to come."""

from __future__ import annotations

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
from .progress import Advance, ignore
from .sampling import Draws


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


def stream_audio(
    model: Any,
    decoder: codec.StreamDecoder,
    tokens: Tensor,
    voice: VoicePreset | None,
    config: Any,
    coarse: CoarseOptions,
    fine: FineOptions,
    draws: Draws,
    chunk_frames: int,
    advance: Advance = ignore,
) -> Iterator[BarkStreamOutput]:
    """Semantic tokens [n] of one row -> pieces of audio, each after the coarse windows that it needs.

    The coarse tokens are those of the whole run. The fine stage fills each piece with the pieces before it as its history,
    and does not see what comes after it: the whole run does, so the later codebooks may differ from its.

    Args:
        model: the composite model.
        decoder: a fresh one of the model's codec.
        config: the composite generation config.
        chunk_frames: least frames of a piece; the first is as short as the coarse window and the codec allow.
    """
    past = [(voice.semantic_prompt, voice.coarse_prompt)] if voice else [None]
    filled = (
        voice.fine_prompt.to(tokens.device)
        if voice
        else tokens.new_zeros(config.fine_acoustics_config.n_fine_codebooks, 0)
    )
    stages = (config.semantic_config, config.coarse_acoustics_config, config.codebook_size)
    windows = coarse_windows(model.coarse_acoustics, [tokens], past, *stages, coarse, draws, advance)
    n_given = 0
    ready = tokens.new_zeros(config.coarse_acoustics_config.n_coarse_codebooks, 0)

    def fill() -> Tensor:
        """All codebooks of the frames that are ready and not given yet."""
        history = filled if filled.shape[1] else None
        stage, size = config.fine_acoustics_config, config.codebook_size
        return generate_fine(model.fine_acoustics, [ready[:, n_given:]], [history], stage, size, fine, draws)[0]

    for (ready,) in windows:
        if ready.shape[1] - n_given >= (chunk_frames if n_given else decoder.least_frames):
            codes = fill()
            filled, n_given = torch.cat([filled, codes], dim=1), ready.shape[1]
            yield BarkStreamOutput(decoder.decode(codes), codes, tokens)
    if ready.shape[1] > n_given:
        codes = fill()
        audio = decoder.decode(codes) if n_given else codec.decode(model.codec_model, [codes])[0]
        yield BarkStreamOutput(audio, codes, tokens)
