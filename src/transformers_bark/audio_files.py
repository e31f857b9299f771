"""Writing of audio files: mono, of the kind that their ending names."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import output_files

if TYPE_CHECKING:
    import numpy as np

FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
}
"""Endings, and what libsndfile calls their container and its coding."""

MP4_FILES = (".m4a", ".m4b")
"""Endings of MP4 audio, which only `audio_streams` writes, by PyAV (extra `audio`)."""

_BLOCK = 1 << 16
"""Samples encoded at a time: libsndfile's Vorbis coder crashes on very long blocks."""


def audio_format(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Container and coding that a file's ending names; without an ending it is WAV.

    Raises:
        ValueError: an ending of another kind.
    """
    return FORMATS[audio_ending(path)]


def audio_ending(path: str | os.PathLike[str]) -> str:
    """The ending of an audio file, in lower case; without one ".wav".

    Raises:
        ValueError: an ending of another kind.
    """
    ending = Path(path).suffix.lower()
    if ending not in ("", *FORMATS):
        raise ValueError(f"the ending of an audio file must be one of {', '.join(FORMATS)}, got {os.fspath(path)!r}")
    return ending or ".wav"


def write_audio(path: str | os.PathLike[str], audio: Any, sampling_rate: int) -> Path:
    """Writes audio as a mono file of the kind that the ending names (see `FORMATS`), 16-bit where that is not compressed.

    Args:
        path: the file; without an ending it is WAV, `-` is WAV on standard output. See `output_files.open_output`.
        audio: [samples] or [1, samples] in [-1, 1]; louder samples are clipped. int16 samples are taken as they are.
        sampling_rate: samples a second.

    Raises:
        ValueError: another ending, audio of another shape, samples that are not numbers, or a rate that the format lacks.
        OSError: the file cannot be written; the error names it.
    """
    container, coding = audio_format(path)
    content = encode(as_samples(audio), sampling_rate, container, coding)
    output_files.write_bytes(path, content)
    return Path(path)


def write_wav(path: str | os.PathLike[str], audio: Any, sampling_rate: int) -> Path:
    """`write_audio` as WAV, whatever the ending."""
    output_files.write_bytes(path, encode(as_samples(audio), sampling_rate, *FORMATS[".wav"]))
    return Path(path)


def as_samples(audio: Any) -> np.ndarray:
    """Audio as float32 [samples] in [-1, 1]."""
    import numpy as np

    if hasattr(audio, "detach"):  # a tensor, known without torch
        audio = audio.detach().cpu()
        audio = audio.float() if audio.dtype.is_floating_point else audio
    array = np.asarray(audio)
    array = array.astype(np.float32) / 32768 if array.dtype == np.int16 else array.astype(np.float32)
    array = array[0] if array.ndim == 2 and len(array) == 1 else array
    if array.ndim != 1:
        raise ValueError(f"audio must have the shape [samples], got {tuple(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(
            f"audio must be numbers, got {np.count_nonzero(~np.isfinite(array))} samples that are NaN or infinite"
        )
    return np.clip(array, -1.0, 1.0)


def as_int16(audio: np.ndarray) -> np.ndarray:
    """float32 [samples] in [-1, 1] -> int16, louder samples clipped."""
    return (audio * 32768.0).round().clip(-32768, 32767).astype("int16")


def encode(samples: np.ndarray, sampling_rate: int, container: str, coding: str) -> bytes:
    """float32 [samples] -> the bytes of a file. In memory, as libsndfile hides the errors of a file that it writes to."""
    import soundfile  # speaking without writing files needs no libsndfile

    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(
            buffer, "w", samplerate=sampling_rate, channels=1, format=container, subtype=coding
        ) as file:
            for start in range(0, len(samples), _BLOCK):
                file.write(samples[start : start + _BLOCK])
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{container} with {coding} cannot hold audio of {sampling_rate} samples a second ({error})"
        ) from error
    return buffer.getvalue()
