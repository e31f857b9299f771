"""Characters that a tokenizer does not know: what stands in for them, and what has to be left out.

Text that the tokenizer knows is never touched, so that released checkpoints read it as they always did.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

_EQUIVALENTS = {
    **dict.fromkeys("‘’‚‛ʼ′´`＇", ("'", " ")),
    **dict.fromkeys("“”„‟«»″＂", ('"', " ")),
    **dict.fromkeys("‐‑‒−﹣－", ("-", " ")),
    **dict.fromkeys("–—―", ("-", ",", " ")),
    "…": ("...", ".", ","),
    "×": ("x",),
    "ß": ("ss",),
    "æ": ("ae",),
    "Æ": ("Ae", "ae"),
    "œ": ("oe",),
    "Œ": ("Oe", "oe"),
    "ø": ("o",),
    "Ø": ("O", "o"),
    "ł": ("l",),
    "Ł": ("L", "l"),
    "đ": ("d",),
    "Đ": ("D", "d"),
    "ı": ("i",),
    "⁄": ("/",),
}
"""Characters to what says the same, in the order of preference. Signs that are not spoken may go."""

_UNSPOKEN = '"()[]{}*_~^|\\<>'
"""Characters that may be left out without a word."""


def known_text(tokenizer: Any, text: str) -> tuple[str, list[str]]:
    """A text in characters that the tokenizer knows, and what of it has no equivalent.

    Args:
        tokenizer: one with an unknown token; others know everything.

    Returns:
        The text, with equivalents where the tokenizer lacks a character, and without those that have none; and these, with
        words that are unknown although their characters are known, each once, in their order.
    """
    unknown_id = tokenizer.unk_token_id
    if unknown_id is None:
        return text, []

    @lru_cache(None)
    def knows(piece: str) -> bool:
        return unknown_id not in tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"]

    if knows(text):
        return text, []
    words, unknown = [], dict[str, None]()
    for word in text.split():
        kept, missing = _known_word(word, knows)
        words.append(kept)
        unknown |= dict.fromkeys(missing)
    return " ".join(words), list(unknown)


def _known_word(word: str, knows: Callable[[str], bool]) -> tuple[str, list[str]]:
    """One word in known characters, and those without an equivalent; the word itself where only that is unknown."""
    for form in (word, unicodedata.normalize("NFC", word)):
        if knows(form):
            return form, []
    kept, missing = "", []
    for character in unicodedata.normalize("NFC", word):
        found = next((piece for piece in (character, *_equivalents(character)) if knows(piece)), None)
        kept += found or ("" if found is not None else " ")
        if found is None:
            missing.append(character)
    kept = " ".join(kept.split())
    return kept, missing or ([] if knows(kept) else [word])


def _equivalents(character: str) -> Iterator[str]:
    """What may stand for a character, best first."""
    yield from _EQUIVALENTS.get(character, ())
    yield unicodedata.normalize("NFKC", character)
    base, *marks = list(unicodedata.normalize("NFKD", character))
    if marks and all("\u0300" <= mark <= "\u036f" for mark in marks):
        yield base  # é is better read as e than not at all
    if "\u0300" <= character <= "\u036f" or character in _UNSPOKEN:
        yield " " if character in _UNSPOKEN else ""


def says_something(tokenizer: Any, text: str) -> bool:
    """Whether the tokenizer knows any letter or digit of a text."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    special = set(tokenizer.all_special_tokens)
    return any(any(map(str.isalnum, token)) for token in tokens if token not in special)
