"""The recordings that the detector learns from: what each family is, where it comes from, and clips of it.

A family is what is left out as a whole: a Debian package (all of its speakers), a generator, or a source of Bark's audio. Nothing
here needs root: packages are fetched with `apt-get download` and unpacked into a folder.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import os
import random
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from . import conditions

HUMAN = {
    "asterisk": "asterisk-core-sounds-{en,es,fr,it,ru}-{g722,wav}",
    "menardi": "asterisk-prompt-it-menardi-wav",
    "klettres": "klettres-data",
    "ktuberling": "ktuberling-data",
    "hedgewars": "hedgewars-data",
    "fillets-cs": "fillets-ng-data-cs",
    "fillets-nl": "fillets-ng-data-nl",
    "tuxpaint": "tuxpaint-stamps-default",
    "warzone": "warzone2100-data",
    "msu-ru": "festvox-ru",
    "pocketsphinx": "pocketsphinx-testdata",
}
"""Families of people's voices, and the Debian packages that carry them."""

SOUNDS = {
    "frozen-bubble": "frozen-bubble-data",
    "etr": "extremetuxracer-data",
    "endless-sky": "endless-sky-data",
    "moh": "asterisk-moh-opsound-wav",
    "openarena": "openarena-data",
}
"""Families of music and sounds of games, and their packages."""

VOICES = {
    "espeak-ng": ("en-us", "en-gb", "de", "fr", "es", "it", "ru", "pl", "en-us+f3", "pt", "tr", "hi"),
    "flite": ("kal", "kal16", "awb", "rms", "slt"),
    "festival": ("kal_diphone", "ked_diphone", "cmu_us_slt_arctic_hts"),
    "hibari": ("heart",),
}
"""Synthesizers that are not Bark, and their voices. Those that are not installed are passed over."""

_SOUND = (".wav", ".ogg", ".oga", ".mp3", ".flac", ".opus", ".g722")
_SHORTEST = 0.4  # seconds of a file below which it says nothing


@dataclass(frozen=True)
class Clip:
    """A piece of audio and what is known of it.

    Args:
        audio: [samples], int16.
        rate: samples a second.
        family: what is left out together.
        group: a finer name: the speaker, the file's folder or the voice.
        positive: whether a Bark codec made it.
    """

    audio: np.ndarray
    rate: int
    family: str
    group: str
    positive: bool


def expand(packages: str) -> list[str]:
    """Names of packages, with braces as in a shell: "a-{b,c}" -> ["a-b", "a-c"]."""
    names = []
    for name in packages.split():
        parts = [part.split(",") for part in re.split(r"[{}]", name)]
        names += ["".join(choice) for choice in itertools.product(*parts)]
    return names


def fetch(packages: str, cache: Path, allowed: bool = True) -> list[Path]:
    """Unpacks Debian packages below `cache`, each into a folder of its own, if they are not there yet.

    Returns:
        Folders of those that could be had; without `allowed`, of those that are there.
    """
    folders = []
    for name in expand(packages):
        folder = cache / "packages" / name
        if allowed and not folder.is_dir() and shutil.which("apt-get") and shutil.which("dpkg-deb"):
            work = cache / "downloads"
            work.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", name], cwd=work, capture_output=True, check=False)
            for archive in work.glob(f"{name}_*.deb"):
                part = folder.with_name(f"{name}.part")
                part.mkdir(parents=True, exist_ok=True)
                subprocess.run(["dpkg-deb", "-x", archive, part], check=True)
                part.rename(folder)
                archive.unlink()
        if folder.is_dir():
            folders.append(folder)
    return folders


def read(source: str | Path | io.BytesIO, ending: str = "") -> tuple[np.ndarray, int]:
    """Audio of a file as mono float32 [samples], and its rate."""
    ending = ending or Path(str(source)).suffix
    if ending != ".g722":
        audio, rate = soundfile.read(source, dtype="float32", always_2d=True)
        return audio.mean(1), rate
    with av.open(str(source), format="g722") as container:
        parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(parts).astype(np.float32) / 32768, 16000


def _files(folder: Path) -> Iterator[tuple[str, str | Path | io.BytesIO, str]]:
    """Name of the folder, source and ending of each sound below a folder, archives of games included."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in _SOUND and path.is_file():
            yield str(path.parent.relative_to(folder)), path, path.suffix
        elif path.suffix in (".wz", ".pk3") and path.is_file():
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    if name.endswith(_SOUND):
                        yield str(Path(name).parent), io.BytesIO(archive.read(name)), Path(name).suffix


def clips_of_files(family: str, folders: list[Path], n_clips: int, seed: int) -> list[Clip]:
    """Clips of 1.5 to 14 seconds: files of one folder one after another, as most say a word or two."""
    chance = random.Random(f"{family} {seed}")
    by_group: dict[str, list[tuple[str | Path | io.BytesIO, str]]] = {}
    for folder in folders:
        for group, source, ending in _files(folder):
            by_group.setdefault(f"{folder.name}/{group}", []).append((source, ending))
    groups = sorted(by_group)
    clips: list[Clip] = []
    for _ in range(4 * n_clips):
        if not groups or len(clips) == n_clips:
            break
        group = chance.choice(groups)
        clip = _clip(by_group[group], chance)
        if clip is not None:
            clips.append(Clip(*clip, family, group, False))
    return clips


def _clip(files: list[tuple[str | Path | io.BytesIO, str]], chance: random.Random) -> tuple[np.ndarray, int] | None:
    wanted = chance.uniform(1.5, 14)
    parts: list[np.ndarray] = []
    rate = 0
    for source, ending in chance.sample(files, min(len(files), 30)):
        if isinstance(source, io.BytesIO):
            source.seek(0)
        try:
            audio, its_rate = read(source, ending)
        except (soundfile.LibsndfileError, av.FFmpegError, ValueError):
            continue
        if len(audio) < _SHORTEST * its_rate or np.abs(audio).max() < 1e-3 or rate not in (0, its_rate):
            continue
        rate = its_rate
        length = int(wanted * rate)
        start = chance.randrange(max(1, len(audio) - length))
        parts.append(audio[start : start + length])
        if sum(map(len, parts)) >= length:
            break
    if not parts or sum(map(len, parts)) < rate:
        return None
    return _int16(np.concatenate(parts)[: int(wanted * rate)]), rate


def synthesize(generator: str, voice: str, text: str, path: Path) -> bool:
    """Lets a synthesizer speak into a WAV file; False where it or the voice is not there."""
    if generator == "hibari":
        try:
            from hibari import Hibari
        except ImportError:
            return False
        speaker = _SPEAKERS.get(voice) or _SPEAKERS.setdefault(voice, Hibari(voice))
        soundfile.write(path, speaker(text), speaker.sample_rate)
        return True
    if shutil.which(generator) is None:
        return False
    if generator == "festival":
        spoken = text.replace("\\", "").replace('"', "")
        save = f'(utt.save.wave (utt.synth (Utterance Text "{spoken}")) "{path}" \'riff)'
        command = ["festival", "-b", f"(voice_{voice})", save]
    elif generator == "espeak-ng":
        command = ["espeak-ng", "-v", voice, "-w", str(path), text]
    else:
        command = ["flite", "-voice", voice, "-o", str(path), "-t", text]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode == 0 and path.is_file() and path.stat().st_size > 1000


_SPEAKERS: dict[str, Any] = {}


def synthetic_clips(generator: str, n_clips: int, seed: int, work: Path) -> list[Clip]:
    """Clips of a synthesizer, by voice in turn; none where it is not there."""
    work.mkdir(parents=True, exist_ok=True)
    clips = []
    voices = VOICES[generator]
    for number, text in enumerate(sentences(n_clips, f"{generator} {seed}")):
        voice, path = voices[number % len(voices)], work / f"{generator}-{seed}-{number}.wav"
        if path.is_file() or synthesize(generator, voice, text, path):
            audio, rate = read(path)
            clips.append(Clip(_int16(audio), rate, generator, f"{generator}/{voice}", False))
    return clips


def sentences(n: int, seed: str) -> list[str]:
    """Sentences of the embedded checkpoint's corpus, by chance."""
    with gzip.open(Path(__file__).parents[1] / "nano" / "corpus.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file if 20 < len(line) < 140]
    return random.Random(seed).sample(lines, n)


def noise_clips(n_clips: int, seed: int) -> list[Clip]:
    """White, pink and brown noise, hum, tones, and combs of lines whose period is no codec's of Bark."""
    chance = np.random.default_rng(seed)
    clips = []
    for number in range(n_clips):
        rate = int(chance.choice([16000, 22050, 24000, 44100, 48000]))
        n = int(rate * chance.uniform(1.5, 8))
        kind = ("white", "pink", "brown", "hum", "tones", "comb")[number % 6]
        audio = _noise(kind, n, rate, chance)
        audio *= 10 ** chance.uniform(-2, -0.1) / np.abs(audio).max()
        clips.append(Clip(_int16(audio), rate, "noise", f"noise/{kind}", False))
    return clips


def _noise(kind: str, n: int, rate: int, chance: np.random.Generator) -> np.ndarray:
    white = chance.standard_normal(n)
    if kind in ("white", "pink", "brown"):
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        frequencies = np.maximum(np.fft.rfftfreq(n, 1 / rate), 20)
        return np.fft.irfft(np.fft.rfft(white) / frequencies**slope, n)
    if kind == "tones":
        audio = 0.01 * white
        for _ in range(6):
            audio += np.sin(2 * np.pi * chance.uniform(50, rate / 2) * np.arange(n) / rate + chance.uniform(0, 6))
        return audio
    base = float(chance.choice((50.0, 60.0))) if kind == "hum" else float(chance.choice(conditions.OTHER_COMBS))
    return 0.3 * white + conditions.lines_of(base, n, rate, chance, decay=1.0 if kind == "hum" else 0.0)


def embedded_clips(n_clips: int, seed: int) -> list[Clip]:
    """The embedded checkpoint's speech, in each of its voices and in none."""
    import transformers_bark
    from transformers_bark import BarkModel, BarkProcessor

    processor = BarkProcessor.from_pretrained(transformers_bark.BARK_NANO)
    model = BarkModel.from_pretrained(transformers_bark.BARK_NANO).eval()
    rate = model.generation_config.sample_rate
    voices = [None, *sorted(processor.available_voice_presets)]
    clips = []
    for number, text in enumerate(sentences(n_clips, f"embedded {seed}")):
        voice = voices[number % len(voices)]
        inputs = processor(text, voice_preset=voice)
        audio = model.generate(**inputs, do_sample=True, seed=seed + number)[0].numpy()
        clips.append(Clip(_int16(audio), rate, f"embedded {voice or 'no voice'}", f"embedded/{voice}", True))
    return clips


def through_codec(clips: list[Clip]) -> list[Clip]:
    """The same recordings, encoded and decoded by the embedded checkpoint's codec. They stay in their families."""
    import soxr
    import torch

    import transformers_bark
    from transformers_bark import BarkModel, codec

    model = BarkModel.from_pretrained(transformers_bark.BARK_NANO).codec_model.eval()
    rate = model.config.sampling_rate
    made = []
    for clip in clips:
        audio = soxr.resample(clip.audio.astype(np.float32) / 32768, clip.rate, rate)
        with torch.no_grad():
            codes = codec.encode_recording(model, torch.from_numpy(audio))
            decoded = codec.decode(model, [codes])[0].numpy()
        made.append(Clip(_int16(decoded), rate, clip.family, f"codec/{clip.group}", True))
    return made


def _int16(audio: np.ndarray) -> np.ndarray:
    peak = max(1.0, float(np.abs(audio).max(initial=0)))
    return np.round(audio / peak * 32767).astype(np.int16)


def bark_recordings(folder: str | os.PathLike[str]) -> list[Clip]:
    """Audio of the released models: a folder with `index.csv` (columns `file` and `source`) and the files."""
    clips = []
    with open(Path(folder) / "index.csv", newline="") as file:
        for row in csv.DictReader(file):
            audio, rate = read(Path(folder) / row["file"])
            clips.append(Clip(_int16(audio), rate, f"bark-{int(row['source']):02d}", row["file"], True))
    return clips
