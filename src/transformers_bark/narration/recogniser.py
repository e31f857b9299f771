"""What a recogniser hears in a piece: faster-whisper with a model that lies in a local folder (extra `verify`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import regex

from .checks import Doubt

_RATE = 16_000
_MOST_WRONG = 0.25
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")


class Recogniser:
    """Compares what is heard with the text.

    Args:
        folder: of a faster-whisper (CTranslate2) model.
        threads: of the recogniser.
        most_wrong: share of words that may be heard otherwise.

    Raises:
        ImportError: faster-whisper is not there.
        FileNotFoundError: there is no such folder; nothing is downloaded.
    """

    def __init__(self, folder: str | os.PathLike[str], threads: int = 0, most_wrong: float = _MOST_WRONG) -> None:
        try:
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise ImportError("`verify` needs faster-whisper: pip install 'transformers-bark[verify]'") from error
        if not (Path(folder) / "model.bin").is_file():
            raise FileNotFoundError(f"{os.fspath(folder)} is no folder of a faster-whisper model: it has no model.bin")
        self._model: Any = WhisperModel(os.fspath(folder), device="auto", compute_type="int8", cpu_threads=threads)
        self._most_wrong = most_wrong

    def __call__(self, text: str, audio: np.ndarray, sampling_rate: int, language: str | None) -> list[Doubt]:
        """What is heard too differently, if anything."""
        heard = self.hear(audio, sampling_rate, language)
        wrong = share_wrong(text, heard, language)
        if wrong <= self._most_wrong:
            return []
        return [Doubt("words", f"heard as {heard!r}", 1 + 10 * min(wrong, 2.0))]

    def hear(self, audio: np.ndarray, sampling_rate: int, language: str | None) -> str:
        """The words of audio, float32 [samples]."""
        import soxr

        resampled = soxr.resample(audio, sampling_rate, _RATE).astype(np.float32)
        segments, _ = self._model.transcribe(
            resampled, language=language or "en", beam_size=5, temperature=0.0, condition_on_previous_text=False
        )
        return " ".join(segment.text.strip() for segment in segments)


def share_wrong(text: str, heard: str, language: str | None) -> float:
    """Words (or characters, where words are not spaced) that are missing, added or others, as a share of those of the text."""
    import jiwer

    wanted, got = plain(text, language), plain(heard, language)
    if not wanted:
        return 0.0
    if _UNSPACED.search(wanted):
        return float(jiwer.cer(wanted.replace(" ", ""), got.replace(" ", "")))
    return float(jiwer.wer(wanted, got))


def plain(text: str, language: str | None) -> str:
    """Words without case and punctuation; of English, numbers and contractions in one way. What is in brackets is not read."""
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    text = regex.sub(r"\[[^\[\]]*\]|♪", " ", text)
    normalize = EnglishTextNormalizer({}) if (language or "en") == "en" else BasicTextNormalizer()
    return " ".join(normalize(text).split())
