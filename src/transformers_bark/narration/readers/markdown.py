"""Markdown: headings are chapters, paragraphs, list items and rows of tables are blocks; code is noted, not spoken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import regex
from markdown_it import MarkdownIt
from markdown_it.token import Token

from ..marks import Block, Blocks, MarkReader
from .html import text_of

if TYPE_CHECKING:
    from . import Source

_FRONT_MATTER = regex.compile(r"\A---[ \t]*\n(.*?\n)??(?:---|\.\.\.)[ \t]*(?:\n|\Z)", regex.DOTALL)
_FIELD = regex.compile(r"^(title|author|lang|language):[ \t]*(.+?)[ \t]*$", regex.MULTILINE)


def read(source: Source, blocks: Blocks) -> Mapping[str, Any]:
    """CommonMark and tables. Title, author and language come from the front matter, or the title from the one first-level heading."""
    text = source.text.replace("\r\n", "\n").replace("\r", "\n")
    about = _front_matter(text)
    if (front := _FRONT_MATTER.match(text)) is not None:
        text = "\n" * front.group().count("\n") + text[front.end() :]
    walker = _Walker(source, blocks)
    walker.walk(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text))
    if "title" not in about and len(walker.titles) == 1:
        about["title"] = walker.titles[0]
    return about


def _front_matter(text: str) -> dict[str, str]:
    front = _FRONT_MATTER.match(text)
    fields = dict(_FIELD.findall(front.group())) if front is not None else {}
    about = {name: fields[name].strip("\"'") for name in ("title", "author") if name in fields}
    if language := fields.get("lang", fields.get("language")):
        about["language"] = language.strip("\"'").split("-")[0].lower()
    return about


class _Walker:
    def __init__(self, source: Source, blocks: Blocks) -> None:
        self.blocks = blocks
        self.marks = MarkReader(blocks, source.cast, "cast", source.name)
        self.titles: list[str] = []
        self.chapter: str | None = None

    def walk(self, tokens: Sequence[Token]) -> None:
        heading = ""
        cells: list[str] | None = None
        row_line: int | None = None
        for token in tokens:
            line = token.map[0] + 1 if token.map else None
            if token.type == "heading_open":
                heading = token.tag
            elif token.type == "tr_open":
                cells, row_line = [], line
            elif token.type == "tr_close":
                self._add(", ".join(cell for cell in cells or () if cell), row_line)
                cells = None
            elif token.type == "inline":
                text = _inline(token)
                if cells is not None:
                    cells.append(" ".join(text.split()))
                else:
                    self._heading(text, heading, line) if heading else self._add(text, line)
                heading = ""
            elif token.type in ("fence", "code_block"):
                count = token.content.count("\n")
                self.blocks.notes.append(f"line {line}: a block of code ({count} lines) is not spoken")
                self.blocks.add_gap("", "paragraph")
            elif token.type == "html_block":
                self._add(text_of(token.content), line)

    def _heading(self, text: str, tag: str, line: int | None) -> None:
        if not text.strip():
            return
        if tag == "h1":
            self.titles.append(" ".join(text.split()))
        self.blocks.add_gap("", "chapter")
        self.chapter = self.blocks.new_chapter(text)
        self._add(text, line)

    def _add(self, text: str, line: int | None) -> None:
        self.marks.read(text, Block("", gap="\n\n", line=line, chapter=self.chapter))


def _inline(token: Token) -> str:
    """A paragraph's text without its markup; pictures say their description."""
    parts = []
    for child in token.children or ():
        if child.type in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif child.type == "image":
            parts.append(_inline(child))
        elif child.type in ("text", "code_inline", "text_special"):
            parts.append(child.content)
        elif child.type == "html_inline" and child.content.lower().startswith("<br"):
            parts.append("\n")
    return "".join(parts)
