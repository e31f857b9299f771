"""Blocks -> the pieces of a script."""

from __future__ import annotations

from typing import Any

from . import languages
from .limits import Limits
from .marks import PAUSES, Block, Blocks
from .pieces import Piece, Script, says_something
from .sentences import split


def build(
    blocks: Blocks, limits: Limits, voice: str | None = None, language: str | None = None, **about: Any
) -> Script:
    """Cuts blocks to pieces that fit the limits.

    Args:
        voice: the narrator's, whose name may tell the language of blocks without a voice.
        language: of all that names no other.
        about: `title`, `author` and `source` of the `Script`.
    """
    maker = _Maker(limits, voice, language)
    maker.lead = blocks.lead
    for block in blocks.blocks:
        maker.add(block)
    if maker.pieces and blocks.blocks[-1].pause_after is None:
        maker.pieces[-1]["pause_after"] = None  # nothing follows
    return Script(
        tuple(Piece(number, **values) for number, values in enumerate(maker.pieces, 1)),
        language=language,
        lead=maker.lead,
        lead_pause=blocks.lead_pause,
        notes=tuple(blocks.notes),
        **about,
    )


class _Maker:
    """Pieces as they are cut, each as the values of its fields."""

    def __init__(self, limits: Limits, voice: str | None, language: str | None) -> None:
        self.limits = limits
        self.voice = voice
        self.language = language
        self.lead = ""
        self.pieces: list[dict[str, Any]] = []

    def add(self, block: Block) -> None:
        language = languages.find(block.text, block.voice or self.voice, block.language or self.language)
        stretches = [
            one for one in split(block.text, self.limits, language) if says_something(block.text[one.start : one.end])
        ]
        assert stretches, f"{block.text!r} says something, but no part of it does"
        self._add_gap(block.text[: stretches[0].start])
        for one, after in zip(stretches, [*stretches[1:], None], strict=True):
            last = after is None
            self.pieces.append(
                {
                    "text": block.text[one.start : one.end],
                    "gap": block.text[one.end :] + block.gap if after is None else block.text[one.end : after.start],
                    "voice": block.voice,
                    "seed": block.seed,
                    "speaker": block.speaker,
                    "pause_after": self._pause(block) if last else None,
                    "boundary": block.boundary if last else one.boundary,
                    "start": block.start if one is stretches[0] else None,
                    "end": block.end,
                    "chapter": block.chapter,
                    "line": None if block.line is None else block.line + block.text.count("\n", 0, one.start),
                    "language": language,
                    "options": dict(block.options),
                }
            )

    def _add_gap(self, text: str) -> None:
        if self.pieces:
            self.pieces[-1]["gap"] += text
        else:
            self.lead += text

    @staticmethod
    def _pause(block: Block) -> float | None:
        return PAUSES.get(block.boundary) if block.pause_after is None else block.pause_after
