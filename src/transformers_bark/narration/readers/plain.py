"""Plain text with marks, and scripts, where every "Name:" at a line's start is a speaker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..marks import Block, Blocks, MarkReader, Names

if TYPE_CHECKING:
    from . import Source


def read_text(source: Source, blocks: Blocks) -> Mapping[str, Any]:
    """Text: "Name:" is a speaker only where the cast knows the name, as prose has lines like "Note: this"."""
    return _read(source, blocks, "cast")


def read_script(source: Source, blocks: Blocks) -> Mapping[str, Any]:
    """A script: with a cast, a name that it does not know is an error; without one, every name keeps the narrator's voice."""
    return _read(source, blocks, "all")


def _read(source: Source, blocks: Blocks, names: Names) -> Mapping[str, Any]:
    MarkReader(blocks, source.cast, names, source.name).read(source.text, Block("", line=1))
    return {}
