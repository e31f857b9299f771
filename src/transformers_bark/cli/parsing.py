"""The parser of every command: examples first, errors in one line, the nearest name for one that is not known."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

_NEAR = 0.8  # how alike a word and a command are for the word to be a slip


class Parser(argparse.ArgumentParser):
    """A command's parser.

    Args:
        summary: what the command does, a line.
        examples: commands and what each does, shown before any option.
    """

    def __init__(self, prog: str, usage: str, summary: str, examples: Sequence[tuple[str, str]]) -> None:
        width = max(len(command) for command, _ in examples)
        lines = [f"  {command:{width}}  # {what}" for command, what in examples]
        description = "\n".join([summary, "", "examples:", *lines])
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, usage=usage, description=description, formatter_class=formatter)

    def error(self, message: str) -> NoReturn:
        """Ends the process with 2 and one line."""
        print(f"bark-tts: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; what is left over is told with the nearest option."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown)
        return options

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Tells of arguments that are not known."""
        for word in unknown:
            if word.startswith("-") and len(word) > 1:
                name = word.partition("=")[0]
                near = difflib.get_close_matches(name, self._option_string_actions, 1, 0.6)
                self.error(f"there is no option {name}{f'; did you mean {near[0]}?' if near else ''}")
        self.error(f"{unknown[0]!r} is one argument too many: put a text in quotes")


def near_command(text: str, commands: Sequence[str]) -> str | None:
    """The command that a word is a slip of; `None` for a text."""
    if not re.fullmatch(r"[A-Za-z]+", text):
        return None
    return next(iter(difflib.get_close_matches(text.lower(), commands, 1, _NEAR)), None)


def flag(text: str) -> bool:
    """True or False, as the original library's command takes them."""
    if text.lower() in ("true", "1", "t", "yes", "y"):
        return True
    if text.lower() in ("false", "0", "f", "no", "n"):
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")


def whole_number(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def count(text: str) -> int:
    """A whole number of at least 1."""
    found = whole_number(text)
    if found < 1:
        raise argparse.ArgumentTypeError("expected a whole number of at least 1, got '0'")
    return found


def number(what: str, fits: Callable[[float], bool]) -> Callable[[str], float]:
    """A number of some kind."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not fits(value):
            raise argparse.ArgumentTypeError(f"expected {what}, got {text!r}")
        return value

    return convert


positive = number("a positive number", lambda value: 0 < value < float("inf"))
share = number("a number in (0, 1]", lambda value: 0 < value <= 1)
probability = number("a number in [0, 1]", lambda value: 0 <= value <= 1)


def numbers(text: str) -> frozenset[int]:
    """Numbers of pieces, as in "12,15-18"."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,7})(?:\s*-\s*(\d{1,7}))?\s*", part)
        first, last = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
        if not 1 <= first <= last:
            raise argparse.ArgumentTypeError(f"expected numbers of pieces as in 12,15-18, got {text!r}")
        found.update(range(first, last + 1))
    return frozenset(found)
