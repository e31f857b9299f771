"""JSON lines: an object a line, with `text` and what holds for it."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..marks import Block, Blocks, MarkReader

if TYPE_CHECKING:
    from . import Source

_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "speaker": (str,),
    "voice": (str,),
    "seed": (int,),
    "pause_after": (int, float),
    "chapter": (str,),
    "language": (str,),
    "start": (int, float),
    "end": (int, float),
    "options": (dict,),
}


def read(source: Source, blocks: Blocks) -> Mapping[str, Any]:
    """Every line is a block. Marks in its text hold to its end; a speaker's voice is the cast's unless the line has one."""
    lines = source.text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        values = _values(source, line, number)
        speaker = values.get("speaker")
        known = source.cast.find(speaker) if speaker else None
        if speaker and known is None and source.cast and "voice" not in values:
            raise source.error(source.cast.unknown(speaker), number)
        if speaker and known is not None:
            values = {"voice": source.cast[known], **values, "speaker": known}
        like = Block(**values, gap="\n" if number < len(lines) else "", line=number, boundary="line")
        MarkReader(blocks, source.cast, "never", source.name).read(like.text, like)
    return {}


def _values(source: Source, line: str, number: int) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise source.error(f"no JSON: {error.msg} at column {error.colno}", number) from None
    if not isinstance(values, dict) or "text" not in values:
        raise source.error(f'expected an object with "text", got {line.strip()[:60]}', number)
    values = {name: value for name, value in values.items() if value is not None}
    for name, value in values.items():
        if name not in _TYPES:
            near = difflib.get_close_matches(name, _TYPES, 1)
            hint = f"did you mean {near[0]!r}?" if near else 'options of `generate` go into "options": {…}'
            raise source.error(f"{name!r} is not known; {hint}", number)
        if not isinstance(value, _TYPES[name]) or isinstance(value, bool):
            raise source.error(
                f"{name!r} is {value!r}; expected {' or '.join(t.__name__ for t in _TYPES[name])}", number
            )
    _check_times(source, values, number)
    return values


def _check_times(source: Source, values: Mapping[str, Any], number: int) -> None:
    for name in ("seed", "pause_after", "start", "end"):
        value = values.get(name, 0)
        if not (math.isfinite(value) and value >= 0):
            raise source.error(f"{name!r} is {value}; expected 0 or more", number)
    if "start" in values and values["start"] > values.get("end", -1):
        raise source.error("'start' wants an 'end' that is not before it", number)
