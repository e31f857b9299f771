"""What the precisions of the engine `onnxruntime` change: every next token of real texts, given the same tokens before it.

    python benchmarks/precision.py [--model FOLDER] [--sentences FILE]

The texts are spoken once in fp32. Then each precision reads the same tokens, and its distribution of every next one is compared
with that of fp32: how often the likeliest token is the same, and the Kullback-Leibler divergence. What a listener hears of it:
`python recipes/nano/judge.py --engine onnxruntime --precision int8`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, modeling_base
from transformers_bark.generation import fine, sampling

SENTENCES = Path(__file__).parents[1] / "recipes" / "nano" / "eval_sentences.txt"
ROWS = {
    "int8": ("int8", "fp32"),
    "int8, int8 cache": ("int8", "int8"),
    "int4": ("int4", "fp32"),
    "int4, int8 cache": ("int4", "int8"),
}
"""Precision of the weights, and of the keys and values."""


class Recorder:
    """An engine that notes the logits of every call, by stage."""

    def __init__(self, engine: Any, stage: str, notes: dict[str, list[Tensor]]) -> None:
        self.engine, self.stage, self.notes = engine, stage, notes

    def _note(self, logits: Tensor) -> None:
        self.notes[self.stage].append(logits.reshape(-1, logits.shape[-1]).float().log_softmax(-1))

    def prefill(self, *arguments: Any) -> Any:
        result = self.engine.prefill(*arguments)
        self._note(result[0])
        return result

    def step(self, state: Any, tokens: Tensor, span: Any = None, foresight: Any = None) -> Any:
        # without foresight: the tokens that are replayed are not those which it would choose
        result = self.engine.step(state, tokens, span)
        self._note(result[0])
        return result

    def keep_rows(self, *arguments: Any) -> Any:
        return self.engine.keep_rows(*arguments)

    def forward(self, *arguments: Any) -> Tensor:
        logits = self.engine.forward(*arguments)
        self._note(logits)
        return logits


class Replay:
    """Stands in for the choice of tokens: chooses in the first run, and says the same again in those after it."""

    def __init__(self) -> None:
        self.tokens: list[Tensor] = []
        self.place = 0
        self.recording = True

    def rewind(self) -> None:
        self.place, self.recording = 0, False

    def standing_in_for(self, choose: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """The function of probabilities and random numbers that replaces `choose`."""

        def replayed(probs: Tensor, numbers: Tensor) -> Tensor:
            if self.recording:
                self.tokens.append(choose(probs, numbers))
            self.place += 1
            return self.tokens[self.place - 1]

        return replayed


def notes_of(
    model: BarkModel, processor: BarkProcessor, sentence: str, precision: str, cache: str
) -> dict[str, list[Tensor]]:
    """Log-probabilities of every token, by stage, for one sentence."""
    notes: dict[str, list[Tensor]] = defaultdict(list)
    model.set_engine("onnxruntime", precision, cache_precision=cache)
    parts = {"semantic": model.semantic, "coarse": model.coarse_acoustics, "fine": model.fine_acoustics}
    recorders = {part: Recorder(part.engine, stage, notes) for stage, part in parts.items()}
    with mock.patch.object(modeling_base, "engine_of", lambda part, choice: recorders[part]):
        model.generate(**processor(sentence), seed=0, progress=False, do_sample=True, min_eos_p=None)
    return notes


def compare(exact: list[Tensor], other: list[Tensor]) -> tuple[float, float]:
    """How often the likeliest token is the same, and the divergence in nats: lists of log-probabilities [n, token]."""
    same = torch.cat([(a.argmax(-1) == b.argmax(-1)).float() for a, b in zip(exact, other, strict=True)])
    pairs = zip(exact, other, strict=True)
    divergence = torch.cat([(a.exp() * (a - b).nan_to_num(0.0)).sum(-1) for a, b in pairs])
    return float(same.mean()), float(divergence.mean())


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=BARK_NANO)
    parser.add_argument("--sentences", type=Path, default=SENTENCES)
    options = parser.parse_args()
    model, processor = BarkModel.from_pretrained(options.model).eval(), BarkProcessor.from_pretrained(options.model)
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for sentence in filter(None, options.sentences.read_text(encoding="utf-8").splitlines()):
        replay = Replay()
        with (
            mock.patch.object(sampling, "race", replay.standing_in_for(sampling.race)),
            mock.patch.object(fine, "choose", replay.standing_in_for(fine.choose)),
        ):
            exact = notes_of(model, processor, sentence, "fp32", "fp32")
            for name, precisions in ROWS.items():
                replay.rewind()
                other = notes_of(model, processor, sentence, *precisions)
                for stage in exact:
                    found[name, stage].append(compare(exact[stage], other[stage]))
    print("| precision | stage | same likeliest token | divergence, nats |\n|---|---|---|---|")
    for (name, stage), pairs in found.items():
        same, divergence = (sum(part) / len(part) for part in zip(*pairs, strict=True))
        print(f"| {name} | {stage} | {same:.1%} | {divergence:.4f} |")


if __name__ == "__main__":
    main()
