"""Speech of any length: a text of pages, a dialogue, subtitles or a book becomes pieces, and the pieces become speech."""

from __future__ import annotations

from .cast import Cast
from .limits import Limits
from .pieces import Chapter, Piece, Script, ScriptError
from .readers import FORMATS, read

__all__ = ["FORMATS", "Cast", "Chapter", "Limits", "Piece", "Script", "ScriptError", "read"]
