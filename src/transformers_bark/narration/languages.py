"""Which language a text is in: as given, else by the voice's name, else by its script."""

from __future__ import annotations

import regex

LANGUAGES = ("de", "en", "es", "fr", "hi", "it", "ja", "ko", "pl", "pt", "ru", "tr", "zh")
"""Languages of the released voices."""

_VOICE = regex.compile(r"(?:^|[/\\])([a-z]{2})_[^/\\]*$")
_SCRIPTS = {
    "ja": regex.compile(r"[\p{Hiragana}\p{Katakana}]"),  # before Han, which Japanese writes too
    "ko": regex.compile(r"\p{Hangul}"),
    "zh": regex.compile(r"\p{Han}"),
    "hi": regex.compile(r"\p{Devanagari}"),
    "ru": regex.compile(r"\p{Cyrillic}"),
}
_LETTER = regex.compile(r"\p{L}")
_ENOUGH = 0.2  # of the letters: a foreign name does not change the language


def of_voice(voice: str | None) -> str | None:
    """The language in a voice's name, as in "v2/de_speaker_3"; `None` where it names none."""
    match = _VOICE.search(voice or "")
    return match.group(1) if match is not None and match.group(1) in LANGUAGES else None


def of_script(text: str) -> str:
    """The language that writes in this text's script. Latin letters say little: they count as English."""
    letters = sum(1 for _ in _LETTER.finditer(text))
    for language, script in _SCRIPTS.items():
        if sum(1 for _ in script.finditer(text)) > _ENOUGH * letters:
            return language
    return "en"


def find(text: str, voice: str | None = None, given: str | None = None) -> str:
    """The language of a text: `given`, else the voice's, else the script's."""
    return given or of_voice(voice) or of_script(text)
