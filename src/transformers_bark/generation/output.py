"""What generation returns when it is asked for everything."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput

from ..voices import VoicePreset


@dataclass
class BarkGenerateOutput(ModelOutput):
    """Audio and the tokens of every stage.

    Args:
        audio: float [batch, samples], silent after the end of a row.
        audio_lengths: samples of each row, int64 [batch].
        semantic_tokens: int64 [n] a row.
        coarse_codes: int64 [coarse codebook, frame] a row.
        fine_codes: int64 [codebook, frame] a row.
    """

    audio: Tensor = None  # type: ignore[assignment]
    audio_lengths: Tensor = None  # type: ignore[assignment]
    semantic_tokens: list[Tensor] = None  # type: ignore[assignment]
    coarse_codes: list[Tensor] = None  # type: ignore[assignment]
    fine_codes: list[Tensor] = None  # type: ignore[assignment]

    def voice_preset(self, row: int = 0) -> VoicePreset:
        """The whole generation of a row as a voice: what the original library calls `output_full`."""
        return VoicePreset(self.semantic_tokens[row].cpu(), self.coarse_codes[row].cpu(), self.fine_codes[row].cpu())
