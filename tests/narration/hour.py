"""Speaks for some minutes with a model that makes noise at once, and prints the process's peak memory in MB."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests.tiny import tiny_checkpoint, tiny_model, tiny_voice
from transformers_bark import BarkProcessor
from transformers_bark.narration import Limits, Narrator

RATE = 24_000
SECONDS = 10


def generate(**inputs: Any) -> Any:
    """Ten seconds of noise a row."""
    rows = len(inputs["seed"])
    noise = np.random.default_rng(0).standard_normal((1, SECONDS * RATE), np.float32) * np.float32(0.1)
    return SimpleNamespace(
        audio=torch.from_numpy(noise).expand(rows, -1),
        audio_lengths=torch.full((rows,), SECONDS * RATE),
        voice_preset=lambda row: tiny_voice(),
    )


def main(minutes: float, ending: str, work: bool) -> None:
    """Speaks so long."""
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(seed=1).eval()
        processor = BarkProcessor.from_pretrained(tiny_checkpoint(Path(folder) / "tiny"))
        model.generate = generate
        narrator = Narrator(model, processor, limits=Limits(seconds=15.0))
        sentence = "the quick cat is cooler than my dog, the quick dog is cooler than you, hello my dog.\n\n"
        text = sentence * round(minutes * 60 / (SECONDS + 0.8))
        how = {"work": Path(folder) / "work"} if work else {}
        report = narrator(text, tries=0, seed=1, **how).write(Path(folder) / f"out{ending}")
        assert report.seconds > minutes * 58, report.seconds
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], sys.argv[3] == "work")
