"""Calls of the time when `bark-tts` had one parser: options before a command, and options of speech behind any command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .parsing import Parser


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """A command's options. Those of `say` are accepted with it and change nothing, as they always were."""
    from . import say

    options, others = parser.parse_known_args(arguments)
    if others:
        spoken, unknown = say.build_parser().parse_known_args(others)
        unknown = [*unknown, *(text for text in (spoken.text, spoken.old_text) if text is not None)]
        if unknown:
            parser.refuse(unknown)
    return options


def command_first(arguments: Sequence[str], command: str) -> list[str]:
    """The arguments behind the command's name, for one whose options stand before it: `--model X voices`."""
    words = list(arguments)
    del words[len(words) - 1 - words[::-1].index(command)]
    return words
