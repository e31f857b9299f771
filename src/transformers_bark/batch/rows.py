"""Rows of a manifest: what one may hold, the name of its file, and its seed. What is wrong with a row is its own failure."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

COLUMNS = ("id", "text", "voice", "seed", "language")
NEEDED = ("id", "text")

_MOST_ID = 512  # characters
_MOST_NAME = 64
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_HASHED = re.compile(r"-[0-9a-f]{16}(\..*)?$", re.IGNORECASE)
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows has no files of these names
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*")
_SEEDS = 1 << 62


class RowError(ValueError):
    """Why a row cannot be spoken."""


@dataclass(frozen=True)
class Row:
    """A row that can be tried.

    Args:
        number: its place in the manifest, from 1.
        voice: a name; None for the one of the run.
        seed: given, or derived from the id.
    """

    number: int
    id: str
    text: str
    voice: str | None
    seed: int
    language: str | None

    def key(self, run: str) -> str:
        """A short name of all that decides the row's audio; `run` is that of model and options."""
        parts = [run, self.id, self.text, self.voice, self.seed, self.language]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def row_of(number: int, values: Mapping[str, Any], most_characters: int) -> Row:
    """The row that a manifest's values give.

    Raises:
        RowError: a value that cannot be used; it says which, and what was expected.
    """
    return Row(
        number,
        _id(values.get("id")),
        _text(values.get("text"), most_characters),
        _name(values.get("voice"), "voice"),
        _seed(values.get("seed"), values.get("id")),
        _language(values.get("language")),
    )


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"the id is {value!r}; expected text or a whole number")
    _check_characters(value, "id")
    if len(value) > _MOST_ID:
        raise RowError(f"the id has {len(value)} characters; at most {_MOST_ID} are taken")
    return value


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError("the text is empty" if _is_nothing(value) else f"the text is {_short(value)}; expected text")
    _check_characters(value, "text")
    if len(value) > most:
        raise RowError(f"the text has {len(value)} characters; at most {most} are taken (--max-characters)")
    return value


def _check_characters(value: str, column: str) -> None:
    if "\0" in value:
        raise RowError(f"the {column} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"the {column} is not UTF-8") from None


def _is_nothing(value: Any) -> bool:
    """Whether a manifest leaves a value out: pandas writes NaN, CSV an empty field."""
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


def _name(value: Any, column: str) -> str | None:
    if _is_nothing(value):
        return None
    if not isinstance(value, str):
        raise RowError(f"the {column} is {_short(value)}; expected a name")
    _check_characters(value, column)
    return value


def _language(value: Any) -> str | None:
    name = _name(value, "language")
    if name is not None and not _LANGUAGE.fullmatch(name):
        raise RowError(f"the language is {_short(name)}; expected one as in 'en'")
    return name


def _seed(value: Any, row_id: Any) -> int:
    if _is_nothing(value):
        return seed_of(str(row_id))
    is_digits = isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,20}\s*", value) is not None
    if is_digits or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _SEEDS:
        raise RowError(f"the seed is {_short(value)}; expected a whole number from 0 to 2**62 - 1")
    return value


def seed_of(row_id: str) -> int:
    """The seed of a row that names none: the same for the same id, wherever it stands."""
    return int.from_bytes(hashlib.sha256(row_id.encode(errors="replace")).digest()[:8], "big") % 2**31


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:57]}…"


def file_stem(row_id: str) -> str:
    """The name of a row's file without its ending, below a folder of 1 in 256: never a path that the id makes.

    An id of letters, digits, `_`, `-` and `.` is the name. Of any other, what can be read is, with 16 digits of its hash; so the names
    of two ids are the same only where ids differ in case alone.
    """
    digest = hashlib.sha256(row_id.encode()).hexdigest()
    is_safe = _SAFE.fullmatch(row_id) and not _HASHED.search(row_id) and not _RESERVED.fullmatch(row_id)
    if not is_safe or row_id.endswith("."):
        readable = re.sub(r"[^A-Za-z0-9_]+", "-", row_id).strip("-")[:_MOST_NAME]
        row_id = f"{readable}-{digest[:16]}"
    return f"{digest[:2]}/{row_id}"
