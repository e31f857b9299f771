"""Speaks a text in pieces and writes each to a WAV file as soon as it is there.

python examples/stream.py
"""

from __future__ import annotations

import time

import soundfile
import torch

import transformers_bark
from transformers_bark import BarkModel, BarkProcessor

TEXT = "Thank you for calling, how can I help you today?"


def main() -> None:
    """Prints when each piece came."""
    model = BarkModel.from_pretrained(transformers_bark.BARK_NANO, engine="auto").eval()
    processor = BarkProcessor.from_pretrained(transformers_bark.BARK_NANO)
    inputs, rate = processor(TEXT), model.generation_config.sample_rate
    model.generate(**inputs, semantic_max_new_tokens=4, progress=False)  # builds or loads what the engine needs
    started, spoken = time.perf_counter(), 0.0
    with soundfile.SoundFile("stream.wav", "w", rate, 1) as file, torch.inference_mode():
        for piece in model.generate_stream(**inputs, chunk_seconds=0.5, seed=1):
            file.write(piece.numpy())
            print(f"after {time.perf_counter() - started:.2f} s: speech from {spoken:.2f} s on")
            spoken += len(piece) / rate


if __name__ == "__main__":
    main()
