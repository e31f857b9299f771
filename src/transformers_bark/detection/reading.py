"""Audio of any file, as mono pieces at the rate that is asked for, in memory that does not grow with the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import input_files

ENDINGS = frozenset(
    [
        ".aac",
        ".ac3",
        ".aif",
        ".aiff",
        ".amr",
        ".au",
        ".avi",
        ".caf",
        ".flac",
        ".m4a",
        ".m4b",
        ".m4v",
        ".mka",
        ".mkv",
        ".mov",
        ".mp2",
        ".mp3",
        ".mp4",
        ".oga",
        ".ogg",
        ".opus",
        ".wav",
        ".w64",
        ".weba",
        ".webm",
        ".wma",
        ".wv",
    ]
)
"""Endings of the files that are taken from a folder; a file that is named itself may have any."""

_BLOCK = 1 << 16  # samples read at a time


def find_files(paths: list[str]) -> list[Path]:
    """The files that paths stand for: files as they are, folders with all that they hold below them, patterns with `*`.

    Raises:
        FileNotFoundError: nothing is there by that name.
        ValueError: a folder without audio, or a pattern that nothing fits.
    """
    found: list[Path] = []
    for name in paths:
        path = Path(name)
        if path.is_dir():
            inside = sorted(one for one in path.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
            if not inside:
                raise ValueError(f"the folder {name} holds no audio files")
            found += inside
        elif path.exists():
            found.append(path)
        elif any(mark in name for mark in "*?["):
            found += _matching(name)
        else:
            raise FileNotFoundError(f"there is no file {name}")
    return list(dict.fromkeys(found))


def _matching(pattern: str) -> list[Path]:
    import glob

    files = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if os.path.isfile(name))
    if not files:
        raise ValueError(f"no file fits {pattern}")
    return files


def read_pieces(path: str | os.PathLike[str] | io.BytesIO, rate: int) -> Iterator[np.ndarray]:
    """Audio of a file in pieces, float32 [samples], channels averaged, at `rate` samples a second.

    libsndfile reads what it knows, PyAV (extra `audio`) everything else.

    Raises:
        ValueError: neither can read the file, or it holds no audio; the error names it.
        OSError: the file cannot be opened.
    """
    if isinstance(path, io.BytesIO):
        name = "the file in memory"
    else:
        name = os.fspath(path)
        input_files.check_file(path)
    n_samples = 0
    for piece in _resampled(_decoded(path, name), rate):
        n_samples += len(piece)
        yield piece
    if not n_samples:
        raise ValueError(f"{name} holds no audio")


def resample(audio: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Audio float32 [samples] at another rate."""
    if rate == new_rate:
        return audio
    import soxr

    return soxr.resample(audio, rate, new_rate)


def _resampled(pieces: Iterator[tuple[np.ndarray, int]], rate: int) -> Iterator[np.ndarray]:
    stream, its_rate = None, 0
    for mono, from_rate in pieces:
        if from_rate != its_rate:
            if stream is not None:
                yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
            its_rate, stream = from_rate, _resampler(from_rate, rate)
        done = mono if stream is None else stream.resample_chunk(mono)
        if len(done):
            yield done
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _resampler(rate: int, new_rate: int) -> Any:
    if rate == new_rate:
        return None
    import soxr

    return soxr.ResampleStream(rate, new_rate, 1, dtype="float32")


def _decoded(path: Any, name: str) -> Iterator[tuple[np.ndarray, int]]:
    """Mono pieces and their rate."""
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        if isinstance(path, io.BytesIO):
            path.seek(0)
        yield from _decoded_by_av(path, name, error)
        return
    with file:
        try:
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                yield _checked(block.mean(1), name), file.samplerate
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{name} is damaged: {error}") from error


def _decoded_by_av(path: Any, name: str, reason: Exception) -> Iterator[tuple[np.ndarray, int]]:
    try:
        import av
    except ImportError:
        raise ValueError(
            f"{name} cannot be read ({reason}); other formats need PyAV: pip install 'transformers-bark[audio]'"
        ) from reason
    try:
        in_memory = isinstance(path, io.BytesIO)
        source: Any = path if in_memory else os.fspath(path)
        # a playlist would have FFmpeg open the files and addresses that it names
        with av.open(source, "r", options={"protocol_whitelist": "none" if in_memory else "file"}) as container:
            if not container.streams.audio:
                raise ValueError(f"{name} holds no audio")
            to_float = av.AudioResampler(format="flt", layout="mono")
            for frame in container.decode(audio=0):
                for part in to_float.resample(frame):
                    yield _checked(part.to_ndarray().reshape(-1), name), part.sample_rate
    except av.FFmpegError as error:
        raise ValueError(f"{name} is not audio, or damaged: {error.strerror or error}") from error


def _checked(samples: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(samples).all():
        raise ValueError(f"{name} holds samples that are NaN or infinite")
    return np.ascontiguousarray(samples, dtype=np.float32)
