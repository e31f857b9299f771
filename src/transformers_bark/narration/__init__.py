"""Speech of any length: a text of pages, a dialogue, subtitles or a book becomes pieces, and the pieces become speech."""

from __future__ import annotations

from .pieces import Chapter, Piece, Script

__all__ = ["Chapter", "Piece", "Script"]
