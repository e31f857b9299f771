"""What a recogniser wrote down, beside what was to be said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from transformers_bark.narration import recogniser


def plain(text: str) -> str:
    """Lower-case words, in which a number is the same however it was written; no stop that Whisper's normalizer left alone."""
    return " ".join(re.findall(r"[a-z0-9$£€%']+", recogniser.plain(text, "en")))


def _letters(words: Sequence[str]) -> str:
    return re.sub(r"[^a-z0-9]", "", "".join(words))


def slips(said: str, heard: str) -> list[str]:
    """What is wrong with the row of words, not with a word: "passed over", "repeated", "made up at the end", each once at most.

    A word that was heard as another is none of them, nor are two words written as one or one as two.

    Args:
        said, heard: texts as `plain` gives them.
    """
    wanted, got = said.split(), heard.split()
    found: list[str] = []
    for kind, a, b, c, d in SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes():
        more = (d - c) - (b - a)
        if kind == "equal" or not more or _letters(wanted[a:b]) == _letters(got[c:d]):
            continue
        if kind == "replace" and _alike(wanted[a:b], got[c:d]):
            continue
        if more < 0:
            found.append("passed over")
        elif b == len(wanted):
            found.append("made up at the end")
        elif set(got[c:d]) & set(wanted[max(0, a - (d - c)) : b + (d - c)]):
            found.append("repeated")
    return list(dict.fromkeys(found))


def _alike(wanted: Sequence[str], got: Sequence[str]) -> bool:
    """Whether the same sounds may have been parted into words another way: about as many letters."""
    one, other = len(_letters(wanted)), len(_letters(got))
    return abs(one - other) <= max(2, 0.25 * one)
