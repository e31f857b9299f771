"""No character is lost, every stretch fits, and a text is divided where it hurts least."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.narration.texts import LONG_WORD, ODD, TEXTS, count_tokens
from transformers_bark.narration import sentences
from transformers_bark.narration.limits import Limits
from transformers_bark.narration.pieces import trimmed

SMALL = Limits(tokens=24, count_tokens=count_tokens, seconds=4.0)
NANO = Limits(tokens=96, count_tokens=count_tokens, seconds=10.0)
RELEASED = Limits()
LIMITS = pytest.mark.parametrize("limits", [SMALL, NANO, RELEASED], ids=["small", "nano", "released"])


def divided(text: str, limits: Limits, language: str = "en") -> list[str]:
    """The stretches' texts, once checked: in order, nothing but white space between them, none too long, no character torn."""
    stretches = sentences.split(text, limits, language)
    edges = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    at = 0
    for one in stretches:
        start, end = trimmed(text, at, one.start)
        assert start == end, f"{text[at : one.start]!r} is lost"
        stretch = text[one.start : one.end]
        assert stretch and trimmed(stretch) == (0, len(stretch))
        if len(regex.findall(r"\X", stretch)) > 1 or limits.fits(stretch):
            assert limits.fits(stretch), stretch
            assert one.start in edges and one.end in edges or _torn_as_it_must(text, one.start, limits)
        at = one.end
    start, end = trimmed(text, at, len(text))
    assert start == end, f"{text[at:]!r} is lost"
    return [text[one.start : one.end] for one in stretches]


def _torn_as_it_must(text: str, offset: int, limits: Limits) -> bool:
    """Whether the character around an offset is longer than a whole generation."""
    around = next(match for match in regex.finditer(r"\X", text) if match.start() <= offset < match.end())
    return not limits.fits(around.group())


PARTS = st.sampled_from(
    [
        *".!?,;:…—-。！？，、।\"'“”«»「」()[] \n\t\u00a0\u3000\x85",
        "♪",
        "[laughs]",
        "Mr.",
        "z. B.",
        "J. R.",
        "3.5",
        "e\u0301",
        "\u0301",
        "\u200d",
    ]
    + [
        "👨‍👩‍👧",
        "👍🏽",
        "नमस्ते",
        "क्ष",
        "ความ",
        "世界",
        "カタカナ",
        "안녕",
        "word",
        "a",
        "https://a.org/b,c",
        "x" * 150,
        "\r\n",
        "\u200b",
    ]
)


@settings(max_examples=300)
@given(st.lists(PARTS, max_size=40).map("".join) | st.text(max_size=200), st.sampled_from([*TEXTS, "xx"]))
def test_nothing_is_lost_of_random_texts(text: str, language: str) -> None:
    for limits in (SMALL, NANO, RELEASED):
        divided(text, limits, language)


@LIMITS
@pytest.mark.parametrize("language", TEXTS)
def test_nothing_is_lost_of_real_texts(language: str, limits: Limits) -> None:
    for count in (1, 5):
        divided(" ".join([TEXTS[language]] * count), limits, language)


@LIMITS
@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text[:12]))
def test_nothing_is_lost_of_odd_texts(text: str, limits: Limits) -> None:
    divided(text, limits)


def test_a_text_without_white_space_between_is_joined_again() -> None:
    assert "".join(divided(LONG_WORD, NANO)) == LONG_WORD
    assert len(LONG_WORD) == 5000


@pytest.mark.parametrize("language", TEXTS)
def test_sentences_come_first(language: str) -> None:
    """With room for the longest sentence, no sentence of any language is divided inside."""
    stretches = sentences.split(" ".join([TEXTS[language]] * 3), RELEASED, language)
    assert {one.boundary for one in stretches} == {"sentence"}
    assert len(stretches) > 1


def test_a_long_speech_is_divided_between_its_sentences() -> None:
    speech = (
        "“Well!” thought Alice. “I shall go, as Mr. Fox did. How brave they are! Why, I would not say anything, even so.” "
        "(It was true. Or not.)"
    )
    for tokens in range(60, 100, 5):
        parts = divided(speech, Limits(tokens=tokens, count_tokens=count_tokens, seconds=60))
        assert len(parts) > 1 and all(part[-1] in ".!”)" for part in parts), parts


def test_then_clauses_then_words_then_characters() -> None:
    clauses = (
        "the first part of it is here, and the second part is there; the third and the very last of all is nowhere"
    )
    assert divided(clauses, Limits(tokens=30, count_tokens=count_tokens, seconds=60)) == [
        "the first part of it is here,",
        "and the second part is there;",
        "the third and the very",
        "last of all is nowhere",
    ]
    assert divided("abcdefghij" * 5, Limits(tokens=20, count_tokens=count_tokens)) == [
        "abcdefghijabcdefg",
        "hijabcdefghijabc",
        "defghijabcdefghij",
    ]


def test_short_neighbours_join_up_to_the_target() -> None:
    text = " ".join(["Yes. No. Why? I see."] * 6)
    parts = divided(text, NANO)
    assert len(parts) < 5
    shares = [max(NANO.shares(part)) for part in parts]
    assert min(shares) > NANO.target / 2 and max(shares) < 0.9


def test_no_short_rest_is_left() -> None:
    """A sentence a little longer than a piece is halved, and not filled up with a word left over."""
    sentence = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
    assert 1 < max(NANO.shares(sentence)) < 1.3
    halves = divided(sentence, NANO)
    assert len(halves) == 2 and abs(len(halves[0]) - len(halves[1])) < 20


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("[clears throat slowly, and then. Again]", "en"),
        ("♪ one, two. Three! ♪", "en"),
        ("https://example.org/a,b.c?d=e", "en"),
    ],
)
def test_what_belongs_together_stays_together(text: str, language: str) -> None:
    whole = f"He spoke for a while of one thing and of another, {text} and then he went on to speak of something else for long."
    for tokens in range(len(text) + 2, 100, 3):
        limits = Limits(tokens=tokens, count_tokens=count_tokens, seconds=60)
        assert any(text in part for part in divided(whole, limits, language)), tokens


def test_unspaced_lines_do_not_begin_with_a_stop() -> None:
    text = "今日はとてもいい天気ですから散歩に行きましょうと彼女は言って、それから外に出ていった。" * 3
    for tokens in range(8, 40):
        for part in divided(text, Limits(tokens=tokens, count_tokens=count_tokens), "ja"):
            assert part[0] not in "、。", part


def test_a_fault_of_the_sentence_finder_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentences.sentencex, "segment", lambda language, text: [text[:-1]])
    assert divided("One. Two.", RELEASED) == ["One. Two."]


def test_joined_tokens_may_be_more_than_the_parts_have() -> None:
    """A tokenizer that counts a whole as more than its parts still gets stretches that fit."""

    def count(text: str) -> int:
        return len(text.split()) ** 2

    limits = Limits(tokens=30, count_tokens=count, seconds=100)
    parts = divided("Ah oh. " * 40, limits)
    assert all(count(part) <= 30 for part in parts)


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\x85", "\u2028", "\u3000"])
def test_any_white_space_divides_as_a_space_does(space: str) -> None:
    text = " ".join([TEXTS["en"]] * 3)
    assert sentences.split(text.replace(" ", space), RELEASED) == sentences.split(text, RELEASED)


def test_a_quotation_mark_stays_with_the_sentence_that_it_opens() -> None:
    text = "I cried for a good long while. 'Tis so, said he at last."
    limits = Limits(tokens=26, count_tokens=count_tokens, seconds=60)
    assert divided(text, limits) == ["I cried for a good long while.", "'Tis so, said he at last."]
