"""Speech of any length: a text of pages, a dialogue, subtitles or a book becomes pieces, and the pieces become speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cast import Cast
from .limits import Limits
from .pieces import Chapter, Piece, Script, ScriptError
from .readers import FORMATS, read

if TYPE_CHECKING:
    from .joining import Spoken
    from .narrator import Narration, Narrator, Report

_NEED_TORCH = {"Narration": "narrator", "Narrator": "narrator", "Report": "narrator", "Spoken": "joining"}
"""Names that are imported when they are asked for, so that a text can be read without torch."""


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_NEED_TORCH[name]}", __name__), name)


__all__ = [
    "FORMATS",
    "Cast",
    "Chapter",
    "Limits",
    "Narration",
    "Narrator",
    "Piece",
    "Report",
    "Script",
    "ScriptError",
    "Spoken",
    "read",
]
