"""Builds checkpoints in the original's format with random weights: small, with the released vocabularies."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

SIZES = {
    "text": {"input_vocab_size": 129_600, "output_vocab_size": 10_048, "block_size": 320, "n_layer": 2},
    "coarse": {"input_vocab_size": 12_096, "output_vocab_size": 12_096, "block_size": 1024, "n_layer": 1},
    "fine": {"input_vocab_size": 1056, "output_vocab_size": 1056, "block_size": 1024, "n_layer": 1},
}


def build(
    original: SimpleNamespace, stage: str, width: int = 16, heads: int = 2, **changes: Any
) -> tuple[Any, dict[str, Any]]:
    """A random model of the original and its `model_args`."""
    args = {"n_head": heads, "n_embd": width, "dropout": 0.0, "bias": False, **SIZES[stage], **changes}
    if stage == "fine":
        args = {"n_codes_total": 8, "n_codes_given": 1, **args}
        model = original.model_fine.FineGPT(original.model_fine.FineGPTConfig(**args))
    else:
        model = original.model.GPT(original.model.GPTConfig(**args))
    for parameter in model.parameters():  # norms and biases too, or a swap of two would go unseen
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval(), args


def checkpoint(model: Any, args: dict[str, Any], prefix: str = "_orig_mod.") -> dict[str, Any]:
    """What the original saves: compiled names, a numpy loss, an optimizer state, other settings."""
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    moments = {
        index: {"step": torch.tensor(3.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        for index, p in enumerate(model.parameters())
    }
    groups = [{"lr": 1e-4, "betas": (0.9, 0.95), "params": list(moments)}]
    return {
        "model": state,
        "model_args": args,
        "best_val_loss": np.float64(2.345678901234567),
        "optimizer": {"state": moments, "param_groups": groups},
        "iter_num": 12,
        "config": {"dataset": "speech", "seed": None},
    }


def build_codec(original: SimpleNamespace, n_filters: int = 2, dimension: int = 8, n_q: int = 8) -> Any:
    """A random codec of the `encodec` library with the released rates."""
    modules = original.encodec.modules
    encoder = modules.SEANetEncoder(n_filters=n_filters, dimension=dimension, causal=True)
    decoder = modules.SEANetDecoder(n_filters=n_filters, dimension=dimension, causal=True)
    quantizer = original.encodec.quantization.ResidualVectorQuantizer(dimension=dimension, n_q=n_q, bins=1024)
    for layer in quantizer.vq.layers:
        torch.nn.init.normal_(layer._codebook.embed)
        torch.nn.init.uniform_(layer._codebook.cluster_size, 1e5, 2e5)  # more than 16 bits hold
    bandwidths = [n_q * 0.75]
    return original.encodec.EncodecModel(encoder, decoder, quantizer, bandwidths, 24_000, 1).eval()


VOCABULARY = [
    "[PAD]",
    *(f"[unused{i}]" for i in range(1, 4)),
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "hello",
    "##s",
    "world",
    ",",
]


def write_voice(path: Path, frames: int = 150, seed: int = 0) -> None:
    """A voice preset as the original stores it: mixed integer types, Fortran order."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    fine = random.integers(0, 1024, (8, frames)).astype(np.int32)
    np.savez(
        path,
        semantic_prompt=random.integers(0, 10_000, round(frames / 75 * 49.9)),
        coarse_prompt=np.asfortranarray(fine[:2].astype(np.int64)),
        fine_prompt=fine,
    )
