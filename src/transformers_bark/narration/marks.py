"""Blocks of a source, and the marks in its text: `[pause:1.5s]`, blank lines, `[voice:NAME]` and `Name:`.

A block is text of one voice between two marks or blank lines: pieces are cut from blocks and never reach over two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import regex

from .cast import Cast
from .pieces import BOUNDARIES, Boundary, ScriptError, says_something

PAUSES: dict[Boundary, float] = {"chapter": 1.5, "paragraph": 0.8}
"""Seconds of silence where no mark gives them; behind weaker boundaries the punctuation does."""

MAX_PAUSE = 600.0

_MARK = regex.compile(
    r"""\[pause:(?P<pause>[^\]\n]*)(?P<pause_end>\]?)
    | \[voice:(?P<voice>[^\]\n]*)(?P<voice_end>\]?)
    | (?P<blank>\n(?:[^\S\n]*\n)+)
    | ^[^\S\n]*(?P<name>\p{L}[^\n:：\[\]"“”„«»「」!?]{0,39}?)[^\S\n]*(?::(?=\s|\Z)|：)""",
    regex.VERBOSE | regex.MULTILINE | regex.IGNORECASE,
)
_SECONDS = regex.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|ms)?\s*", regex.IGNORECASE)
_MOST_WORDS = 4  # in a name

Names = Literal["never", "cast", "all"]
"""Whether "Name:" at a line's start is a speaker: never, where the cast knows the name, or always (in a script)."""


@dataclass(frozen=True)
class Block:
    """Text of one voice, and what follows it in the source that is not spoken; fields are those of `Piece`."""

    text: str
    gap: str = ""
    line: int | None = None
    boundary: Boundary = "paragraph"
    pause_after: float | None = None
    voice: str | None = None
    speaker: str | None = None
    seed: int | None = None
    start: float | None = None
    end: float | None = None
    chapter: str | None = None
    language: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class Blocks:
    """Blocks in order, as a reader finds them. What is not spoken goes to the gap behind the block before."""

    def __init__(self) -> None:
        self.lead = ""
        self.lead_pause: float | None = None
        self.blocks: list[Block] = []
        self.notes: list[str] = []
        self._chapters: set[str] = set()

    def add(self, block: Block) -> None:
        """Appends a block, or its text to the gap before where that says nothing."""
        if says_something(block.text):
            self.blocks.append(block)
        else:
            self.add_gap(block.text + block.gap, block.boundary, block.pause_after)

    def add_gap(self, text: str, boundary: Boundary = "grapheme", pause: float | None = None) -> None:
        """Appends what is not spoken. Boundaries do not weaken, and pauses add up."""
        if not self.blocks:
            self.lead += text
            self.lead_pause = _added(self.lead_pause, pause)
            return
        last = self.blocks[-1]
        self.blocks[-1] = replace(
            last,
            gap=last.gap + text,
            boundary=min(last.boundary, boundary, key=BOUNDARIES.index),
            pause_after=_added(last.pause_after, pause),
        )

    def new_chapter(self, title: str) -> str:
        """A chapter's name: the title, with a number where another chapter has it."""
        title = " ".join(title.split())
        name, count = title, 1
        while name in self._chapters:
            count += 1
            name = f"{title} ({count})"
        self._chapters.add(name)
        return name


def _added(pause: float | None, other: float | None) -> float | None:
    return pause if other is None else (pause or 0.0) + other


class MarkReader:
    """Adds texts to `blocks`, divided at their marks. A voice holds until the next mark that names one.

    Raises:
        ScriptError: from `read`, a mark that has no meaning, or a name that is not in the cast of a script.
    """

    def __init__(self, blocks: Blocks, cast: Cast, names: Names = "cast", source: str | None = None) -> None:
        self.blocks = blocks
        self.cast = cast
        self.names = names
        self.source = source
        self.voice: str | None = None
        self.speaker: str | None = None

    def read(self, text: str, like: Block, marks: bool = True) -> None:
        """Adds a text.

        Args:
            like: what holds for all blocks of the text: its boundary, gap and pause for the last of them, its start for
                the first, its voice and speaker until a mark names another.
            marks: False takes marks for text; blank lines still divide.
        """
        voice, speaker = (like.voice, like.speaker) if like.voice or like.speaker else (self.voice, self.speaker)
        current = replace(like, gap="", pause_after=None, voice=voice, speaker=speaker)
        at = 0
        for match in _MARK.finditer(text):
            kind = self._kind(match, text, like.line, marks)
            if kind is None:
                continue
            current = self._add(current, text[at : match.start()], "line", like.line, text, at)
            at = match.end()
            if kind == "blank":
                self.blocks.add_gap(match.group(), "paragraph")
            elif kind == "pause":
                self.blocks.add_gap(match.group(), pause=self._seconds(match, text, like.line))
            else:
                self.blocks.add_gap(match.group())
                self._change(kind, match, text, like.line)
                current = replace(current, voice=self.voice, speaker=self.speaker)
        self._add(current, text[at:], like.boundary, like.line, text, at)
        self.blocks.add_gap(like.gap, like.boundary, like.pause_after)

    def _add(self, block: Block, text: str, boundary: Boundary, line: int | None, whole: str, at: int) -> Block:
        """Adds part of the whole; what a next part is like."""
        if not says_something(text):
            self.blocks.add_gap(text)
            return block
        self.blocks.add(replace(block, text=text, boundary=boundary, line=_line(line, whole, at)))
        return replace(block, start=None)

    def _kind(self, match: regex.Match[str], text: str, line: int | None, marks: bool) -> str | None:
        """What a match is: "pause", "blank", "voice" or "name"; `None` for text that only looks like a mark."""
        kind = match.lastgroup.removesuffix("_end") if match.lastgroup else ""
        if kind == "blank" or not marks:
            return "blank" if kind == "blank" else None
        if kind == "name":
            return "name" if self._is_name(match, text, line) else None
        if not match.group(f"{kind}_end"):
            raise self._error(f"{match.group()!r} has no closing ]", text, match.start(), line)
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if kind == "voice" and before.strip():
            raise self._error(
                f"{match.group()} changes the voice at the start of a line only", text, match.start(), line
            )
        return kind

    def _is_name(self, match: regex.Match[str], text: str, line: int | None) -> bool:
        name = match.group("name")
        if self.names == "never" or self.cast.find(name) is not None:
            return self.names != "never"
        if self.names == "cast" or len(name.split()) > _MOST_WORDS:
            return False
        if self.cast:
            raise self._error(self.cast.unknown(name), text, match.start("name"), line)
        return True

    def _change(self, kind: str, match: regex.Match[str], text: str, line: int | None) -> None:
        name = match.group(kind).strip()
        known = self.cast.find(name)
        self.voice = self.cast[known] if known is not None else (name or None) if kind == "voice" else None
        self.speaker = known if known is not None or kind == "voice" else name

    def _seconds(self, match: regex.Match[str], text: str, line: int | None) -> float:
        number = _SECONDS.fullmatch(match.group("pause"))
        if number is None:
            raise self._error(f"{match.group()} is no pause; expected [pause:1.5s]", text, match.start(), line)
        seconds = float(number.group(1)) / (1000 if (number.group(2) or "s").lower() == "ms" else 1)
        if seconds > MAX_PAUSE:
            raise self._error(f"{match.group()} is longer than {MAX_PAUSE:.0f} s", text, match.start(), line)
        return seconds

    def _error(self, message: str, text: str, at: int, line: int | None) -> ScriptError:
        return ScriptError(message, self.source, _line(line, text, at))


def _line(first: int | None, text: str, at: int) -> int | None:
    return None if first is None else first + text.count("\n", 0, at)
