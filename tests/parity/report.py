"""`make parity`: prints how far this package is from its two oracles, and fails if it is anywhere but equal."""

from __future__ import annotations

import sys
from collections import Counter

import torch

from tests.parity.cases import equals_original, equals_stock, logit_differences, sampling_case
from tests.parity.oracles import VOICES, Original, load_voice, make_models

N_ORIGINAL = 24
N_STOCK = 8


def main() -> int:
    """Prints the report; 1 when a logit or a token differs."""
    differences: dict[str, float] = {}
    stock_equal = 0
    for seed in range(2):
        models = make_models(seed)
        for key, value in logit_differences(models).items():
            differences[key] = max(value, differences.get(key, 0.0))
        for number in range(N_STOCK // 2):
            voice = load_voice(VOICES[number % len(VOICES)]) if number % 2 else None
            stock_equal += equals_stock(models, number, [12 + number] if number < 2 else [9, 21], voice)
    print("largest logit difference from stock Transformers (fp32)")
    for key, value in differences.items():
        print(f"  {key:55s} {value:.1e}")
    print(f"largest of all: {max(differences.values()):.1e}")
    print(f"greedy runs of the whole chain equal to stock Transformers: {stock_equal} of {N_STOCK}")

    equal: Counter[str] = Counter()
    for number in range(N_ORIGINAL):
        # a new model every third case: 8 random models, 24 inputs
        if number % 3 == 0:
            models = make_models(100 + number)
            original = Original(models.ours)
        result = equals_original(models, original, sampling_case(number))
        equal.update(stage for stage, same in result.items() if same)
        equal["all stages"] += all(result.values())
    for stage in ("semantic", "coarse", "fine", "chain", "all stages"):
        name = {"chain": "in one call", "all stages": "all of these"}.get(stage, f"{stage} stage")
        print(f"runs token-equal to the original library, {name}: {equal[stage]} of {N_ORIGINAL}")
    good = max(differences.values()) <= 1e-5 and stock_equal == N_STOCK and equal["all stages"] == N_ORIGINAL
    print("parity holds" if good else "PARITY FAILS")
    return 0 if good else 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
