"""Bark for Transformers: text to audio.

Importing the package registers its classes, so that `AutoModel`, `AutoProcessor` and `pipeline("text-to-speech")` use them
for the model type `bark`. It does so without importing torch or Transformers itself: names are imported when they are asked
for, and classes are registered at once where Transformers is there, else as soon as it is imported (see `import_hook`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import import_hook

if TYPE_CHECKING:
    from .configuration_bark import BarkCoarseConfig, BarkConfig, BarkFineConfig, BarkSemanticConfig
    from .detection.configuration_detector import BarkDetectorConfig, HubertDetectorConfig
    from .detection.detect import Detection, detect_audio, detect_file, load_detector
    from .detection.feature_extraction_detector import BarkDetectorFeatureExtractor
    from .detection.hubert_detector import HubertDetector
    from .detection.modeling_detector import BarkDetector
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
    from .narration.narrator import Narrator
    from .pipeline_bark import BarkTextToSpeechPipeline
    from .processing_bark import BarkProcessor
    from .voices import VoicePreset

__version__ = "0.1.0"

BARK_NANO = str(Path(__file__).parent / "assets" / "nano")
"""Path of the small checkpoint that the package carries."""

BARK_DETECTOR = str(Path(__file__).parent / "assets" / "detector")
"""Path of the detector that the package carries."""

_MODULES = {
    "BarkCausalModel": "modeling_bark",
    "BarkCoarseConfig": "configuration_bark",
    "BarkCoarseGenerationConfig": "generation_configuration_bark",
    "BarkCoarseModel": "modeling_bark",
    "BarkConfig": "configuration_bark",
    "BarkDetector": "detection.modeling_detector",
    "BarkDetectorConfig": "detection.configuration_detector",
    "BarkDetectorFeatureExtractor": "detection.feature_extraction_detector",
    "BarkFineConfig": "configuration_bark",
    "BarkFineGenerationConfig": "generation_configuration_bark",
    "BarkFineModel": "modeling_bark",
    "BarkGenerateOutput": "generation.output",
    "BarkGenerationConfig": "generation_configuration_bark",
    "BarkModel": "modeling_bark",
    "BarkPreTrainedModel": "modeling_bark",
    "BarkProcessor": "processing_bark",
    "BarkSemanticConfig": "configuration_bark",
    "BarkSemanticGenerationConfig": "generation_configuration_bark",
    "BarkSemanticModel": "modeling_bark",
    "BarkTextToSpeechPipeline": "pipeline_bark",
    "Detection": "detection.detect",
    "HubertDetector": "detection.hubert_detector",
    "HubertDetectorConfig": "detection.configuration_detector",
    "Narrator": "narration.narrator",
    "StageProgress": "generation.progress",
    "VoicePreset": "voices",
    "detect_audio": "detection.detect",
    "detect_file": "detection.detect",
    "load_detector": "detection.detect",
    "register": "registration",
}
"""Public names and the modules that have them."""

__all__ = [  # noqa: F822
    "BARK_DETECTOR",
    "BARK_NANO",
    "BarkCausalModel",
    "BarkCoarseConfig",
    "BarkCoarseGenerationConfig",
    "BarkCoarseModel",
    "BarkConfig",
    "BarkDetector",
    "BarkDetectorConfig",
    "BarkDetectorFeatureExtractor",
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
    "Detection",
    "HubertDetector",
    "HubertDetectorConfig",
    "Narrator",
    "StageProgress",
    "VoicePreset",
    "detect_audio",
    "detect_file",
    "load_detector",
]

if not TYPE_CHECKING:  # type checkers know the names from the imports above

    def __getattr__(name: str) -> Any:
        """A public name or a module, imported when it is first asked for."""
        from importlib import import_module
        from importlib.util import find_spec

        if name in _MODULES:
            value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
            globals()[name] = value
            return value
        if name.isidentifier() and not name.startswith("_") and find_spec(f"{__name__}.{name}"):
            return import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


import_hook.register_when_imported()
