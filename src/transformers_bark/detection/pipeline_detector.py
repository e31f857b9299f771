"""`pipeline("audio-classification")` for the detector: files of any kind without ffmpeg, any rate without torchaudio."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from transformers import AudioClassificationPipeline

from . import reading
from .feature_extraction_detector import BarkDetectorFeatureExtractor


class BarkAudioClassificationPipeline(AudioClassificationPipeline):
    """Stock's pipeline for every other model; `BarkDetector`'s inputs may be

    - a file's name, read by libsndfile or PyAV;
    - the bytes of a file;
    - [samples] at the model's rate;
    - {"array" or "raw": [samples] or [channels, samples], "sampling_rate": int}.

    Raises, at the call:
        ValueError: a file that cannot be read, or audio that is none.
    """

    def preprocess(self, inputs: Any) -> Any:
        if not isinstance(self.feature_extractor, BarkDetectorFeatureExtractor):
            return super().preprocess(inputs)
        audio: Any
        rate = self.feature_extractor.sampling_rate
        if isinstance(inputs, str) and not inputs.startswith(("http://", "https://")):
            audio = np.concatenate(list(reading.read_pieces(inputs, rate)))
        elif isinstance(inputs, bytes):
            audio = np.concatenate(list(reading.read_pieces(io.BytesIO(inputs), rate)))
        elif isinstance(inputs, dict) and "sampling_rate" in inputs and ({"raw", "array"} & inputs.keys()):
            audio, rate = inputs.get("raw", inputs.get("array")), inputs["sampling_rate"]
        elif isinstance(inputs, np.ndarray) or hasattr(inputs, "detach"):
            audio = inputs
        else:
            return super().preprocess(inputs)
        return self.feature_extractor(audio, sampling_rate=rate, return_tensors="pt")
