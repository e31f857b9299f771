"""EPUB: the pages of a book in reading order, headings as chapters.

A book is a stranger's file. Nothing of it is written to disk, no file outside it is read, entities are refused, and what is
unpacked is bounded before and while it is read.
"""

from __future__ import annotations

import lzma
import posixpath
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from xml.etree.ElementTree import Element, ParseError

import defusedxml
import defusedxml.ElementTree

from ..marks import Block, Blocks, MarkReader
from .html import blocks_of

if TYPE_CHECKING:
    from . import Source

MAX_FILES = 20_000
MAX_PAGE_BYTES = 32 * 2**20
MAX_BOOK_BYTES = 256 * 2**20
"""Of what is unpacked: a long novel has 3 MB of text."""
MAX_RATIO = 200
"""Bytes unpacked for each packed, in a page above 1 MB; text shrinks to a fifth or so."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, RuntimeError)
"""What zipfile raises for a file that is damaged, has a password, or is packed in a way that it does not know."""

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


def read(source: Source, blocks: Blocks) -> Mapping[str, Any]:
    """A book's pages in the order of its spine; the navigation page is left out. Marks are not looked for."""
    assert source.path is not None
    with source.path.open("rb") as stream:
        try:
            book = _Book(source, zipfile.ZipFile(stream))
            reader = MarkReader(blocks, source.cast, "never", source.name)
            chapter: str | None = None
            for page in book.pages():
                chapter = _add_page(blocks, reader, book.text(page), chapter)
            return book.about()
        except _DAMAGED as error:
            raise source.error(f"no EPUB: {error or type(error).__name__}") from None


def _add_page(blocks: Blocks, reader: MarkReader, html: str, chapter: str | None) -> str | None:
    """Adds a page's blocks; the chapter that the next page stands in."""
    for block in blocks_of(html):
        if block.heading:
            blocks.add_gap("", "chapter")
            chapter = blocks.new_chapter(block.text)
        reader.read(block.text, Block("", gap="\n\n", chapter=chapter), marks=False)
    return chapter


class _Book:
    def __init__(self, source: Source, file: zipfile.ZipFile) -> None:
        self.source = source
        self.file = file
        self.left = MAX_BOOK_BYTES
        if len(file.infolist()) > MAX_FILES:
            raise source.error(f"the book has {len(file.infolist())} files, more than {MAX_FILES}")
        self.package_path = self._package_path()
        self.package = self._xml(self.package_path)
        self.items = {item.get("id"): item for item in self._all(self.package, "item")}

    def about(self) -> dict[str, str]:
        """Title, author and language, where the book has them."""
        found: dict[str, str] = {}
        for name, tag in (("title", "title"), ("author", "creator"), ("language", "language")):
            texts = [(element.text or "").strip() for element in self._all(self.package, tag)]
            if any(texts):
                found[name] = next(text for text in texts if text)
        if "language" in found:
            found["language"] = found["language"].split("-")[0].lower()
        return found

    def pages(self) -> Iterator[str]:
        """Paths of the pages in reading order.

        Raises:
            ScriptError: there are none, or one is locked, missing or outside the book.
        """
        locked = self._locked()
        pages = [
            item for ref in self._all(self.package, "itemref") if (item := self.items.get(ref.get("idref"))) is not None
        ]
        pages = [
            item
            for item in pages
            if item.get("media-type") in _PAGES and "nav" not in (item.get("properties") or "").split()
        ]
        if not pages:
            raise self.source.error("the book has no pages")
        for item in pages:
            path = self._inside(item.get("href") or "", posixpath.dirname(self.package_path))
            if path in locked:
                raise self.source.error(f"{path} is encrypted (DRM)")
            yield path

    def text(self, path: str) -> str:
        """A page's text; XHTML says its encoding, and is UTF-8 where it does not."""
        data = self._bytes(path)
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise self.source.error(
                f"{path} is not {encoding}: {error.reason}", data.count(b"\n", 0, error.start) + 1
            ) from None

    def _package_path(self) -> str:
        for rootfile in self._all(self._xml(_CONTAINER), "rootfile"):
            if rootfile.get("full-path"):
                return self._inside(rootfile.get("full-path") or "", "")
        raise self.source.error(f"{_CONTAINER} names no package")

    def _locked(self) -> set[str]:
        if _ENCRYPTION not in self.file.namelist():
            return set()
        references = self._all(self._xml(_ENCRYPTION), "CipherReference")
        return {unquote(reference.get("URI") or "") for reference in references}

    def _inside(self, href: str, folder: str) -> str:
        """The path of a file of the book.

        Raises:
            ScriptError: it is elsewhere.
        """
        parts = urlsplit(href)
        path = posixpath.normpath(posixpath.join(folder, unquote(parts.path)))
        if (
            parts.scheme
            or parts.netloc
            or not parts.path
            or "\\" in path
            or path.startswith(("/", "../"))
            or path == ".."
        ):
            raise self.source.error(f"{href!r} is outside the book")
        return path

    def _bytes(self, path: str) -> bytes:
        try:
            info = self.file.getinfo(path)
        except KeyError:
            raise self.source.error(f"{path} is not in the book") from None
        most = min(MAX_PAGE_BYTES, self.left)
        if info.file_size > 2**20 and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise self.source.error(
                f"{path} unpacks to {info.file_size} bytes from {info.compress_size}: it is refused"
            )
        with self.file.open(info) as stream:
            data = stream.read(most + 1)  # what the file says of its size need not be so
        if len(data) > most:
            raise self.source.error(f"{path} unpacks to more than {most} bytes: it is refused")
        self.left -= len(data)
        return data

    def _xml(self, path: str) -> Element:
        try:
            return defusedxml.ElementTree.fromstring(self._bytes(path))
        except ParseError as error:
            raise self.source.error(f"{path} is no XML: {error.msg}", error.position[0]) from None
        except defusedxml.DefusedXmlException:
            raise self.source.error(f"{path} defines entities: it is refused") from None

    @staticmethod
    def _all(root: Element, tag: str) -> list[Element]:
        """All elements of a name, whatever namespace they are in."""
        return [
            element for element in root.iter() if isinstance(element.tag, str) and element.tag.split("}")[-1] == tag
        ]
