"""HTML -> its blocks of text, with the standard library's parser, which takes any HTML and expands nothing."""

from __future__ import annotations

from dataclasses import dataclass
from html.parser import HTMLParser

import regex

HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = {
    *HEADINGS,
    *(
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
    ),
    *(
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "nav",
        "ol",
        "p",
    ),
    *("pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr", "ul"),
}
_SILENT = {"head", "script", "style", "template", "rt", "rp", "svg", "math", "audio", "video", "object"}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"}
_SPACE = regex.compile(r"[^\S\u00a0]+")


@dataclass(frozen=True)
class HtmlBlock:
    """A paragraph's text, with white space as a reader sees it; `heading` is its level, or 0."""

    text: str
    heading: int
    line: int


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[HtmlBlock] = []
        self._parts: list[str] = []
        self._line = 1
        self._heading = 0
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br":
            self._add("\n")
        elif tag in _BLOCKS:
            self.flush()
            self._heading = HEADINGS.index(tag) + 1 if tag in HEADINGS else self._heading
        if tag not in _VOID and (self._silent or tag in _SILENT or _is_reference(dict(attrs))):
            self._silent.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "br":
            self._add("\n")
        elif tag in _BLOCKS:
            self.flush()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            del self._silent[len(self._silent) - 1 - self._silent[::-1].index(tag) :]
        elif tag in _BLOCKS:
            self.flush()
            self._heading = 0 if tag in HEADINGS else self._heading

    def handle_data(self, data: str) -> None:
        self._add(_SPACE.sub(" ", data))

    def _add(self, text: str) -> None:
        if self._silent:
            return
        if not self._parts:
            self._line = self.getpos()[0]
        self._parts.append(text)

    def flush(self) -> None:
        text = regex.sub(r" *\n *", "\n", regex.sub(r" {2,}", " ", "".join(self._parts))).strip(" \n")
        if text:
            self.blocks.append(HtmlBlock(text, self._heading, self._line))
        self._parts = []


def _is_reference(attributes: dict[str, str | None]) -> bool:
    """Whether an element is the number of a note or of a page."""
    kinds = f"{attributes.get('epub:type') or ''} {attributes.get('role') or ''}".split()
    return any(kind in ("noteref", "doc-noteref", "pagebreak", "doc-pagebreak") for kind in kinds)


def blocks_of(html: str) -> list[HtmlBlock]:
    """The blocks of an HTML page in order, without scripts, styles, numbers of notes and pages, and readings of characters."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    parser.flush()
    return parser.blocks


def text_of(html: str) -> str:
    """The text of a piece of HTML, a line a block."""
    return "\n".join(block.text for block in blocks_of(html))
