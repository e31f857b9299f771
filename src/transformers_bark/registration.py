"""Makes Transformers' `Auto` classes and pipelines use this package for the model type `bark`."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForTextToWaveform,
    AutoProcessor,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_bark import BarkCoarseConfig, BarkConfig, BarkFineConfig, BarkSemanticConfig
from .detection.configuration_detector import BarkDetectorConfig, HubertDetectorConfig
from .detection.feature_extraction_detector import BarkDetectorFeatureExtractor
from .detection.hubert_detector import HubertDetector
from .detection.modeling_detector import BarkDetector
from .detection.pipeline_detector import BarkAudioClassificationPipeline
from .modeling_bark import BarkCoarseModel, BarkFineModel, BarkModel, BarkSemanticModel
from .pipeline_bark import BarkTextToSpeechPipeline
from .processing_bark import BarkProcessor


def register() -> None:
    """Registers every class; calling it again changes nothing."""
    AutoConfig.register(BarkConfig.model_type, BarkConfig, exist_ok=True)
    AutoModel.register(BarkConfig, BarkModel, exist_ok=True)
    AutoModelForTextToWaveform.register(BarkConfig, BarkModel, exist_ok=True)
    AutoProcessor.register(BarkConfig, BarkProcessor, exist_ok=True)
    for config, model in (
        (BarkSemanticConfig, BarkSemanticModel),
        (BarkCoarseConfig, BarkCoarseModel),
        (BarkFineConfig, BarkFineModel),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
    # `Trainer` smooths shifted labels for the names that stand here, and no others
    for config, model in ((BarkSemanticConfig, BarkSemanticModel), (BarkCoarseConfig, BarkCoarseModel)):
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type] = model.__name__
    # A processor class named in a folder is looked up here first, and only then among the registered ones.
    PROCESSOR_MAPPING_NAMES.pop(BarkConfig.model_type, None)
    for kind, detector in ((BarkDetectorConfig, BarkDetector), (HubertDetectorConfig, HubertDetector)):
        AutoConfig.register(kind.model_type, kind, exist_ok=True)
        AutoModelForAudioClassification.register(kind, detector, exist_ok=True)
        AutoFeatureExtractor.register(kind, BarkDetectorFeatureExtractor, exist_ok=True)
        # the pipeline knows models by the names that stand here
        MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES[kind.model_type] = detector.__name__
    PIPELINE_REGISTRY.supported_tasks["audio-classification"]["impl"] = BarkAudioClassificationPipeline
    # One class serves this task for all models; ours hands every other model to its parent.
    PIPELINE_REGISTRY.supported_tasks["text-to-audio"]["impl"] = BarkTextToSpeechPipeline
