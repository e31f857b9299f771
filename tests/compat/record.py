"""Records what the embedded checkpoint says, for `tests/compat/test_core.py`: `python -m tests.compat.record`.

The recorded tokens must be the same on every processor and in every release, where sums round differently. So each case was chosen
for its margins: at every step the token that was taken is ahead of the next by more than 0.02 in its logit (greedy), or its
waiting time is shorter by more than a tenth (sampled), while rounding moves a logit by about 0.00001. The margins are
recorded too, and a case without them is refused. In the fine stage some codes are nearly as good as others and any machine may
choose between them: what is compared there is how likely the model finds the recorded codes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from transformers_bark import BARK_NANO, BarkModel, BarkProcessor
from transformers_bark.generation import sampling
from transformers_bark.generation.sampling import race

FILE = Path(__file__).with_name("recorded.json")
CASES: list[dict[str, Any]] = [
    {"text": "Wait.", "options": {"do_sample": False}},
    {"text": "Come in.", "voice": "en_heart", "options": {"do_sample": True, "seed": 2}},
    {"text": "Ten.", "voice": "en_bright", "options": {"do_sample": False}},
    {"text": "Stop.", "options": {"do_sample": True, "seed": 0}},
]
LEAST_MARGIN = 0.02
LEAST_RATIO = 1.1


class Margins(TorchFunctionMode):
    """Notes how far the best token is ahead of the second at each choice: by difference of logits, by ratio of waiting times."""

    def __init__(self) -> None:
        super().__init__()
        self.differences: list[float] = []
        self.ratios: list[float] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") == "max" and args[1:] == (-1,) and args[0].is_floating_point():
            first, second = args[0].topk(2, dim=-1).values.unbind(-1)
            self.differences.append(float((first - second).min()))
        return function(*args, **(kwargs or {}))

    def race(self, probs: np.ndarray, waits: np.ndarray) -> np.ndarray:
        """`sampling.race`, noted."""
        with np.errstate(divide="ignore"):
            shortest = np.partition(waits / probs, 1, axis=-1)
        self.ratios.append(float((shortest[:, 1] / shortest[:, 0]).min()))
        return race(probs, waits)


def digest() -> str:
    """SHA-256 of the weights that the tokens were recorded with."""
    return hashlib.sha256((Path(BARK_NANO) / "model.safetensors").read_bytes()).hexdigest()


def speak(model: BarkModel, processor: BarkProcessor, case: dict[str, Any]) -> Any:
    """What a case says, the fine stage greedy; in single precision on the CPU."""
    inputs = processor(case["text"], voice_preset=case.get("voice"))
    return model.generate(**inputs, **case["options"], fine_temperature=None, return_dict_in_generate=True)


@torch.no_grad()
def fine_losses(model: BarkModel, codes: Tensor) -> list[float]:
    """Codes [codebook, frame] -> mean cross-entropy of each codebook after the coarse ones, given those before it."""
    rows = codes.T[None]
    n_coarse = model.generation_config.coarse_acoustics_config.n_coarse_codebooks
    return [float(model.fine_acoustics(k, rows, labels=rows[..., k]).loss) for k in range(n_coarse, len(codes))]


def record(model: BarkModel, processor: BarkProcessor, case: dict[str, Any]) -> dict[str, Any]:
    """A case with its tokens and margins.

    Raises:
        ValueError: a margin that another processor's rounding might turn.
    """
    margins = Margins()
    with margins, mock.patch.object(sampling, "race", margins.race):
        output = speak(model, processor, case)
    semantic, coarse, fine = output.semantic_tokens[0], output.coarse_codes[0], output.fine_codes[0]
    if case["options"]["do_sample"]:
        least, margin = LEAST_RATIO, min(margins.ratios)
    else:
        # the end of the row is a choice too; what follows are the fine stage's
        least, margin = LEAST_MARGIN, min(margins.differences[: len(semantic) + 1 + coarse.numel()])
    if margin < least:
        raise ValueError(
            f"{case['text']!r} {case['options']} has a margin of {margin:.4f}: choose another text or seed"
        )
    tokens = {"semantic": semantic.tolist(), "coarse": coarse.tolist(), "fine": fine.tolist()}
    return {**case, "margin": round(margin, 4), **tokens, "fine_losses": fine_losses(model, fine)}


def main() -> int:
    torch.set_num_threads(1)
    model = BarkModel.from_pretrained(BARK_NANO, dtype=torch.float32).eval()
    processor = BarkProcessor.from_pretrained(BARK_NANO)
    cases = [record(model, processor, case) for case in CASES]
    FILE.write_text(json.dumps({"weights": digest(), "cases": cases}) + "\n", encoding="utf-8")
    for case in cases:
        print(f"{case['text']!r} {case['options']}: {len(case['semantic'])} semantic tokens, margin {case['margin']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
