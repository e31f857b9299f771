"""Subtitles of a speech, by sentence or by word."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pysubs2
import sentencex

from .. import output_files
from .joining import Spoken

ENDINGS = {".srt": "srt", ".vtt": "vtt"}

By = Literal["sentence", "word"]


@dataclass(frozen=True)
class Cue:
    """What is said from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def cues_of(spoken: Spoken, by: By = "sentence") -> Iterator[Cue]:
    """The cues of one piece. Times are those of its words where they are known; else by the letters before.

    Raises:
        ValueError: `by` is neither "sentence" nor "word".
    """
    if by not in ("sentence", "word"):
        raise ValueError(f"subtitles go by sentence or word, got {by!r}")
    words = spoken.piece.text.split()
    times = _times(spoken, words)
    sizes = [1] * len(words)
    if by == "sentence":
        text = " ".join(words)
        language = spoken.piece.language or "en"
        sizes = [len(sentence.split()) for sentence in sentencex.segment(language, text) if sentence.strip()]
        if sum(sizes) != len(words):
            sizes = [len(words)]
    first = 0
    for size in sizes:
        start, end = times[first][0], times[first + size - 1][1]
        yield Cue(spoken.start + start, spoken.start + max(start, end), " ".join(words[first : first + size]))
        first += size


def _times(spoken: Spoken, words: list[str]) -> list[tuple[float, float]]:
    """[start, end) of each word in seconds of the piece's audio."""
    if spoken.words is not None and len(spoken.words) == len(words):
        return [(word.start, word.end) for word in spoken.words]
    letters = [0]
    for word in words:
        letters.append(letters[-1] + len(word) + 1)
    scale = spoken.seconds / letters[-1]
    return [(start * scale, end * scale) for start, end in zip(letters, letters[1:], strict=False)]


class SubtitleFile:
    """Collects cues and writes them.

    Raises:
        ValueError: a file that ends in neither .srt nor .vtt, or `by` that is neither "sentence" nor "word".
    """

    def __init__(self, path: str | os.PathLike[str], by: By = "sentence") -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in ENDINGS:
            raise ValueError(f"subtitles end in .srt or .vtt, got {os.fspath(path)!r}")
        if by not in ("sentence", "word"):
            raise ValueError(f"subtitles go by sentence or word, got {by!r}")
        output_files.check_writable(path)
        self.by: By = by
        self._format = ENDINGS[self.path.suffix.lower()]
        self._file = pysubs2.SSAFile()

    def add(self, spoken: Spoken) -> None:
        """Adds the cues of a piece."""
        for cue in cues_of(spoken, self.by):
            text = html.escape(cue.text, quote=False) if self._format == "vtt" else cue.text
            self._file.append(pysubs2.SSAEvent(round(cue.start * 1000), round(cue.end * 1000), text))

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        # what looks like a style of another format is text here
        output_files.write_text(self.path, self._file.to_string(self._format, keep_ssa_tags=True))
