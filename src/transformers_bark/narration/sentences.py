"""Text -> stretches that each fit into one generation.

A paragraph is divided where it hurts least: between sentences; inside a sentence that is too long, between clauses; then
between words; then inside a word, but never inside a character that a reader sees as one. Among all ways to divide, the one
is taken whose stretches come nearest to the target length, so that neither one-word stretches nor short rests are left.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import regex
import sentencex

from .limits import Limits
from .pieces import Boundary, trimmed

_CLOSING = r"[\p{Pe}\p{Pf}\"'’”»]*"
_CLAUSE = regex.compile(
    rf"[,;:،؛…]{_CLOSING}\s+|\.\.\.{_CLOSING}\s+|[，、；：…‥]+{_CLOSING}|[–—]+\s*"
    r"|(?<!\s)\s++(?=[-–—(\[]\s?\S)"
)
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_NOT_AT_START = r"[\p{Pe}\p{Pf}\p{Po}ーゝゞ々ぁぃぅぇぉっゃゅょァィゥェォッャュョ]"
_WORD = regex.compile(rf"\s+|(?<={_UNSPACED})\b(?!{_NOT_AT_START})|\b(?={_UNSPACED})(?<=[\w\p{{M}}])", regex.WORD)
_PART = regex.compile(r"(?<=[-/_.,?&=:;!+~|])(?=\w)|(?<=\w)(?=[(\[{<])")
_GRAPHEME = regex.compile(r"\X")
_ENDS_UNSPACED = regex.compile(rf"[。！？｡．…।॥؟]{_CLOSING}$")
_OPENING = regex.compile(r"(?<=\s)[\p{Ps}\p{Pi}\"'¿¡]+$")
_QUOTES = regex.compile(r"[\p{Pi}\p{Ps}\p{Pe}\"„”»]")  # not ’, which is an apostrophe too
_TOGETHER = regex.compile(r"\[[^\[\]\n]{1,60}\]|♪[^♪]+♪")
_FOREIGN_SPACE = regex.compile(r"[^\S\n]|[\ud800-\udfff]")

_SPEECH = regex.compile(r"(?<=[;:–—\p{Pf}\"”»)]\s*)|(?=[\p{Pi}\p{Ps}\"„«–—])")
_COSTS: dict[Boundary, float] = {"sentence": 0.2, "clause": 0.3, "word": 1.0, "grapheme": 2.0}
"""What a division inside a sentence costs, a sentence's end in a quotation included; a stretch of no length costs 1."""


@dataclass(frozen=True)
class Stretch:
    """Part of a paragraph, from its first to behind its last character that is no white space."""

    start: int
    end: int
    boundary: Boundary


def split(text: str, limits: Limits, language: str = "en") -> list[Stretch]:
    """Divides one paragraph into stretches that fit; what lies between them is white space.

    Every stretch fits the limits. The one exception is a single character that does not.
    """
    breaks = _Breaks(text, language)
    atoms = list(_atoms(text, 0, len(text), breaks, limits, "sentence"))
    costs = [breaks.cost(atom.end, atom.boundary) for atom in atoms]
    room = 1.0
    while True:
        stretches = list(_trim(text, _fill(text, atoms, costs, limits, room)))
        if room < 0.1 or all(limits.fits(text[one.start : one.end]) for one in stretches):
            return stretches if room >= 0.1 else list(_trim(text, atoms))
        room *= 0.9  # joined, the atoms have more tokens than one by one


class _Breaks:
    """Where a text may be divided: levels of offsets in order, each with its kind."""

    def __init__(self, text: str, language: str) -> None:
        self.graphemes = [match.start() for match in _GRAPHEME.finditer(text)] + [len(text)]
        allowed = set(self.graphemes)
        together = [match.span() for match in _TOGETHER.finditer(text)]
        sentences = _outside(together, _sentence_ends(text, text, language))
        # sentencex does not divide what is quoted or in brackets; without the signs it does
        quoted = _outside(together, sorted({*sentences, *_sentence_ends(text, _QUOTES.sub(" ", text), language)}))
        stops = [match.end() for match in _CLAUSE.finditer(text)]
        brackets = [span for span in together if text[span[0]] == "["]
        words = _outside(brackets, sorted({*stops, *(match.end() for match in _WORD.finditer(text))}))
        parts = [match.end() for match in _PART.finditer(text)]
        levels: list[dict[int, Boundary]] = [
            dict.fromkeys(sentences, "sentence"),
            {**dict.fromkeys(_outside(together, stops), "clause"), **dict.fromkeys(quoted, "sentence")},
            dict.fromkeys(words, "word"),
            dict.fromkeys(parts, "word"),
        ]
        self.levels = [[(at, kind) for at, kind in sorted(level.items()) if at in allowed] for level in levels]
        self._text = text
        self._free = {*sentences, len(text)}

    def cost(self, offset: int, kind: Boundary) -> float:
        """What a division at an offset costs. A speech that begins or ends is as good a place as a sentence's end in it."""
        if offset in self._free:
            return 0.0
        return _COSTS["sentence" if kind == "clause" and _SPEECH.match(self._text, offset) else kind]


def _outside(spans: Sequence[tuple[int, int]], offsets: Sequence[int]) -> list[int]:
    """The offsets that lie in none of the spans, which are in order."""
    starts = [start for start, _ in spans]
    kept = []
    for offset in offsets:
        at = bisect_left(starts, offset) - 1
        if at < 0 or offset >= spans[at][1]:
            kept.append(offset)
    return kept


def _sentence_ends(text: str, view: str, language: str) -> list[int]:
    """Offsets behind each sentence, white space included; `view` is the text with other signs in some places."""
    ends = []
    for start, end in pairwise([0, *accumulate(len(one) for one in _segment(view, language))]):
        sentence = text[start:end]
        if (opening := _OPENING.search(sentence)) is not None:
            ends.append(start + opening.start())  # a quotation mark that opens the next sentence
        elif sentence[-1].isspace() or _ENDS_UNSPACED.search(sentence):
            ends.append(end)
    return ends


def _segment(text: str, language: str) -> list[str]:
    """sentencex's sentences, which joined are as long as the text."""
    # sentencex falls over some white space that is neither a space nor a line's end; it sees spaces in their place
    plain = _FOREIGN_SPACE.sub(" ", text)
    try:
        sentences = list(sentencex.segment(language, plain))
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # how its own faults arrive; it derives from nothing else
            raise
        return [text]
    return sentences if "".join(sentences) == plain else [text]


_MOST_ATOMS = 400
"""In one stretch: what says nothing takes no room, and would be tried without end."""

Atom = Stretch
"""A stretch that is not divided further; here with the white space around it."""


def _atoms(
    text: str, start: int, end: int, breaks: _Breaks, limits: Limits, outer: Boundary, level: int = 0
) -> Iterator[Atom]:
    """The longest stretches that fit, by the strongest kind of division that makes them fit."""
    if level and limits.fits(text[start:end]) or end - start <= 1:
        yield Atom(start, end, outer)
        return
    if level == len(breaks.levels):
        yield from _chunks(text, start, end, breaks.graphemes, limits, outer)
        return
    offsets = breaks.levels[level]
    inner = offsets[bisect_right(offsets, start, key=_offset) : bisect_left(offsets, end, key=_offset)]
    for (left, _), (right, kind) in pairwise([(start, outer), *inner, (end, outer)]):
        yield from _atoms(text, left, right, breaks, limits, kind, level + 1)


def _offset(division: tuple[int, Boundary]) -> int:
    return division[0]


def _chunks(
    text: str, start: int, end: int, graphemes: Sequence[int], limits: Limits, outer: Boundary
) -> Iterator[Atom]:
    """One word in as few parts of about one length as fit."""
    inner = [start, *graphemes[bisect_right(graphemes, start) : bisect_left(graphemes, end)], end]
    if len(inner) == 2:
        inner = list(range(start, end + 1))  # one grapheme of many code points, more than a generation takes
    count = len(inner) - 1
    parts = 1
    while parts < count:
        ends = [inner[round(count * part / parts)] for part in range(parts + 1)]
        if all(limits.fits(text[left:right]) for left, right in pairwise(ends)):
            break
        parts = max(parts + 1, parts * 9 // 8)
    else:
        ends = inner
    for left, right in pairwise(ends):
        yield Atom(left, right, outer if right == end else "grapheme")


def _fill(text: str, atoms: Sequence[Atom], costs: Sequence[float], limits: Limits, room: float) -> list[Stretch]:
    """Joins atoms to stretches that take up to `room` of a piece, at the least cost in all."""
    sums = [(0.0, 0.0)]
    for atom in atoms:
        tokens, seconds = limits.shares(text[atom.start : atom.end])
        sums.append((sums[-1][0] + tokens, sums[-1][1] + seconds))
    best = [0.0]
    previous = [0]
    for last in range(1, len(atoms) + 1):
        choices: list[tuple[float, int]] = []
        for first in range(last - 1, max(-1, last - 1 - _MOST_ATOMS), -1):
            share = max(sums[last][0] - sums[first][0], sums[last][1] - sums[first][1])
            if choices and (share > room or atoms[first].boundary == "grapheme"):
                break
            choices.append((best[first] + _length_cost(share, limits.target), first))
        cost, first = min(choices)
        best.append(cost + costs[last - 1])
        previous.append(first)
    stretches = []
    last = len(atoms)
    while last:
        first = previous[last]
        stretches.append(Stretch(atoms[first].start, atoms[last - 1].end, atoms[last - 1].boundary))
        last = first
    return stretches[::-1]


def _length_cost(share: float, target: float) -> float:
    """How far a stretch is from the target: 1 for no length at all, 0.5 for a full piece."""
    if share < target:
        return ((target - share) / target) ** 2
    return 0.5 * ((share - target) / (1 - target)) ** 2 if share < 1 else 0.5


def _trim(text: str, stretches: Sequence[Stretch]) -> Iterator[Stretch]:
    for one in stretches:
        start, end = trimmed(text, one.start, one.end)
        if start < end:
            yield Stretch(start, end, one.boundary)
