"""How much a checkpoint can say at once, and how long a text takes to say.

Two things end a generation: the prompt's text tokens, and the semantic tokens that may follow, which are seconds. Tokens
are counted by the checkpoint's own tokenizer; seconds are foretold from the letters, as no tokenizer knows how long its
tokens last: one has a token for a letter, another for a word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import regex

from .pieces import says_something

_SECONDS: dict[str, float] = {
    "han": 0.21,
    "kana": 0.14,
    "hangul": 0.19,
    "digit": 0.30,
    "sign": 0.45,
    "letter": 0.063,
}
"""Seconds that a character of each kind takes, beside the pause of each stop and what a generation takes to begin and end.

Letters, stops and beginnings are fitted to 168 English sentences of the embedded checkpoint's two voices (0.059 and 0.067 s a
letter; what is left has a standard deviation of 0.4 s). The other kinds go by syllables: read speech has four to five a
second in Chinese and Korean, where a character is a syllable, and seven in Japanese, where a kana is a mora.
"""

_KINDS = regex.compile(
    r"(?P<han>\p{Han})|(?P<kana>[\p{Hiragana}\p{Katakana}])|(?P<hangul>\p{Hangul})"
    r"|(?P<digit>\p{N})|(?P<sign>[\p{Sc}%&@])|(?P<letter>\p{L})"
)
_STOPS = regex.compile(
    r"(?<![.!?…。！？।])[.!?…。！？।]++(?=\s|$|[\p{Pe}\p{Pf}\"'])"
    r"|(?<![,;:،，、；：–—])[,;:،，、；：–—]++(?=\s|$|\p{L})|(?<!\S)-(?=\s|$)"
)
_STOP_SECONDS = 0.25
_BEGIN_SECONDS = 0.4

RELEASED_SECONDS = 768 / 49.9
"""What the released models make at most: 768 semantic tokens at 49.9 a second."""


def estimate_seconds(text: str) -> float:
    """About how long it takes to say the text, by its letters, digits and stops; 0 where there is nothing to say."""
    return _BEGIN_SECONDS + _text_seconds(text) if says_something(text) else 0.0


def _text_seconds(text: str) -> float:
    """The seconds of letters and stops alone: those of two texts add up to those of both."""
    letters = sum(_SECONDS[match.lastgroup or ""] for match in _KINDS.finditer(text))
    return letters + _STOP_SECONDS * sum(1 for _ in _STOPS.finditer(text))


@dataclass(frozen=True)
class Limits:
    """What fits into one piece.

    Args:
        tokens: text tokens in the prompt; `None` where only time counts.
        count_tokens: how many tokens a text has. Asked with every run of white space as one space, as the processor reads it.
        seconds: of speech in a generation.
        margin: the share of `seconds` to fill, as speech may be slower than foretold.
        pace: how much slower than foretold a checkpoint or voice speaks: 1.1 takes a tenth longer.
        target: the share of a full piece up to which short neighbours join.
        longest_word: letters in one word; WordPiece reads a longer one as unknown.

    Raises:
        ValueError: a limit that leaves no room, or tokens without a way to count them.
    """

    tokens: int | None = None
    count_tokens: Callable[[str], int] | None = field(default=None, repr=False)
    seconds: float = RELEASED_SECONDS
    margin: float = 0.85  # of 10 seconds, this leaves four standard deviations of what is foretold
    pace: float = 1.0
    target: float = 0.6
    longest_word: int = 100

    def __post_init__(self) -> None:
        if (self.tokens is None) != (self.count_tokens is None):
            raise ValueError("`tokens` and `count_tokens` are given together, or neither")
        for name in ("tokens", "seconds", "pace", "longest_word"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}")
        for name in ("margin", "target"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in (0, 1], got {getattr(self, name)}")
        if self.seconds * self.margin <= self.pace * _BEGIN_SECONDS:
            raise ValueError(f"{self.seconds} seconds are too few to say anything")

    @classmethod
    def of(cls, processor: Any, generation_config: Any = None, **changes: Any) -> Limits:
        """What a checkpoint can say: its prompt from the processor, its seconds from the semantic stage's config.

        Args:
            processor: a `BarkProcessor`.
            generation_config: the model's `BarkGenerationConfig`; `None` has the released models' seconds.
            changes: `margin`, `pace`, `target` or `longest_word`.
        """
        tokenizer = processor.tokenizer

        def count_tokens(text: str) -> int:
            return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

        seconds = RELEASED_SECONDS
        if generation_config is not None:
            semantic = generation_config.semantic_config
            seconds = semantic.max_new_tokens / semantic.semantic_rate_hz
        return cls(tokens=processor.max_length, count_tokens=count_tokens, seconds=seconds, **changes)

    def seconds_of(self, text: str) -> float:
        """About how long this checkpoint takes to say the text."""
        return self.pace * estimate_seconds(text)

    def shares(self, text: str) -> tuple[float, float]:
        """How much of the tokens and of the seconds a text takes; a piece may take 1 of each."""
        tokens = 0.0
        if self.tokens is not None and self.count_tokens is not None:
            tokens = self.count_tokens(" ".join(text.split())) / self.tokens
        return tokens, self.pace * _text_seconds(text) / (self.seconds * self.margin - self.pace * _BEGIN_SECONDS)

    def fits(self, text: str) -> bool:
        """Whether the text can be said in one piece."""
        return max(self.shares(text)) <= 1 and not self.has_long_word(text)

    def has_long_word(self, text: str) -> bool:
        """Whether a word of the text has too many letters to be read as one."""
        return len(text) > self.longest_word and any(
            match.end() - match.start() > self.longest_word for match in _WORDS.finditer(text)
        )


_WORDS = regex.compile(r"[[\w\p{M}]--[\p{Han}]]+", regex.V1)
