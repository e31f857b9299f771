"""Finished pieces -> one speech: pauses, fades at the seams, even levels, and the times of subtitles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .alignment import Word
from .checks import Doubt
from .pieces import Piece
from .speaking import Finished

_PAUSES = {"chapter": 1.5, "paragraph": 0.8, "line": 0.5, "word": 0.04, "grapheme": 0.0}
"""Seconds behind pieces that end so, where no mark gives them."""

_STOP_PAUSES = {".": 0.4, "!": 0.4, "?": 0.4, "…": 0.5, "。": 0.4, "！": 0.4, "？": 0.4, "।": 0.4, ":": 0.3, ";": 0.3}
"""Seconds behind a sentence or clause, by the stop at its end."""

_SENTENCE, _CLAUSE = 0.35, 0.15
_CLOSING = "\"'”’»)]}*_"
_FADE = 0.005
_LEAST_MEASURED = 0.4  # seconds: the block of the loudness measure
_HIGHEST_PEAK = 0.97
_LATE = 0.05  # seconds that a cue may begin late, and a piece run over


@dataclass(frozen=True, eq=False)
class Spoken:
    """A piece in its place.

    Args:
        piece: what is said.
        audio: float32 [samples].
        sampling_rate: samples a second.
        start: seconds from the beginning of the whole.
        silence_before: seconds between it and the piece before.
        words: when each word is said, in seconds of `audio`; `None` where that is not known.
        doubts: what speaks against it.
        seed: that of the generation.
        takes: how often it was said.
        speed: what it was sped up by, to fit its slot.
    """

    piece: Piece
    audio: np.ndarray
    sampling_rate: int
    start: float
    silence_before: float
    words: tuple[Word, ...] | None
    doubts: tuple[Doubt, ...]
    seed: int
    takes: int
    speed: float = 1.0

    @property
    def seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / self.sampling_rate

    @property
    def end(self) -> float:
        """Seconds from the beginning of the whole."""
        return self.start + self.seconds

    @property
    def is_doubtful(self) -> bool:
        """Whether anything speaks against it."""
        return any(doubt.weight for doubt in self.doubts)


def audio_of(spoken: Iterable[Spoken]) -> list[np.ndarray]:
    """Pieces in their places -> the parts of the whole in order, float32 [samples]: silences and speech."""
    parts = []
    for one in spoken:
        parts += [np.zeros(round(one.silence_before * one.sampling_rate), np.float32), one.audio]
    return parts


def pause_after(piece: Piece) -> float:
    """Seconds of silence behind a piece: as given, else by what ends it."""
    if piece.pause_after is not None:
        return piece.pause_after
    if piece.boundary in _PAUSES:
        return _PAUSES[piece.boundary]
    return _STOP_PAUSES.get(piece.text.rstrip(_CLOSING)[-1:], _CLAUSE if piece.boundary == "clause" else _SENTENCE)


def final_pause(last: Piece) -> float:
    """Seconds of silence behind the last piece of all: those of a mark in the text."""
    return pause_after(last) if "[pause" in last.gap.lower() else 0.0


@dataclass(frozen=True)
class Joiner:
    """Puts pieces one after the other.

    Args:
        sampling_rate: samples a second.
        loudness: LUFS of every piece; `None` leaves levels alone.
        most_speed: how much a cue's speech may be sped up to fit before the next cue; 1 leaves it alone.

    Raises:
        ValueError: a loudness or speed that makes no sense.
    """

    sampling_rate: int
    loudness: float | None = None
    most_speed: float = 1.0

    def __post_init__(self) -> None:
        if self.loudness is not None and not -60 <= self.loudness <= 0:
            raise ValueError(f"`loudness` is {self.loudness}; expected LUFS from -60 to 0, such as -18")
        if not 1 <= self.most_speed <= 2:
            raise ValueError(f"`max_speed` is {self.most_speed}; expected 1 to 2, such as 1.25")

    def join(self, finished: Iterable[tuple[Piece, Finished]], lead: float = 0.0) -> Iterator[Spoken]:
        """Pieces in order -> the same in their places; of a cue with times, when all of its pieces are there."""
        end, pause = 0, round(lead * self.sampling_rate)
        for group, until in self._cues(finished):
            group = [(piece, self._even(one)) for piece, one in group]
            start = group[0][0].start
            if start is not None:
                pause = max(0, round(start * self.sampling_rate) - end)
            for piece, one, speed in self._fit(group, end + pause, until):
                audio = faded(one.audio, self.sampling_rate)
                yield Spoken(
                    piece,
                    audio,
                    self.sampling_rate,
                    (end + pause) / self.sampling_rate,
                    pause / self.sampling_rate,
                    one.words,
                    one.doubts,
                    one.seed,
                    one.takes,
                    speed,
                )
                end += pause + len(audio)
                pause = round(pause_after(piece) * self.sampling_rate)

    def _cues(
        self, finished: Iterable[tuple[Piece, Finished]]
    ) -> Iterator[tuple[list[tuple[Piece, Finished]], float | None]]:
        """The pieces of one cue and when the next begins; of pieces without times, one alone."""
        cue: list[tuple[Piece, Finished]] = []
        for piece, one in finished:
            if piece.start is not None or piece.end is None:
                if cue:
                    yield cue, piece.start
                cue = []
            if piece.end is None:
                yield [(piece, one)], None
            else:
                cue.append((piece, one))
        if cue:
            yield cue, None

    def _fit(
        self, cue: list[tuple[Piece, Finished]], start: int, until: float | None
    ) -> list[tuple[Piece, Finished, float]]:
        """A cue that ends before the next begins, as far as its speed may change; what is too long says so."""
        if until is None:
            return [(piece, one, 1.0) for piece, one in cue]
        spoken = sum(len(one.audio) for _, one in cue)
        pauses = sum(round(pause_after(piece) * self.sampling_rate) for piece, _ in cue[:-1])
        room = round(until * self.sampling_rate) - start
        over = spoken + pauses - room
        speed = 1.0
        if over > 0 and self.most_speed > 1:
            speed = min(self.most_speed, spoken / max(1, room - pauses)) if room > pauses else self.most_speed
            cue = [(piece, sped_up(one, self.sampling_rate, speed)) for piece, one in cue]
            over = sum(len(one.audio) for _, one in cue) + pauses - room
        if over > _LATE * self.sampling_rate:
            doubt = Doubt("slot", f"{over / self.sampling_rate:.2f} s longer than there is until the next cue")
            cue[-1] = (cue[-1][0], replace(cue[-1][1], doubts=(*cue[-1][1].doubts, doubt)))
        return [(piece, one, speed) for piece, one in cue]

    def _even(self, one: Finished) -> Finished:
        """A piece of the wanted loudness, as far as its peaks have room."""
        if self.loudness is None or not len(one.audio):
            return one
        meter = _meter(self.sampling_rate)
        audio = one.audio
        repeats = -(-int(_LEAST_MEASURED * self.sampling_rate + 1) // len(audio))
        loudness = meter.integrated_loudness(np.tile(audio, repeats).astype(np.float64))
        if not np.isfinite(loudness):
            return one
        gain = min(10 ** ((self.loudness - loudness) / 20), _HIGHEST_PEAK / max(1e-6, float(np.abs(audio).max())))
        return replace(one, audio=(audio * np.float32(gain)).astype(np.float32))


def _meter(sampling_rate: int) -> Any:
    try:
        import pyloudnorm
    except ImportError as error:
        raise ImportError("`loudness` needs pyloudnorm: pip install 'transformers-bark[audio]'") from error
    return pyloudnorm.Meter(sampling_rate)


def faded(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Audio that comes from silence and goes there in a few milliseconds, so that no seam clicks."""
    length = min(round(_FADE * sampling_rate), len(audio) // 2)
    if not length:
        return audio
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)
    out = audio.copy()
    out[:length] *= ramp
    out[-length:] *= ramp[::-1]
    return out


def sped_up(one: Finished, sampling_rate: int, speed: float) -> Finished:
    """A piece said faster at the same pitch, by FFmpeg's `atempo` through PyAV.

    Raises:
        ImportError: PyAV is not there.
    """
    if speed == 1 or not len(one.audio):
        return one
    audio = at_speed(one.audio, sampling_rate, speed)
    words = one.words and tuple(replace(word, start=word.start / speed, end=word.end / speed) for word in one.words)
    return replace(one, audio=audio, words=words)


def at_speed(audio: np.ndarray, sampling_rate: int, speed: float) -> np.ndarray:
    """Audio, float32 [samples], so many times as fast at the same pitch: as many samples as that says, to one.

    By FFmpeg's `atempo`, which blends between a half and twice the speed; beyond them it is taken several times.

    Raises:
        ImportError: PyAV is not there.
    """
    length = round(len(audio) / speed)
    if speed == 1 or not len(audio):
        return audio
    n_times = max(1, math.ceil(abs(math.log2(speed)) - 1e-9))
    for _ in range(n_times):
        audio = _atempo(audio, sampling_rate, speed ** (1 / n_times))
    return np.pad(audio[:length], (0, max(0, length - len(audio))))


def _atempo(audio: np.ndarray, sampling_rate: int, speed: float) -> np.ndarray:
    try:
        import av
    except ImportError as error:
        raise ImportError("another speed needs PyAV: pip install 'transformers-bark[audio]'") from error
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=sampling_rate, format="flt", layout="mono")
    tempo = graph.add("atempo", f"{speed:.6f}")
    sink = graph.add("abuffersink")
    source.link_to(tempo)
    tempo.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(audio[None], np.float32), format="flt", layout="mono")
    frame.sample_rate = sampling_rate
    graph.push(frame)
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray().reshape(-1))
        except (av.error.EOFError, av.error.BlockingIOError):
            break
    return np.concatenate(parts or [audio[:0]]).astype(np.float32)[: round(len(audio) / speed)]
