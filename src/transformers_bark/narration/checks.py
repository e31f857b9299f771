"""Was it said? What a generation itself shows, without a recogniser: length, level, silence, loops, words passed over."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .alignment import Alignment, Word
from .limits import Limits
from .pieces import says_something

FRAME = 0.01
"""Seconds of a frame in which energy is measured."""

_UNDER_LOUD = 40.0  # dB under the loud frames: speech ends there
_FLOOR = -60.0  # dB of full scale
_BEFORE, _AFTER = 0.02, 0.08  # seconds kept around the speech
_AFTER_LAST_WORD = 0.3  # seconds: the attention leaves the last word a little early

_PACE = (0.55, 1.65)  # of the length that the text lets expect
_QUIET = -36.0  # dB of full scale, of the loud frames
_LONG_SILENCE = 1.0  # seconds inside a piece
_CLIPPED = 0.999
_MOST_CLIPPED = 0.001  # of the samples
_LEAST_LOOP = 0.35  # seconds that are said twice
_LONG_SOUND = 0.8  # seconds of one token
_MOST_REPEATED = 1  # words that seem to be said twice and may be slips of the attention


@dataclass(frozen=True)
class Doubt:
    """A reason why a piece may not have been said as it should.

    Args:
        kind: a name: "limit", "short", "long", "silent", "quiet", "pause", "clipped", "loop", "skipped", "repeated", "tail",
            "words", "slot", "unknown".
        reason: for people.
        weight: how bad it is; of several takes, the one with the least in all is kept.
    """

    kind: str
    reason: str
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Checked:
    """A take with silence and tail cut off.

    Args:
        audio: float32 [samples].
        words: when each word is said, in seconds of `audio`; `None` where that is not known.
        doubts: what speaks against it.
    """

    audio: np.ndarray
    words: tuple[Word, ...] | None
    doubts: tuple[Doubt, ...]

    @property
    def penalty(self) -> float:
        """How bad it is in all."""
        return sum(doubt.weight for doubt in self.doubts)


def check(
    text: str,
    audio: np.ndarray,
    sampling_rate: int,
    tokens: Sequence[int],
    token_rate: float,
    limits: Limits,
    at_limit: bool = False,
    alignment: Alignment | None = None,
) -> Checked:
    """Checks one generation, and cuts off what is before and after its speech.

    Args:
        text: what it should say.
        audio: float32 [samples].
        tokens: semantic tokens, `token_rate` a second.
        limits: the checkpoint's, which foretell the length.
        at_limit: whether the generation ran to its limit.
        alignment: where the words are, if that is known.
    """
    levels = frame_levels(audio, sampling_rate)
    loud = float(np.quantile(levels, 0.95)) if len(levels) else -np.inf
    if loud < _FLOOR:
        return Checked(audio[:0], None, (Doubt("silent", "nothing is heard", 20.0),))
    voiced = levels > max(loud - _UNDER_LOUD, _FLOOR)
    words = None if alignment is None else sharpen(alignment.words, voiced)
    start, end = _bounds(voiced)
    doubts = []
    if words is not None and (last := max((word.end for word in words), default=0.0)) > 0:
        cut = int((last + _AFTER_LAST_WORD) / FRAME)
        if voiced[cut:end].sum() * FRAME > _AFTER_LAST_WORD:
            doubts.append(Doubt("tail", f"{(end - cut) * FRAME:.1f} s after the last word were cut off", 0.0))
            end = cut
    first = max(0, round((start * FRAME - _BEFORE) * sampling_rate))
    trimmed = audio[first : round((end * FRAME + _AFTER) * sampling_rate)]
    if words is not None:
        shift, length = first / sampling_rate, len(trimmed) / sampling_rate
        words = tuple(
            replace(word, start=min(max(0.0, word.start - shift), length), end=min(max(0.0, word.end - shift), length))
            for word in words
        )
    doubts += _of_length(text, (end - start) * FRAME, limits, at_limit)
    doubts += _of_level(trimmed, voiced[start:end], loud)
    doubts += _of_tokens(text, tokens, token_rate)
    if alignment is not None:
        doubts += _of_words(alignment)
    return Checked(trimmed, words, tuple(doubts))


def frame_levels(audio: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Level of each frame in dB of full scale, float64 [frame]; a rest that fills no frame is left out."""
    hop = round(FRAME * sampling_rate)
    frames = audio[: len(audio) // hop * hop].reshape(-1, hop).astype(np.float64)
    return 10 * np.log10((frames**2).mean(1) + 1e-12)


def sharpen(words: Sequence[Word], voiced: np.ndarray) -> tuple[Word, ...]:
    """Words without the silence at their ends, which the attention gives to one of the words beside it."""
    sharp = []
    for word in words:
        first = round(word.start / FRAME)
        heard = np.flatnonzero(voiced[first : round(word.end / FRAME)])
        if len(heard):
            word = replace(word, start=(first + int(heard[0])) * FRAME, end=(first + int(heard[-1]) + 1) * FRAME)
        sharp.append(word)
    return tuple(sharp)


def _bounds(voiced: np.ndarray) -> tuple[int, int]:
    """[start, end) of the speech in frames; clicks of a frame or two at the ends do not count."""
    steady = voiced.copy()
    for is_on, run in itertools.groupby(range(len(voiced)), key=lambda frame: bool(voiced[frame])):
        frames = list(run)
        if is_on and len(frames) <= 2:
            steady[frames] = False
    places = np.flatnonzero(steady if steady.any() else voiced)
    return int(places[0]), int(places[-1]) + 1


def _of_length(text: str, seconds: float, limits: Limits, at_limit: bool) -> list[Doubt]:
    if at_limit:
        return [Doubt("limit", f"it ran to the limit of {limits.seconds:.1f} s", 5.0)]
    expected = limits.seconds_of(text)
    low, high = expected * _PACE[0] - 0.2, expected * _PACE[1] + 0.4
    if seconds < low:
        return [Doubt("short", f"{seconds:.1f} s for a text of about {expected:.1f} s", 1 + 3 * (1 - seconds / low))]
    if seconds > high:
        return [
            Doubt("long", f"{seconds:.1f} s for a text of about {expected:.1f} s", 1 + min(2.0, seconds / high - 1))
        ]
    return []


def _of_level(audio: np.ndarray, voiced: np.ndarray, loud: float) -> list[Doubt]:
    doubts = []
    if loud < _QUIET:
        doubts.append(Doubt("quiet", f"its level is {loud:.0f} dB"))
    clipped = float(np.mean(np.abs(audio) >= _CLIPPED)) if len(audio) else 0.0
    if clipped > _MOST_CLIPPED:
        doubts.append(Doubt("clipped", f"{clipped:.1%} of its samples are clipped"))
    silence = longest_run(~voiced) * FRAME
    if silence > _LONG_SILENCE:
        doubts.append(Doubt("pause", f"{silence:.1f} s of silence inside it"))
    return doubts


def longest_run(flags: np.ndarray) -> int:
    """The most neighbours that are all true."""
    return max((sum(1 for _ in run) for value, run in itertools.groupby(flags.tolist()) if value), default=0)


def _of_tokens(text: str, tokens: Sequence[int], token_rate: float) -> list[Doubt]:
    doubts = []
    runs = [len(list(run)) for _, run in itertools.groupby(tokens)]
    if runs and max(runs) > _LONG_SOUND * token_rate:
        doubts.append(Doubt("loop", f"one sound lasts {max(runs) / token_rate:.1f} s"))
    said_twice = longest_repeat(list(tokens)) / token_rate
    in_text = longest_repeat([character for character in text.casefold() if character.isalnum()])
    of_text = in_text / max(1, sum(character.isalnum() for character in text)) * len(tokens) / token_rate
    if said_twice > _LEAST_LOOP + 1.5 * of_text:
        doubts.append(Doubt("loop", f"{said_twice:.1f} s are said twice"))
    return doubts


def longest_repeat(values: Sequence[object]) -> int:
    """Length of the longest stretch that comes again later, without overlap; runs of one value are no repeat."""
    codes = np.unique(np.asarray(values), return_inverse=True)[1] if len(values) else np.zeros(0, np.int64)
    longest = 0
    for shift in range(1, len(codes)):
        same = codes[:-shift] == codes[shift:]
        if same.sum() <= longest:
            continue
        at = 0
        for value, run in itertools.groupby(same.tolist()):
            length = sum(1 for _ in run)
            stretch = codes[at : at + min(length, shift)]
            if value and len(stretch) > longest and np.any(stretch[1:] != stretch[:-1]):
                longest = len(stretch)
            at += length
    return longest


def _of_words(alignment: Alignment) -> list[Doubt]:
    doubts = []
    if alignment.skipped:
        names = ", ".join(alignment.words[place].text for place in alignment.skipped)
        doubts.append(Doubt("skipped", f"not said: {names}", 2.0 * len(alignment.skipped)))
    repeated = [place for place in alignment.repeated if says_something(alignment.words[place].text)]
    if len(repeated) > _MOST_REPEATED:
        names = ", ".join(alignment.words[place].text for place in repeated)
        doubts.append(Doubt("repeated", f"said twice: {names}", 1.0 * len(repeated)))
    return doubts
