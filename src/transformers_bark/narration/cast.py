"""Who speaks in which voice."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .pieces import ScriptError


class Cast(Mapping[str, str]):
    """Names to voices. Upper and lower case are one, so that "ANNA:" is Anna.

    Raises:
        ValueError: a name or voice that is empty, or one name twice.
    """

    def __init__(self, voices: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._voices: dict[str, str] = {}
        self._names: dict[str, str] = {}
        for name, voice in voices.items() if isinstance(voices, Mapping) else voices:
            if not isinstance(voice, str) or not voice.strip() or not name.strip() or ":" in name:
                raise ValueError(f"the cast has {name!r} = {voice!r}; expected a name without a colon, and a voice")
            if _folded(name) in self._names:
                raise ValueError(f"the cast has {name.strip()!r} twice")
            self._names[_folded(name)] = name.strip()
            self._voices[name.strip()] = voice.strip()

    @classmethod
    def read(cls, path: str | Path) -> Cast:
        """Reads a cast file: a JSON object of names and voices (`.json`), or a line "Anna = v2/en_speaker_9" for each.

        Empty lines and lines that begin with # do not count. A voice's file is looked for beside the cast file first.

        Raises:
            ScriptError: something else, with its line.
        """
        path = Path(path)
        text = path.read_text(encoding="utf-8-sig")
        pairs = _from_json(text, path) if path.suffix.lower() == ".json" else list(_from_lines(text, path))
        try:
            return cls((name, _beside(voice, path)) for name, voice in pairs)
        except ValueError as error:
            raise ScriptError(str(error), str(path)) from None

    @classmethod
    def from_options(cls, options: Iterable[str]) -> Cast:
        """A cast of texts like "Anna=v2/en_speaker_9".

        Raises:
            ValueError: a text without a name, an equals sign and a voice.
        """
        return cls(_pair(option) for option in options)

    def __or__(self, other: Mapping[str, str]) -> Cast:
        """Both casts; where both have a name, the other's voice counts."""
        theirs = other if isinstance(other, Cast) else Cast(other)
        return Cast({**{name: voice for name, voice in self.items() if theirs.find(name) is None}, **theirs})

    def __getitem__(self, name: str) -> str:
        return self._voices[self._names[_folded(name)]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._voices)

    def __len__(self) -> int:
        return len(self._voices)

    def __repr__(self) -> str:
        return f"Cast({self._voices})"

    def find(self, name: str) -> str | None:
        """The name as the cast spells it; `None` where it does not know it."""
        return self._names.get(_folded(name))

    def unknown(self, name: str) -> str:
        """What to tell of a name that the cast does not know."""
        near = difflib.get_close_matches(name, self, 1)
        known = f"did you mean {near[0]}?" if near else f"the cast has {', '.join(self)}"
        return f"{name!r} is not in the cast; {known}"


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _pair(option: str) -> tuple[str, str]:
    name, equals, voice = (part.strip() for part in option.partition("="))
    if not (name and equals and voice):
        raise ValueError(f"expected a name and a voice as in Anna=v2/en_speaker_9, got {option!r}")
    return name, voice


def _from_lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                yield _pair(line)
            except ValueError as error:
                raise ScriptError(str(error), str(path), number) from None


def _from_json(text: str, path: Path) -> list[tuple[str, str]]:
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except json.JSONDecodeError as error:
        raise ScriptError(f"no JSON: {error.msg}", str(path), error.lineno) from None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) and isinstance(pair[1], str) for pair in pairs):
        raise ScriptError('expected an object of names and voices, as in {"Anna": "v2/en_speaker_9"}', str(path))
    return pairs


def _beside(voice: str, path: Path) -> str:
    """A voice's file beside the cast file, or the voice as it is."""
    file = path.parent / voice
    return str(file) if file.suffix in (".npz", ".safetensors") and file.is_file() else voice
