"""Texts and a narrator for the tests: the tiny model, whose speech is noise, but made in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny import tiny_model
from transformers_bark import BarkModel, BarkProcessor
from transformers_bark.narration import Limits, Narrator
from transformers_bark.narration.alignment import Word
from transformers_bark.narration.speaking import Finished

TEXT = "hello my dog. the quick cat!\n\nis the cat cooler? the dog is a quick dog. hello, hello my cat. you!"

FEW = Limits(tokens=16, count_tokens=lambda text: len(text.split()), seconds=6.0, target=0.02)
"""So little that every sentence is a piece."""


def tiny_narrator(checkpoint: Path, batch_size: int | None = None, model: BarkModel | None = None) -> Narrator:
    """A narrator with the tiny model."""
    processor = BarkProcessor.from_pretrained(checkpoint)
    return Narrator(model or tiny_model(seed=1).eval(), processor, batch_size=batch_size, limits=FEW)


def finished(seconds: float, rate: int = 24_000, level: float = 0.1, words: tuple[Word, ...] | None = None) -> Finished:
    """A piece of noise."""
    noise = np.random.default_rng(1).standard_normal(round(seconds * rate)).astype(np.float32)
    return Finished((noise * level).astype(np.float32), words, (), 1, 1)
