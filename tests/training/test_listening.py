"""The judge's sentences are fresh, and what it hears is sorted into what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from transformers_bark.training.data import compose_texts, read_sentences, word_runs

RECIPE = Path(__file__).parents[2] / "recipes" / "nano"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RECIPE))
    import fresh

    return fresh


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(RECIPE))
    import listening

    return listening


def test_the_file_holds_what_the_seed_gives_and_training_shares_no_four_words(fresh: ModuleType) -> None:
    written = (RECIPE / "fresh_sentences.txt").read_text(encoding="utf-8").splitlines()
    assert written == fresh.fresh_sentences(RECIPE, 17) and len(set(written)) == 300
    settings = json.loads((RECIPE / "data.json").read_text())
    everyday = json.loads((RECIPE / "everyday.json").read_text())
    corpus = read_sentences(RECIPE / settings["corpus"])
    counts = (settings["n_everyday"], settings["n_words"], settings["seed"])
    texts = compose_texts(corpus, everyday, *counts, read_sentences(RECIPE / settings["held_out"]))
    used = {run for text in texts[: settings["n_texts"]] for run in word_runs(text)}
    assert not any(word_runs(sentence) & used for sentence in written)
    assert fresh.fresh_sentences(RECIPE, 18, 20) != written[:20]


def test_halves_share_nothing_and_hold_both_kinds(fresh: ModuleType) -> None:
    numbers = list(map(str, range(12)))
    assert fresh.halves(numbers) == (["0", "1", "4", "5", "8", "9"], ["2", "3", "6", "7", "10", "11"])


@pytest.mark.parametrize(
    ("said", "heard", "found"),
    [
        ("the boy was there", "the boy was there", []),
        ("the boy was there", "the boy was where", []),
        ("a hot wheel", "a hotwheel", []),
        ("whose rope fell", "who is rope fell", []),
        ("the boy was there when", "the boy there when", ["passed over"]),
        ("the boy was there", "the boy was was there", ["repeated"]),
        ("the boy was there", "the boy was there and then", ["made up at the end"]),
        ("the old boy was there", "the boy was there again now", ["passed over", "made up at the end"]),
    ],
)
def test_slips_are_rows_of_words_gone_wrong(listening: ModuleType, said: str, heard: str, found: list[str]) -> None:
    assert listening.slips(said, heard) == found


def test_a_number_is_the_same_however_it_was_written(listening: ModuleType) -> None:
    assert listening.plain("It's 5 o'clock, Well-known!") == listening.plain("it is five o'clock well known")
    assert listening.plain("Twenty-four dollars, in eighteen fifty") == listening.plain("$24 in 1850.")
    assert listening.plain("At 3 a.m.") == "at 3 a m"
