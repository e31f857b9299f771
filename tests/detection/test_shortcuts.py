"""The shipped weights: what must not decide does not, and the embedded checkpoint's speech is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import transformers_bark
from recipes.detector import conditions
from tests.detection.recordings import RATE, noises, voice_like
from transformers_bark import BarkDetector, BarkModel, BarkProcessor, detect_audio, load_detector

CHANGES = {
    "louder": lambda audio, rate: (np.clip(4 * audio, -1, 1), rate),
    "quieter": lambda audio, rate: (0.01 * audio, rate),
    "silence around": lambda audio, rate: (np.concatenate([np.zeros(rate), audio, np.zeros(rate)]), rate),
    "twice": lambda audio, rate: (np.concatenate([audio, audio]), rate),
    "one second": lambda audio, rate: (audio[rate : 2 * rate], rate),
    **{
        name: lambda audio, rate, name=name: conditions.apply(name, audio, rate, np.random.default_rng(0))
        for name in (*conditions.CONDITIONS[1:], "mp3 32 kbit/s", "aac 128 kbit/s", "48 kHz", "22.05 kHz")
        if not name.startswith("crop")
    },
}


@pytest.fixture(scope="module")
def detector() -> BarkDetector:
    model = load_detector()
    assert isinstance(model, BarkDetector)
    return model


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """What the embedded checkpoint says."""
    torch.manual_seed(0)
    processor = BarkProcessor.from_pretrained(transformers_bark.BARK_NANO)
    model = BarkModel.from_pretrained(transformers_bark.BARK_NANO).eval()
    inputs = processor("The weather was fine, and we walked along the river until it was dark.")
    return model.generate(**inputs, do_sample=True, seed=11)[0].numpy()


def probability(detector: BarkDetector, audio: np.ndarray, rate: int) -> float:
    return detect_audio(detector, audio.astype(np.float32), rate).probability


@pytest.mark.parametrize("change", CHANGES)
def test_negatives_stay_negatives(change: str, detector: BarkDetector) -> None:
    for seed, rate, pitch in ((0, 24_000, 110.0), (1, 44_100, 210.0), (2, 16_000, 75.0), (3, 48_000, 150.0)):
        audio = voice_like(4, seed, rate, pitch)
        assert probability(detector, audio, rate) < 0.5, (seed, "as it is")
        assert probability(detector, *CHANGES[change](audio, rate)) < 0.5, seed


@pytest.mark.parametrize("kind", sorted(noises(0)))
def test_noises_and_other_lines_are_not_bark(kind: str, detector: BarkDetector) -> None:
    for seed in range(3):
        assert probability(detector, noises(seed)[kind], RATE) < 0.5, seed


def test_the_embedded_checkpoint_is_found(detector: BarkDetector, speech: np.ndarray) -> None:
    assert probability(detector, speech, RATE) > 0.5


@pytest.mark.parametrize(
    "change", ["44.1 kHz", "48 kHz", "mp3 64 kbit/s", "16 kHz", "quieter", "louder", "silence around"]
)
def test_positives_stay_positives(change: str, detector: BarkDetector, speech: np.ndarray) -> None:
    assert probability(detector, *CHANGES[change](speech, RATE)) > 0.5
