"""A stand-in for the teacher: says every letter as a tone of its own, so that tests need neither its weights nor its time."""

from __future__ import annotations

import re

import numpy as np

from transformers_bark.training.data import Utterance

FRAME = 600
"""Samples of a teacher frame."""


class ToneTeacher:
    """Two frames a letter, one of silence between words and at both ends; texts with digits are refused."""

    def speak(self, text: str, speed: float, seed: int) -> Utterance | None:
        """As `Teacher.speak`; `seed` makes the noise, `speed` the loudness."""
        if re.search(r"\d", text):
            return None
        words = [match.span() for match in re.finditer(r"[a-z']+", text.lower())]
        phonemes = " ".join(text[start:end].lower() for start, end in words)
        frames = [1, *(1 if letter == " " else 2 for letter in phonemes), 1]
        ends = np.cumsum(frames)
        word_frames, position = [], 0
        for start, end in words:
            word_frames.append([int(ends[position]), int(ends[position + end - start])])
            position += end - start + 1
        pitches = np.repeat([0.0, *(_pitch(letter) for letter in phonemes), 0.0], np.array(frames) * FRAME)
        noise = np.random.default_rng(seed).normal(scale=0.01, size=len(pitches))
        audio = 0.2 * speed * np.sin(2 * np.pi * np.cumsum(pitches) / 24_000) + noise
        return Utterance((audio * 32767).astype(np.int16), [list(w) for w in words], word_frames, phonemes, frames)


def _pitch(letter: str) -> float:
    return 0.0 if letter == " " else 200.0 + 60.0 * (ord(letter) - ord("a"))
