"""Bark for Transformers: text to audio.

Importing the package registers its classes, so that `AutoModel`, `AutoProcessor` and `pipeline("text-to-speech")` use them
for the model type `bark`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import interrupts  # noqa: F401 - first: it acts while the rest is imported
from .configuration_bark import BarkCoarseConfig, BarkConfig, BarkFineConfig, BarkSemanticConfig
from .generation.output import BarkGenerateOutput
from .generation.progress import StageProgress
from .generation_configuration_bark import (
    BarkCoarseGenerationConfig,
    BarkFineGenerationConfig,
    BarkGenerationConfig,
    BarkSemanticGenerationConfig,
)
from .modeling_bark import (
    BarkCausalModel,
    BarkCoarseModel,
    BarkFineModel,
    BarkModel,
    BarkPreTrainedModel,
    BarkSemanticModel,
)
from .pipeline_bark import BarkTextToSpeechPipeline
from .processing_bark import BarkProcessor
from .registration import register
from .voices import VoicePreset

__version__ = "0.1.0"

BARK_NANO = str(Path(__file__).parent / "assets" / "nano")
"""Path of the small checkpoint that the package carries."""

register()

if TYPE_CHECKING:
    from .narration.narrator import Narrator


def __getattr__(name: str) -> Any:
    if name != "Narrator":  # imported when it is asked for
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .narration.narrator import Narrator

    return Narrator


__all__ = [
    "BARK_NANO",
    "BarkCausalModel",
    "BarkCoarseConfig",
    "BarkCoarseGenerationConfig",
    "BarkCoarseModel",
    "BarkConfig",
    "BarkFineConfig",
    "BarkFineGenerationConfig",
    "BarkFineModel",
    "BarkGenerateOutput",
    "BarkGenerationConfig",
    "BarkModel",
    "BarkPreTrainedModel",
    "BarkProcessor",
    "BarkSemanticConfig",
    "BarkSemanticGenerationConfig",
    "BarkSemanticModel",
    "BarkTextToSpeechPipeline",
    "Narrator",
    "StageProgress",
    "VoicePreset",
]
