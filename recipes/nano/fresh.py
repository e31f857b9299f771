"""Writes `fresh_sentences.txt`: 300 sentences that no training text shares four words in a row with.

    python recipes/nano/fresh.py [--seed 17] [--out recipes/nano/fresh_sentences.txt]

Half are phrases of the corpus that the training texts do not use, half are filled from templates of their own. Of four lines the first
two may be used to choose between settings; what is reported comes from the other two (`halves`).
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers_bark.training.data import compose_texts, fill_template, read_sentences, split_phrases, word_runs

HERE = Path(__file__).parent
N_SENTENCES = 300
N_WORDS = range(5, 13)

TEMPLATES = [
    "The {adj} {animal} slept under a {adj} {furniture} all {daypart}.",
    "Did anyone {verb} those {adj} {things} at the {place}?",
    "Nobody remembered why {name} {past} that {adj} {thing}.",
    "If you see {name}, say the {vehicle} is {adjp}.",
    "Several {animals} gathered near our {adj} {place}.",
    "Whose {thing} fell behind the {furniture} {when}?",
    "Put those {things} back where {name} {past} them.",
    "Most {animals} never eat {food} with {drink}.",
    "Our {relative} grew {adjp} during that {weather} {daypart}.",
    "Between {city} and {city} there is only one {place}.",
    "{name} whispered that her {relative} felt {adjp}.",
    "Every {adj} {place} needs at least one {adj} {thing}.",
    "They say {city} looks {adjp} in {weather} {month}.",
    "Either {verb} this {thing} or give it to {name}.",
    "Without {drink} the {animals} became {adjp} very soon.",
    "Until {day} we shared {food} with some {animals}.",
    "Those {color} {things} came from a {place} near {city}.",
    "Why did {name} laugh about my {color} {thing}?",
    "Somebody left {number} {things} beside the {furniture}.",
    "Perhaps {name} and {name} should {go} together.",
]
"""None of them is a template of the training texts."""


_CUT_SHORT = ("mr.", "mrs.", "dr.", "st.", " the.", " a.", " an.", " of.", " to.", " and.")
"""Ends of phrases that were cut where no one would stop."""


def halves(sentences: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sentences to choose by, and those to report; phrases and templates are in both."""
    parts = ([s for number, s in enumerate(sentences) if number // 2 % 2 == half] for half in (0, 1))
    return next(parts), next(parts)


def _candidates(corpus: Sequence[str], slots: dict[str, list[str]], rng: random.Random) -> Iterator[str]:
    """Phrases and filled templates, one after the other, without end."""
    phrases = [phrase for sentence in corpus for phrase in split_phrases(sentence, rng)]
    rng.shuffle(phrases)
    for phrase in phrases:
        yield phrase[0].upper() + phrase[1:].rstrip(",;:-") + ("" if phrase[-1] in ".!?" else ".")
        yield fill_template(rng.choice(TEMPLATES), slots, rng)


def fresh_sentences(recipe: Path, seed: int, n_sentences: int = N_SENTENCES) -> list[str]:
    """The sentences, by the seed; half of them phrases of the corpus.

    Raises:
        ValueError: the corpus does not hold so many.
    """
    settings = json.loads((recipe / "data.json").read_text(encoding="utf-8"))
    everyday = json.loads((recipe / "everyday.json").read_text(encoding="utf-8"))
    corpus = read_sentences(recipe / settings["corpus"])
    held_out = read_sentences(recipe / settings["held_out"])
    counts = (settings["n_everyday"], settings["n_words"], settings["seed"])
    used = compose_texts(corpus, everyday, *counts, held_out)[: settings["n_texts"]]
    taken = {run for text in used for run in word_runs(text)}
    chosen: list[str] = []
    for number, text in enumerate(_candidates(corpus, everyday["slots"], random.Random(seed))):
        wanted = len(chosen) % 2 == number % 2  # phrases and templates take turns
        if wanted and len(text.split()) in N_WORDS and not any(c.isdigit() for c in text):
            runs = word_runs(text)
            if not runs & taken and not text.lower().endswith(_CUT_SHORT):
                chosen.append(text)
                taken |= runs
        if len(chosen) == n_sentences:
            return chosen
    raise ValueError(f"{recipe / settings['corpus']} holds {len(chosen)} such sentences, {n_sentences} were asked for")


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--out", type=Path, default=HERE / "fresh_sentences.txt")
    options = parser.parse_args()
    options.out.write_text("\n".join(fresh_sentences(HERE, options.seed)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
