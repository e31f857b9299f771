"""Recordings -> what `BarkDetector` takes: mono, at its rate, padded to one length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor

from . import reading


class BarkDetectorFeatureExtractor(SequenceFeatureExtractor):
    """Makes a batch of recordings.

    Args:
        sampling_rate: samples a second of what the model hears. Recordings of another rate are resampled.
        padding_value: what shorter rows are filled up with; the mask says where.
    """

    model_input_names = ["input_values", "attention_mask"]

    def __init__(
        self, feature_size: int = 1, sampling_rate: int = 24_000, padding_value: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.return_attention_mask = kwargs.get("return_attention_mask", True)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Makes `input_values` and `attention_mask` [batch, samples] of one recording or a list of them.

        Args:
            raw_speech: [samples], or [channels, samples] whose channels are averaged; or a list or tuple of such.
            sampling_rate: of all of them; `self.sampling_rate` if it is not given.
            padding, return_tensors: as Transformers' feature extractors take them.

        Raises:
            ValueError: no samples, samples that are not numbers, or another shape.
        """
        rate = self.sampling_rate if sampling_rate is None else sampling_rate
        if not rate > 0:
            raise ValueError(f"sampling_rate must be a positive number, got {sampling_rate!r}")
        several = isinstance(raw_speech, (list, tuple)) and len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
        rows = [self._row(one, rate) for one in (raw_speech if several else [raw_speech])]
        return self.pad({"input_values": rows}, padding=padding, return_tensors=return_tensors, **kwargs)

    def _row(self, audio: Any, rate: int) -> np.ndarray:
        if hasattr(audio, "detach"):
            audio = audio.detach().cpu().numpy()
        array = np.asarray(audio)
        scale = np.float32(32768 if array.dtype == np.int16 else 1)
        array = array.astype(np.float32) / scale
        array = array.mean(0) if array.ndim == 2 else array
        if array.ndim != 1 or not len(array):
            raise ValueError(f"a recording must have the shape [samples] or [channels, samples], got {np.shape(audio)}")
        if not np.isfinite(array).all():
            raise ValueError("a recording must hold numbers, got samples that are NaN or infinite")
        return reading.resample(array, rate, self.sampling_rate)


__all__: Sequence[str] = ["BarkDetectorFeatureExtractor"]
