"""What a checkpoint can say, from its own configs; and how long a text takes, held against what was measured."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.narration.texts import TEXTS, count_tokens
from transformers_bark import BARK_NANO, BarkGenerationConfig, BarkProcessor
from transformers_bark.narration import Limits, read
from transformers_bark.narration.languages import find, of_voice
from transformers_bark.narration.limits import RELEASED_SECONDS, estimate_seconds
from transformers_bark.narration.pieces import says_something

MEASURED = {
    "By degrees, however,": 2.35,
    "After that he worked alone.": 1.89,
    "this is the ideal type of weapon for moving targets": 3.17,
    "called for a roast duck directly he entered the condemned cell.": 3.62,
    "for none of the many building inscriptions from Nebuchadnezzar mentions them.": 4.78,
    "the whole manufactured while in the condemned cell of the crumb of bread made into paste.": 5.28,
    "He had been in the employ of a corn-chandler at Islington, and went into London with his master's cart and horse.": 6.54,
    "and was so unfit to sleep on that it had not been used for many years, so that the men and women associated together "
    "indiscriminately.": 7.8,
}
"""Seconds of the embedded checkpoint's two voices, the mean of both."""

needs_nano = pytest.mark.skipif(not Path(BARK_NANO, "config.json").exists(), reason="the checkpoint is not built")


@needs_nano
def test_limits_are_those_of_the_checkpoint() -> None:
    processor = BarkProcessor.from_pretrained(BARK_NANO)
    config = BarkGenerationConfig.from_pretrained(BARK_NANO)
    limits = Limits.of(processor, config, margin=0.9)
    semantic = config.semantic_config
    assert limits.tokens == semantic.max_input_semantic_length == 96
    assert limits.seconds == semantic.max_new_tokens / semantic.semantic_rate_hz == 10
    assert limits.margin == 0.9
    assert Limits.of(processor).seconds == Limits().seconds == RELEASED_SECONDS


@needs_nano
def test_the_processor_cuts_no_piece() -> None:
    """Every piece of a long text goes through the checkpoint's processor without the warning that its end is cut off."""
    processor = BarkProcessor.from_pretrained(BARK_NANO)
    text = " ".join([*MEASURED] * 3) + "\n\n" + "word " * 300 + "\n\n" + "o" * 5000
    script = read(text, limits=Limits.of(processor, BarkGenerationConfig.from_pretrained(BARK_NANO)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = processor([piece.text for piece in script])
    assert script.text == text
    assert inputs["attention_mask"].sum(1).max() <= 96
    assert (
        inputs["input_ids"] == processor.tokenizer.unk_token_id
    ).sum() == 0  # a word of over 100 letters would be one


def test_seconds_are_about_those_measured() -> None:
    for text, seconds in MEASURED.items():
        assert estimate_seconds(text) == pytest.approx(seconds, rel=0.25), text


def test_seconds_of_every_language_are_those_of_speech() -> None:
    """People read about 10 to 20 letters a second, or 3 to 7 Chinese or Korean characters."""
    for language, text in TEXTS.items():
        characters = sum(1 for character in text if says_something(character))
        low, high = {"zh": (3, 7), "ko": (3, 7), "ja": (4, 9)}.get(language, (7, 20))
        assert low < characters / estimate_seconds(text) < high, language
    assert estimate_seconds("… ♪ !") == 0


@pytest.mark.parametrize(
    ("values", "name"),
    [({"tokens": 10}, "tokens"), ({"count_tokens": count_tokens}, "tokens"), ({"seconds": 0}, "seconds")]
    + [({"margin": 1.1}, "margin"), ({"target": 0}, "target"), ({"pace": -1}, "pace"), ({"seconds": 0.3}, "too few")]
    + [({"tokens": 0, "count_tokens": count_tokens}, "tokens"), ({"longest_word": 0}, "longest_word")],
)
def test_limits_that_leave_no_room(values: dict, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**values)


def test_a_slower_pace_makes_more_pieces() -> None:
    text = " ".join(MEASURED)
    counts = [len(read(text, limits=Limits(pace=pace))) for pace in (0.5, 1, 2, 4)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("language", TEXTS)
def test_the_language_is_as_given_else_the_voices_else_the_scripts(language: str) -> None:
    by_script = language if language in ("hi", "ja", "ko", "ru", "zh") else "en"
    assert find(TEXTS[language]) == by_script
    assert find(TEXTS[language], f"v2/{language}_speaker_3") == language
    assert find(TEXTS[language], "v2/pl_speaker_3", "tr") == "tr"


def test_voices_without_a_language() -> None:
    for voice in (None, "announcer", "my_voice.npz", "v2/xx_speaker_1", "en", "folder/de_x/anna.npz"):
        assert of_voice(voice) is None, voice
    assert of_voice("en_heart") == of_voice("voices/en_mine.npz") == "en"


def test_a_foreign_name_does_not_change_the_language() -> None:
    assert find("The city of 北京 is large, and Чехов wrote in Moscow.") == "en"
    assert find("東京タワーへ行く") == "ja"
    assert find("") == "en"


def test_the_seconds_of_parts_are_at_least_those_of_the_whole() -> None:
    """Else pieces that are joined by their sums would not fit."""
    for text in [*TEXTS.values(), "a - b - c", "a.b.c ... d", "( - )"]:
        whole = Limits(seconds=60).shares(text)[1]
        for cut in range(len(text)):
            left, right = (Limits(seconds=60).shares(part)[1] for part in (text[:cut], text[cut:]))
            assert left + right >= whole - 1e-9, (text[:cut], text[cut:])
