"""Recordings that tests make: what is not Bark, and what is."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

RATE = 24_000


def voice_like(seconds: float, seed: int, rate: int = RATE, pitch: float = 120.0) -> np.ndarray:
    """Syllables of a buzz and of noise through formants: as a voice, without any codec."""
    chance = np.random.default_rng(seed)
    n = int(seconds * rate)
    time = np.arange(n) / rate
    hertz = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * time + chance.uniform(0, 6)) + 0.03 * chance.standard_normal())
    buzz = np.diff(np.floor(np.cumsum(hertz) / rate), prepend=0) * 20
    noise = chance.standard_normal(n)
    syllable = np.clip(np.sin(2 * np.pi * 2.3 * time + chance.uniform(0, 6)), 0, 1)
    voiced = (np.sin(2 * np.pi * 0.9 * time + chance.uniform(0, 6)) > -0.4).astype(float)
    audio = syllable * (buzz * voiced + 0.3 * noise * (1 - voiced)) + 0.002 * noise
    for formant, width in ((500 + 200 * chance.random(), 90), (1400 + 400 * chance.random(), 120), (2600, 200)):
        radius = np.exp(-np.pi * width / rate)
        audio = lfilter([1], [1, -2 * radius * np.cos(2 * np.pi * formant / rate), radius**2], audio)
    return (0.3 * audio / np.abs(audio).max()).astype(np.float32)


def noises(seed: int) -> dict[str, np.ndarray]:
    """Noise, tones, and hum alone or under a voice."""
    chance = np.random.default_rng(seed)
    time = np.arange(4 * RATE) / RATE
    hum = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 60))
    return {
        "white": 0.1 * chance.standard_normal(4 * RATE),
        "brown": 0.02 * np.cumsum(chance.standard_normal(4 * RATE)) / 20,
        "tones": 0.1 * sum(np.sin(2 * np.pi * f * time) for f in (440, 554.4, 659.3, 1318.5)),
        "hum": 0.05 * hum + 0.01 * chance.standard_normal(4 * RATE),
        "voice with hum": voice_like(4, seed) + 0.002 * hum,
    }
