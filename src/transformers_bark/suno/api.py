"""`bark.api`: text to audio in one call or in two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..voices import VoicePreset
from .generation import _processor, _stage, codec_decode, generate_coarse, generate_fine, generate_text_semantic


def text_to_semantic(
    text: str, history_prompt: Mapping[str, Any] | str | None = None, temp: float = 0.7, silent: bool = False
) -> np.ndarray:
    """Text -> semantic tokens, int64 [n]."""
    return generate_text_semantic(text, history_prompt, temp, silent=silent)


def semantic_to_waveform(
    semantic_tokens: np.ndarray,
    history_prompt: Mapping[str, Any] | str | None = None,
    temp: float = 0.7,
    silent: bool = False,
    output_full: bool = False,
) -> Any:
    """Semantic tokens [n] -> audio, float32 [samples]; with `output_full` (full generation, audio)."""
    coarse = generate_coarse(semantic_tokens, history_prompt, temp, silent=silent)
    codes = generate_fine(coarse, history_prompt, temp=0.5)
    audio = codec_decode(codes)
    if output_full:
        return {"semantic_prompt": semantic_tokens, "coarse_prompt": coarse, "fine_prompt": codes}, audio
    return audio


def save_as_prompt(filepath: str, full_generation: Mapping[str, Any]) -> None:
    """Writes a full generation as an `.npz` voice.

    Raises:
        ValueError: another ending, or a mapping that is not a full generation.
    """
    if not str(filepath).endswith(".npz"):
        raise ValueError(f"`filepath` must end in .npz, got {str(filepath)!r}")
    VoicePreset.from_arrays(full_generation).save(filepath)


def generate_audio(
    text: str,
    history_prompt: Mapping[str, Any] | str | None = None,
    text_temp: float = 0.7,
    waveform_temp: float = 0.7,
    silent: bool = False,
    output_full: bool = False,
    any_length: bool = False,
) -> Any:
    """Text -> audio, float32 [samples] at `SAMPLE_RATE`; with `output_full` (full generation, audio).

    Args:
        any_length: divide a long text into pieces that fit, and join their audio.

    Raises:
        ValueError: `any_length` with `output_full`, as there is more than one generation.
    """
    if any_length:
        if output_full:
            raise ValueError("`output_full` is of one generation: leave out `any_length`")
        return _speak_any_length(text, history_prompt, text_temp, waveform_temp, silent)
    tokens = text_to_semantic(text, history_prompt, text_temp, silent)
    return semantic_to_waveform(tokens, history_prompt, waveform_temp, silent, output_full)


def _speak_any_length(text: str, voice: Any, text_temp: float, waveform_temp: float, silent: bool) -> np.ndarray:
    from ..narration import Limits
    from ..narration.one_by_one import speak

    config = _stage("text").config

    def say(piece: str, chosen: Any) -> tuple[Any, np.ndarray]:
        return generate_audio(piece, chosen, text_temp, waveform_temp, silent, output_full=True)

    limits = Limits.of(_processor(), config)
    return speak(text, voice, say, limits, config.sample_rate, config.semantic_config.semantic_rate_hz)


__all__ = ["generate_audio", "save_as_prompt", "semantic_to_waveform", "text_to_semantic"]
