"""Formats of text, each read into the same list of pieces."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cast import Cast
from ..limits import Limits
from ..marks import Blocks
from ..pieces import Script, ScriptError
from ..script import build

FORMATS: dict[str, tuple[str, ...]] = {
    "text": (".txt", ".text"),
    "script": (".script",),
    "jsonl": (".jsonl", ".ndjson"),
    "srt": (".srt",),
    "vtt": (".vtt",),
    "markdown": (".md", ".markdown"),
    "epub": (".epub",),
}
"""Formats, and the endings of their files."""


@dataclass(frozen=True)
class Source:
    """What a reader is given."""

    text: str
    """The whole file; of a book, nothing."""
    cast: Cast
    name: str | None = None
    """The file's, for messages."""
    path: Path | None = None

    def error(self, message: str, line: int | None = None) -> ScriptError:
        return ScriptError(message, self.name, line)


Reader = Callable[[Source, Blocks], Mapping[str, Any]]
"""Adds a source's blocks; returns `title`, `author` and `language`, where the source gives them."""


def read(
    source: str | os.PathLike[str],
    format: str | None = None,
    *,
    cast: Mapping[str, str] | None = None,
    voice: str | None = None,
    language: str | None = None,
    limits: Limits | None = None,
    encoding: str = "utf-8",
    name: str | None = None,
) -> Script:
    """Reads a text, or a file of any of the formats, into pieces.

    Args:
        source: a text as a string, or a file as a `Path`.
        format: one of `FORMATS`; `None` goes by the file's ending, and is "text" for a string.
        cast: names of speakers to voices.
        voice: the narrator's voice, whose name may tell the language.
        language: of the text, as in "en", where no voice's name and no book tells another.
        limits: what the checkpoint can say, from `Limits.of`; by default what the released models can.
        encoding: of a file of text.
        name: what messages call the source; by default the file's name.

    Raises:
        ScriptError: what cannot be read, with its line.
        ValueError: a format that is not known.
        OSError: a file that cannot be opened.
    """
    path = None if isinstance(source, str) else Path(source)
    format = _format(path) if format is None else format
    if format not in FORMATS:
        raise ValueError(f"`format` is {format!r}; expected one of {', '.join(FORMATS)}")
    if path is None and format == "epub":
        raise ValueError("a book is read from a file: give its `Path`")
    name = name or (str(path) if path is not None else None)
    text = source if isinstance(source, str) else ""
    if path is not None and format != "epub":
        text = _decode(path.read_bytes(), encoding, name)
    given = Source(_checked(text, name), cast if isinstance(cast, Cast) else Cast(cast or {}), name, path)
    blocks = Blocks()
    about = dict(_reader(format)(given, blocks))
    found = about.pop("language", None)
    return build(blocks, limits or Limits(), voice, language or found, **about, source=name)


def _format(path: Path | None) -> str:
    if path is None:
        return "text"
    for format, endings in FORMATS.items():
        if path.suffix.lower() in endings:
            return format
    endings = tuple(ending for all_endings in FORMATS.values() for ending in all_endings)
    raise ValueError(f"the format of {path} is not known by its ending ({', '.join(endings)}): give `format`")


def _reader(format: str) -> Reader:
    """A format's reader; what it needs is imported only then."""
    if format in ("text", "script"):
        from . import plain

        return plain.read_script if format == "script" else plain.read_text
    if format == "jsonl":
        from . import json_lines

        return json_lines.read
    if format in ("srt", "vtt"):
        from . import subtitles

        return subtitles.read_srt if format == "srt" else subtitles.read_vtt
    if format == "markdown":
        from . import markdown

        return markdown.read
    from . import epub

    return epub.read


def _decode(data: bytes, encoding: str, name: str | None) -> str:
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ScriptError(f"not {encoding}: byte {data[error.start]:#04x}; give its `encoding`", name, line) from None
    except LookupError:
        raise ValueError(f"`encoding` {encoding!r} is not known") from None


def _checked(text: str, name: str | None) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise ScriptError("a character is half of a pair (a lone surrogate)", name, line) from None
    return text


__all__ = ["FORMATS", "read"]
