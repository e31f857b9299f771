"""What happens to audio on its way: coding, resampling, noise, a room. For training and for measuring alike."""

from __future__ import annotations

import io

import av
import numpy as np
import soxr
from scipy.signal import fftconvolve

_MPEG_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)

CONDITIONS = (
    "clean",
    "mp3 64 kbit/s",
    "opus 24 kbit/s",
    "aac 64 kbit/s",
    "16 kHz",
    "8 kHz",
    "44.1 kHz",
    "noise 20 dB",
    "noise 10 dB",
    "room",
    "gain -20 dB",
    "crop 1 s",
    "speed +5 %",
    "speed -5 %",
)
"""Each is measured alone."""

FOR_TRAINING = ("mix", "lines")
"""What training adds: several of these at once, and lines that are not Bark's."""

OTHER_COMBS = (50.0, 60.0, 62.5, 80.0, 86.1328125, 93.75, 100.0, 125.0, 172.265625, 187.5)
"""Frame rates of other vocoders, and of the mains."""


def apply(name: str, audio: np.ndarray, rate: int, chance: np.random.Generator) -> tuple[np.ndarray, int]:
    """Audio float32 [samples] under a condition of `CONDITIONS`, or of `FOR_TRAINING`; as 16 bits hold it."""
    changed, rate = _change(name, audio, rate, chance)
    return (np.round(np.clip(changed, -1, 1) * 32767) / 32767).astype(np.float32), rate


def _change(name: str, audio: np.ndarray, rate: int, chance: np.random.Generator) -> tuple[np.ndarray, int]:
    kind, _, value = name.partition(" ")
    if name == "mix":
        return _mix(audio, rate, chance)
    if name == "lines":
        return with_lines(audio, rate, chance), rate
    if kind in ("mp3", "opus", "aac"):
        return recode(audio, rate, kind, int(value.split()[0]) * 1000)
    if value == "kHz":
        new = round(float(kind) * 1000)
        return soxr.resample(audio, rate, new), new
    if kind == "noise":
        return noisy(audio, float(value.split()[0]), chance), rate
    if kind == "room":
        return in_room(audio, rate, chance), rate
    if kind == "gain":
        return audio * 10 ** (float(value.split()[0]) / 20), rate
    if kind == "crop":
        return crop(audio, int(float(value.split()[0]) * rate), chance), rate
    if kind == "speed":
        return soxr.resample(audio, rate * (1 + float(value.split()[0]) / 100), rate), rate
    if name == "clean":
        return audio, rate
    raise ValueError(f"there is no condition {name!r}; there are {', '.join((*CONDITIONS, *FOR_TRAINING))}")


def _mix(audio: np.ndarray, rate: int, chance: np.random.Generator) -> tuple[np.ndarray, int]:
    """Two or three changes, of strengths by chance. The speed stays."""
    audio = audio * 10 ** chance.uniform(-1, 0.2)
    first = chance.choice(["none", "room", "noise", "band"])
    if first == "room":
        audio = in_room(audio, rate, chance, chance.uniform(0.15, 0.8))
    elif first == "noise":
        audio = noisy(audio, chance.uniform(8, 35), chance, pink=bool(chance.integers(2)))
    elif first == "band":
        new = int(chance.choice([8000, 11025, 16000, 22050, 44100, 48000]))
        audio, rate = soxr.resample(audio, rate, new), new
    second = chance.choice(["none", "mp3", "opus", "aac"])
    if second != "none":
        bits = int(chance.choice([32, 48, 64, 96, 128])) if second != "opus" else int(chance.choice([12, 16, 24, 48]))
        audio, rate = recode(audio, rate, str(second), bits * 1000)
    return audio, rate


def noisy(audio: np.ndarray, decibels: float, chance: np.random.Generator, pink: bool = False) -> np.ndarray:
    """With noise so many dB below the audio's level."""
    noise = chance.standard_normal(len(audio))
    if pink:
        noise = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(np.maximum(1, np.arange(len(audio) // 2 + 1))), len(audio))
    level = np.sqrt(np.mean(audio**2) / (np.mean(noise**2) + 1e-20) + 1e-20)
    return (audio + noise * level * 10 ** (-decibels / 20)).astype(np.float32)


def in_room(audio: np.ndarray, rate: int, chance: np.random.Generator, decay: float = 0.4) -> np.ndarray:
    """With a room's response: the direct sound, and noise that falls by 60 dB in `decay` seconds, as loud in sum."""
    n = int(1.2 * decay * rate)
    tail = chance.standard_normal(n) * 10 ** (-3 * np.arange(n) / (decay * rate))
    tail[: int(0.003 * rate)] = 0
    tail /= np.sqrt(np.sum(tail**2))
    tail[0] = 1
    wet = fftconvolve(audio, tail)[: len(audio)]
    return (wet * (np.abs(audio).max() / max(np.abs(wet).max(), 1e-9))).astype(np.float32)


def with_lines(audio: np.ndarray, rate: int, chance: np.random.Generator) -> np.ndarray:
    """With the lines of the mains or of another vocoder, 0 to 55 dB below the audio's level."""
    base = float(chance.choice(OTHER_COMBS)) if chance.random() < 0.7 else _other_rate(chance)
    level = np.sqrt(np.mean(audio**2)) * 10 ** (-chance.uniform(0, 55) / 20)
    return audio + level * lines_of(base, len(audio), rate, chance, decay=float(chance.choice([0.0, 0.5, 1.0])))


def _other_rate(chance: np.random.Generator) -> float:
    """A frame rate from 45 to 200 Hz, and not within 6 % of 75 Hz."""
    while True:
        rate = float(chance.uniform(45, 200))
        if abs(rate / 75 - 1) > 0.06:
            return rate


def lines_of(base: float, n: int, rate: int, chance: np.random.Generator, decay: float = 0.0) -> np.ndarray:
    """Lines at the multiples of `base` Hz with chance phases, falling as 1 / k ** decay; RMS 1."""
    spectrum = np.zeros(n // 2 + 1, complex)
    count = int(rate / 2 / base)
    for k in range(1, count):
        spectrum[round(k * base * n / rate)] = (
            chance.standard_normal() / k**decay * np.exp(1j * chance.uniform(0, 6.28))
        )
    audio = np.fft.irfft(spectrum, n)
    return audio / np.sqrt(np.mean(audio**2) + 1e-20)


def crop(audio: np.ndarray, n: int, chance: np.random.Generator) -> np.ndarray:
    """The loudest of three pieces of `n` samples by chance, so that it is not a pause."""
    starts = chance.integers(0, max(1, len(audio) - n + 1), 3)
    start = max(starts, key=lambda start: float(np.abs(audio[start : start + n]).sum()))
    return audio[start : start + n]


def recode(audio: np.ndarray, rate: int, kind: str, bits: int) -> tuple[np.ndarray, int]:
    """Through an encoder and its decoder; a rate that it lacks becomes the nearest that it has."""
    name, container = {"mp3": ("libmp3lame", "mp3"), "opus": ("libopus", "ogg"), "aac": ("aac", "adts")}[kind]
    rates = _OPUS_RATES if kind == "opus" else _MPEG_RATES
    new = min((one for one in rates if one >= rate), default=rates[-1])
    if new != rate:
        audio = soxr.resample(audio, rate, new)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(name, rate=new, layout="mono", options={"strict": "experimental"})
        stream.bit_rate = bits
        samples = np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = new
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    buffer.seek(0)
    with av.open(buffer) as file:
        to_float = av.AudioResampler(format="flt", layout="mono")
        frames = [part for frame in file.decode(audio=0) for part in to_float.resample(frame)]
    return np.concatenate([part.to_ndarray().reshape(-1) for part in frames]), frames[0].sample_rate
