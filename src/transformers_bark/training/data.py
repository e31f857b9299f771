"""Text and teacher audio for training: sentences -> utterances with audio and word times, on disk.

The teacher is the PyPI package `hibari-tts` (Apache-2.0). Its acoustic graph predicts a duration per phoneme; exposing
that tensor gives the time of every word without an aligner.
"""

from __future__ import annotations

import gzip
import hashlib
import random
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import soxr
from datasets import Dataset, Features, Value, load_from_disk
from datasets import Sequence as ListOf
from filelock import FileLock, Timeout

FRAME_SECONDS = 0.025
"""Length of one frame of the teacher's durations: 600 samples at 24 kHz."""

_SAMPLE_RATE = 24_000

_DURATIONS = "/Clip_output_0"
"""Name of the teacher graph's tensor of frames per phoneme."""

_CLAUSE_END = re.compile(r"(?<=[,;:.!?])\s+")
_READABLE = re.compile(r"^[A-Za-z0-9 ,.;:!?'\-]+$")
_SLOT = re.compile(r"\{(\w+)\}")

FEATURES = Features(
    {
        "id": Value("string"),
        "text": Value("string"),
        "voice": Value("string"),
        "audio": ListOf(Value("int16")),
        "word_chars": ListOf(ListOf(Value("int32"))),
        "word_frames": ListOf(ListOf(Value("int32"))),
        "phonemes": Value("string"),
        "phoneme_frames": ListOf(Value("int16")),
    }
)
"""Columns of an utterance: audio is 24 kHz mono; `voice` names who speaks; `word_chars[i]` is the [start, end) of word i in
the text and `word_frames[i]` its [start, end) in teacher frames; `phoneme_frames` has one entry a phoneme."""


def read_sentences(path: str | Path) -> list[str]:
    """Lines of a plain or gzipped text file, without empty ones."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip()]


def split_phrases(sentence: str, rng: random.Random, max_words: int = 12) -> list[str]:
    """Cuts a sentence at its clauses, and long clauses at a random word, into phrases of 2 to `max_words` words."""
    phrases: list[str] = []
    for clause in _CLAUSE_END.split(sentence):
        words = clause.split()
        while words:
            size = len(words) if len(words) <= max_words else rng.randint(4, max_words)
            phrases.append(" ".join(words[:size]))
            words = words[size:]
    return [p for p in phrases if len(p.split()) > 1 and _READABLE.match(p)]


def fill_template(template: str, slots: dict[str, list[str]], rng: random.Random) -> str:
    """Replaces every `{slot}` by a random entry of `slots`; the first letter is made upper case."""
    text = _SLOT.sub(lambda match: rng.choice(slots[match.group(1)]), template)
    return text[0].upper() + text[1:]


def word_runs(text: str, size: int = 4) -> set[tuple[str, ...]]:
    """The runs of `size` words of a text, in lower case; a shorter text is one run."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def compose_texts(
    corpus: Sequence[str], everyday: dict[str, Any], n_everyday: int, n_words: int, seed: int, held_out: Sequence[str]
) -> list[str]:
    """Training texts in a fixed random order: phrases of the corpus, filled templates and random word groups.

    Texts that share four words in a row with a sentence of `held_out` are left out.
    """
    rng = random.Random(seed)
    texts = [phrase for sentence in corpus for phrase in split_phrases(sentence, rng)]
    texts += [fill_template(rng.choice(everyday["templates"]), everyday["slots"], rng) for _ in range(n_everyday)]
    vocabulary = sorted({w.strip(",.;:!?").lower() for text in texts for w in text.split()} - {""})
    texts += [" ".join(rng.sample(vocabulary, rng.randint(1, 4))) for _ in range(n_words)]
    forbidden = set().union(*map(word_runs, held_out)) if held_out else set()
    unique = [text for text in dict.fromkeys(texts) if not (word_runs(text) & forbidden)]
    rng.shuffle(unique)
    return unique


@dataclass
class Utterance:
    """One teacher utterance; see `FEATURES` for the fields."""

    audio: np.ndarray
    word_chars: list[list[int]]
    word_frames: list[list[int]]
    phonemes: str
    phoneme_frames: list[int]


def as_float(audio: Any) -> np.ndarray:
    """Samples of 16 bits -> float32 in [-1, 1)."""
    return np.asarray(audio, np.float32) / 32768


def _as_int16(audio: np.ndarray) -> np.ndarray:
    return (np.clip(audio, -1.0, 1.0) * 32767.0).astype(np.int16)


class Teacher:
    """The teacher voice with its durations exposed. Needs the packages `hibari-tts` and `onnx`."""

    def __init__(self) -> None:
        import onnx
        import onnxruntime
        from hibari import Hibari

        self._tts = Hibari()
        graph = onnx.load(self._tts.model_path)
        graph.graph.output.append(onnx.ValueInfoProto(name=_DURATIONS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def speak(self, text: str, speed: float, seed: int) -> Utterance | None:
        """Synthesizes `text`; None where the teacher reads no word of it.

        Where it reads something else than is written ("Dr.", "5:30"), its words are laid over those of the text.
        """
        from hibari import dsp
        from hibari.g2p.normalize import normalize

        read = normalize(text)
        tokens = self._tts.g2p.phonemize_tokens(self._tts.g2p.tokenize(read))
        phonemes, word_chars, word_phones = self._layout(tokens, read)
        word_chars = lay_over(word_chars, read, text)
        ids = [0, *[self._tts.vocab[c] for c in phonemes], 0]
        if len(ids) < 4 or not word_chars:
            return None
        inputs = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed], np.float32)}
        *spectra, durations = self._session.run(None, inputs)
        audio = dsp.synth(*(part[0] for part in spectra), np.random.default_rng(seed))
        frames = durations.reshape(-1).astype(int)
        ends = np.cumsum(frames)
        word_frames = [[int(ends[a]), int(ends[b])] for a, b in word_phones]
        return Utterance(_as_int16(audio), *merge_words(word_chars, word_frames), phonemes, frames.tolist())

    def _layout(self, tokens: list[Any], text: str) -> tuple[str, list[list[int]], list[tuple[int, int]]]:
        """Phoneme string, [start, end) in the text and [first, last] index into `ends` of each spoken token."""
        phonemes, chars, phones, position = "", [], [], 0
        for token in tokens:
            start = text.find(token.text, position)
            kept = "".join(c for c in token.phonemes or "" if c in self._tts.vocab)
            if start >= 0:
                position = start + len(token.text)
                if kept.strip():
                    chars.append([start, position])
                    phones.append((len(phonemes), len(phonemes) + len(kept)))
            phonemes += kept + (" " if token.whitespace else "")
        return phonemes.rstrip(), chars, phones


def lay_over(spans: Sequence[Sequence[int]], read: str, text: str) -> list[list[int]]:
    """[start, end) of words in the text as it is read -> [start, end) of the written words that they are read for."""
    there, here = ([match.span() for match in re.finditer(r"\S+", one)] for one in (read, text))
    words_read, words_written = ([one[a:b] for a, b in pieces] for one, pieces in ((read, there), (text, here)))
    written: list[tuple[int, int]] = []
    for tag, a, b, c, d in SequenceMatcher(None, words_read, words_written, autojunk=False).get_opcodes():
        for index in range(a, b):
            first = c + (index - a) * (d - c) // (b - a)
            last = max(first, c + (index - a + 1) * (d - c) // (b - a) - 1)
            place = here[min(first, len(here) - 1)][0], here[min(last, len(here) - 1)][1]
            written.append(place if tag != "equal" else here[first])
    out = []
    for start, end in spans:
        index = max(i for i, (a, _) in enumerate(there) if a <= start)
        if words_read[index] == text[slice(*written[index])]:  # the same word: keep the place inside it
            shift = written[index][0] - there[index][0]
            out.append([start + shift, end + shift])
        else:
            out.append(list(written[index]))
    return out


def merge_words(chars: Sequence[list[int]], frames: Sequence[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    """Makes one of neighbouring words that are read for the same written word."""
    merged_chars, merged_frames = [chars[0]], [list(frames[0])]
    for span, time in zip(chars[1:], frames[1:], strict=True):
        if span == merged_chars[-1]:
            merged_frames[-1][1] = time[1]
        else:
            merged_chars.append(span)
            merged_frames.append(list(time))
    return merged_chars, merged_frames


def _utterances(
    texts: Sequence[str],
    first: int,
    speeds: Sequence[float],
    seed: int,
    voices: Mapping[str, float],
    shares: Sequence[float] | None,
) -> Iterator[dict[str, Any]]:
    teacher = Teacher()
    for number, text in enumerate(texts, first):
        draws = np.random.default_rng([seed, number])
        speed = float(draws.uniform(speeds[0], speeds[1]))
        voice = str(draws.choice(list(voices), p=shares))
        pitch = voices[voice]
        utterance = teacher.speak(text, speed / pitch, seed + number)
        if utterance is not None:
            yield {"id": f"{number:06d}", "text": text, "voice": voice, **vars(repitched(utterance, pitch))}


def repitched(utterance: Utterance, ratio: float) -> Utterance:
    """The utterance played `ratio` times as fast: pitch and formants move together, as for a smaller or larger speaker."""
    if ratio == 1:
        return utterance
    played = soxr.resample(as_float(utterance.audio), _SAMPLE_RATE * ratio, _SAMPLE_RATE)
    ends = np.rint(np.cumsum(utterance.phoneme_frames) / ratio).astype(int)
    return Utterance(
        _as_int16(played),
        utterance.word_chars,
        [[round(frame / ratio) for frame in span] for span in utterance.word_frames],
        utterance.phonemes,
        np.diff(ends, prepend=0).tolist(),
    )


ONE_VOICE = MappingProxyType({"heart": 1.0})
"""The teacher's own voice, at its own pitch."""


def synthesize_shards(
    texts: Sequence[str],
    folder: str | Path,
    shard_size: int,
    speeds: Sequence[float],
    seed: int,
    voices: Mapping[str, float] = ONE_VOICE,
    shares: Sequence[float] | None = None,
) -> None:
    """Writes `texts` as teacher utterances with `write_shards`, `shard_size` texts a shard.

    Each text is spoken by one of `voices`, drawn at random: their names, and their pitch as a multiple of the teacher's.
    `shares` are their parts of the texts, which add up to one; without them the parts are equal.
    """

    def make(number: int) -> Iterator[dict[str, Any]]:
        first = number * shard_size
        return _utterances(texts[first : first + shard_size], first, speeds, seed, voices, shares)

    for path, rows in write_shards(folder, -(-len(texts) // shard_size), make, FEATURES):
        minutes = sum(len(row["audio"]) for row in rows) / _SAMPLE_RATE / 60
        print(f"{path}: {len(rows)} utterances, {minutes:.1f} min", flush=True)


def write_shards(
    folder: str | Path,
    n_shards: int,
    make: Callable[[int], Iterable[dict[str, Any]]],
    features: Features | None = None,
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Saves the rows of `make(number)` as `folder/NNNNN`, a `datasets` folder a shard; yields what it has saved.

    A shard that exists is kept, so a run that was stopped goes on, and several runs may share the work: each locks the
    shard it makes, and the system takes the locks of a killed run away. A shard gets its name last, when it is whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n_shards):
        target = folder / f"{number:05d}"
        try:
            with FileLock(f"{target}.lock", timeout=0):
                if target.exists():
                    continue
                rows = list(make(number))
                draft = target.with_name(target.name + ".part")
                shutil.rmtree(draft, ignore_errors=True)
                Dataset.from_list(rows, features=features).save_to_disk(str(draft))
                draft.rename(target)
        except Timeout:
            continue
        yield target, rows


def load_shards(folder: str | Path) -> list[Dataset]:
    """The finished shards of `write_shards`, in order."""
    return [load_from_disk(str(path)) for path in sorted(Path(folder).iterdir()) if path.name.isdigit()]


def data_hash(shards: Iterable[Dataset]) -> str:
    """SHA-256 over the utterances in order: id, text and voice (UTF-8, a line each), then the samples (int16, little-endian)."""
    total = hashlib.sha256()
    for shard in shards:
        for row in shard.select_columns(["id", "text", "voice", "audio"]).with_format("numpy"):
            total.update(f"{row['id']}\n{row['text']}\n{row['voice']}\n".encode())
            total.update(np.asarray(row["audio"], "<i2").tobytes())
    return total.hexdigest()
