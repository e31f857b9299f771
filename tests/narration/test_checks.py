"""What the checks find in signals that are made to fail, and that they leave good ones alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor
from transformers_bark.narration import Limits
from transformers_bark.narration.alignment import Aligner, Alignment, Word, best_way, read_words
from transformers_bark.narration.checks import Checked, check, longest_repeat

RATE = 24_000
TEXT = "The bird sang in the old tree."
LIMITS = Limits()


def speech(seconds: float, level: float = 0.2) -> np.ndarray:
    """Noise of a level."""
    return (np.random.default_rng(0).standard_normal(round(seconds * RATE)) * level).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def checked(*parts: np.ndarray, **more: object) -> Checked:
    tokens = more.pop("tokens", np.random.default_rng(1).integers(0, 500, 80).tolist())
    return check(TEXT, np.concatenate(parts), RATE, tokens, 40.0, LIMITS, **more)  # type: ignore[arg-type]


def kinds(result: Checked) -> list[str]:
    return [doubt.kind for doubt in result.doubts]


GOOD = LIMITS.seconds_of(TEXT)


def test_good_speech_has_no_doubts_and_loses_only_silence() -> None:
    result = checked(silence(0.3), speech(GOOD), silence(0.5))
    assert not result.doubts
    assert GOOD <= len(result.audio) / RATE <= GOOD + 0.15
    assert np.abs(result.audio[: RATE // 20]).max() > 0.1


@pytest.mark.parametrize(
    ("parts", "more", "kind"),
    [
        ([silence(GOOD)], {}, "silent"),
        ([speech(GOOD, 0.005)], {}, "quiet"),
        ([speech(0.4)], {}, "short"),
        ([speech(2.5 * GOOD)], {}, "long"),
        ([speech(GOOD)], {"at_limit": True}, "limit"),
        ([speech(GOOD, 3.0).clip(-1, 1)], {}, "clipped"),
        ([speech(GOOD / 2), silence(1.5), speech(GOOD / 2)], {}, "pause"),
        ([speech(GOOD)], {"tokens": [*range(40), *range(40)]}, "loop"),
        ([speech(GOOD)], {"tokens": [3] * 60}, "loop"),
    ],
)
def test_what_is_wrong_is_found(parts: list[np.ndarray], more: dict, kind: str) -> None:
    assert kind in kinds(checked(*parts, **more))


def test_words_said_twice_in_the_text_are_no_loop() -> None:
    tokens = [*range(30), *range(30)]
    text = "over the hill and far away, over the hill and far away"
    audio = speech(LIMITS.seconds_of(text))
    assert not check(text, audio, RATE, tokens, 10.0, LIMITS).doubts
    assert check("over the hill and far away, and then he saw the sea", audio, RATE, tokens, 10.0, LIMITS).doubts


def test_a_tail_after_the_last_word_is_cut_off() -> None:
    words = tuple(Word(word, n * GOOD / 7, (n + 1) * GOOD / 7) for n, word in enumerate(TEXT.split()))
    result = checked(speech(GOOD), silence(0.4), speech(1.2), alignment=Alignment(words))
    assert "tail" in kinds(result) and result.penalty == 0
    assert len(result.audio) / RATE < GOOD + 0.6
    assert "tail" not in kinds(checked(speech(GOOD), silence(0.4), alignment=Alignment(words)))


def test_words_begin_where_they_are_heard() -> None:
    words = (Word("The", 0.0, 0.9), Word("bird", 0.9, 2.0))
    result = checked(silence(0.5), speech(0.4), silence(0.3), speech(0.8), alignment=Alignment(words))
    assert result.words is not None
    np.testing.assert_allclose(
        [(word.start, word.end) for word in result.words], [(0.02, 0.42), (0.72, 1.52)], atol=0.011
    )


def test_the_longest_repeat() -> None:
    assert longest_repeat([1, 2, 3, 9, 1, 2, 3, 8]) == 3
    assert longest_repeat([5] * 30) == 0
    assert longest_repeat([1, 2, 1, 2, 1, 2]) == 2  # without overlap
    assert longest_repeat(list(range(50))) == 0
    assert longest_repeat([]) == 0


def attention(path: list[int], n_text: int) -> np.ndarray:
    weights = np.full((len(path), n_text), 0.01)
    weights[np.arange(len(path)), path] = 1.0
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("path", "skipped", "repeated"),
    [
        ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], (), ()),
        ([0, 0, 1, 1, 4, 4, 5, 5, 5, 5, 5, 5], (1,), ()),
        ([0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5], (), (0, 1)),
        ([0, 0, 1, 1, 2, 0, 3, 3, 4, 4, 5, 5], (), ()),  # a token astray is no word said twice
    ],
)
def test_skipped_and_repeated_words(path: list[int], skipped: tuple, repeated: tuple) -> None:
    way = best_way(attention(path, 6))
    found = read_words(["one", "two", "three"], np.array([0, 0, 1, 1, 2, 2]), way, 0.1)
    assert (found.skipped, found.repeated) == (skipped, repeated)


@pytest.fixture(scope="module")
def nano() -> tuple[BarkModel, BarkProcessor]:
    return BarkModel.from_pretrained(BARK_NANO).eval(), BarkProcessor.from_pretrained(BARK_NANO)


def test_the_embedded_checkpoint_tells_when_words_are_said(nano: tuple[BarkModel, BarkProcessor]) -> None:
    model, processor = nano
    text = "The boat left the “harbour” at dawn."
    output = model.generate(**processor(text), seed=1, return_dict_in_generate=True)
    aligner = Aligner(model, processor)
    found = aligner(text, output.semantic_tokens[0])
    assert [word.text for word in found.words] == text.split() and not found.skipped
    times = [time for word in found.words for time in (word.start, word.end)]
    assert times == sorted(times) and all(word.end > word.start for word in found.words)
    assert times[-1] <= output.audio_lengths[0] / RATE + 0.03
    longer = aligner("The boat left the “harbour” at dawn, and nobody saw it again.", output.semantic_tokens[0])
    assert {longer.words[place].text for place in longer.skipped} >= {"nobody", "saw"}
    empty = aligner(text, torch.zeros(0, dtype=torch.long))
    assert [word.text for word in empty.words] == text.split()


def test_a_checkpoint_without_heads_or_weights_is_not_aligned(model: BarkModel, checkpoint: object) -> None:
    assert Aligner.of(model, None) is None
    with pytest.raises(ValueError, match="alignment_heads"):
        Aligner(model, None)


def test_the_heads_survive_saving(nano: tuple[BarkModel, BarkProcessor], tmp_path: object) -> None:
    config = nano[0].config
    config.save_pretrained(tmp_path)
    loaded = type(config).from_pretrained(tmp_path)
    assert loaded.semantic_config.alignment_heads == [[1, 0], [2, 0]]
