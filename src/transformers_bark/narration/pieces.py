"""What is spoken: a script is a list of pieces, and a piece is one stretch of text that is spoken in one generation.

Nothing here imports torch, so that a text can be read and shown before the models are there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import regex

Boundary = Literal["chapter", "paragraph", "line", "sentence", "clause", "word", "grapheme"]
"""What ends a piece, from the strongest to the weakest."""

BOUNDARIES: tuple[Boundary, ...] = ("chapter", "paragraph", "line", "sentence", "clause", "word", "grapheme")

_BLANK = regex.compile(r"(?:\r\n|[\s\p{Cc}\ufeff\u200b](?![\p{M}\u200c\u200d]))+")
_SPOKEN = regex.compile(r"[\p{L}\p{N}\p{Sc}%&@]")


class ScriptError(ValueError):
    """What cannot be read, with the file and the line that it stands in."""

    def __init__(self, message: str, source: str | None = None, line: int | None = None) -> None:
        where = ", ".join([*([source] if source else []), *([f"line {line}"] if line is not None else [])])
        super().__init__(f"{where}: {message}" if where else message)
        self.line = line


def says_something(text: str) -> bool:
    """Whether there is a letter, a digit or a sign with a name in the text: "* * *" and "…" are pauses, not speech."""
    return _SPOKEN.search(text) is not None


def trimmed(text: str, start: int = 0, end: int | None = None) -> tuple[int, int]:
    """Where the text in [start, end) begins and ends without the white space around it.

    A space that carries a combining mark is a character, and stays.
    """
    end = len(text) if end is None else end
    if (lead := _BLANK.match(text, start, end)) is not None:
        start = lead.end()
    while end > start and _BLANK.fullmatch(text, end - 1, end):
        end -= 1
    return start, end


@dataclass(frozen=True)
class Piece:
    """One stretch of text that is spoken in one generation.

    `gap` is what stands in the source between this piece and the next: white space, marks such as `[pause:1s]`, the next
    speaker's name, punctuation that nobody says. So `text + gap` of all pieces, one after the other, is the source.

    Raises `ValueError` where a value cannot be spoken: an empty text, a pause below 0, an end before its start.
    """

    number: int
    """Place in the whole, from 1."""
    text: str
    """As in the source, for subtitles: no white space at either end, and something to say."""
    gap: str = ""
    voice: str | None = None
    """Name or path of a voice; `None` is the narrator's own."""
    seed: int | None = None
    """Given in a script; `None` draws it from the narrator's seed and the number."""
    speaker: str | None = None
    """Name in a script."""
    pause_after: float | None = None
    """Seconds, where a mark, a blank line or a heading gives them; `None` goes by `boundary` and the punctuation."""
    boundary: Boundary = "sentence"
    """What ends the piece: a piece that ends inside a sentence ("clause", "word", "grapheme") wants no pause to speak of."""
    start: float | None = None
    """Seconds at which a subtitle cue begins; its first piece has it, and every piece of the cue has `end`."""
    end: float | None = None
    chapter: str | None = None
    """The heading that the piece stands under; no two chapters of a script have the same."""
    line: int | None = None
    """Line in the source, from 1, for messages."""
    language: str | None = None
    """As in "en", where it is known."""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Options of this generation alone, from JSON lines."""

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"number is {self.number}; pieces are counted from 1")
        if trimmed(self.text) != (0, len(self.text)) or not says_something(self.text):
            raise ValueError(f"{self.text!r} is no piece: it has white space at an end, or nothing to say")
        if self.pause_after is not None and not (math.isfinite(self.pause_after) and self.pause_after >= 0):
            raise ValueError(f"pause_after is {self.pause_after}; expected seconds, 0 or more")
        if self.boundary not in BOUNDARIES:
            raise ValueError(f"boundary is {self.boundary!r}; expected one of {', '.join(BOUNDARIES)}")
        if self.start is not None and (self.start < 0 or self.end is None):
            raise ValueError(f"start is {self.start} and end {self.end}; expected a start of 0 or more, and an end")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError(f"end is {self.end}, before the start at {self.start}")


@dataclass(frozen=True)
class Chapter:
    """Pieces that stand under one heading; `title` is `None` for what stands before the first."""

    title: str | None
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Script:
    """All pieces of a text in order, and what is known of the whole."""

    pieces: tuple[Piece, ...]
    title: str | None = None
    author: str | None = None
    language: str | None = None
    source: str | None = None
    """Name of the file, for messages."""
    lead: str = ""
    """What stands in the source before the first piece."""
    lead_pause: float | None = None
    """Seconds of silence before the first piece, where a mark gives them."""
    notes: tuple[str, ...] = ()
    """What the source holds that is not spoken, such as a block of code, with its line."""

    def __post_init__(self) -> None:
        numbers = [piece.number for piece in self.pieces]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ValueError(f"pieces are numbered {numbers}; expected 1, 2, 3 … in order")

    def __len__(self) -> int:
        return len(self.pieces)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self.pieces)

    def __getitem__(self, index: int) -> Piece:
        return self.pieces[index]

    @property
    def text(self) -> str:
        """The source again, character for character; of subtitles, Markdown and books, the text that was in them."""
        return self.lead + "".join(piece.text + piece.gap for piece in self.pieces)

    @property
    def chapters(self) -> tuple[Chapter, ...]:
        """The pieces by the headings they stand under, in order."""
        found: list[Chapter] = []
        for piece in self.pieces:
            if found and found[-1].title == piece.chapter:
                found[-1] = replace(found[-1], pieces=(*found[-1].pieces, piece))
            else:
                found.append(Chapter(piece.chapter, (piece,)))
        return tuple(found)

    @property
    def is_plain(self) -> bool:
        """Whether it is one generation and nothing more: no other voice, time or pause of its own."""
        if len(self) != 1:
            return False
        piece = self[0]
        is_marked = piece.voice or piece.speaker or piece.seed is not None or piece.options or piece.start is not None
        return not (is_marked or (self.lead + piece.gap).strip())

    @property
    def voices(self) -> tuple[str | None, ...]:
        """Every voice that speaks, in the order in which they first do; `None` is the narrator's own."""
        return tuple(dict.fromkeys(piece.voice for piece in self.pieces))
