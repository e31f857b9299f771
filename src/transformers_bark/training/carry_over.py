"""A coarse or fine model on new codes, from a model on old ones: its blocks stay, its embeddings are carried over.

A new code gets the mean of the old codes that stand where it stands, weighted by how often they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..modeling_bark import BarkCoarseModel, BarkFineModel


def coincidence(pairs: Iterable[tuple[np.ndarray, np.ndarray]], size: int) -> Tensor:
    """How often old codes stand where each new code stands: [new, old], rows add up to one.

    Args:
        pairs: old and new codes of the same frames, each [frame].
        size: entries of a codebook. A new code that is never met gets the old ones as often as they are met at all.
    """
    counts = np.zeros((size, size))
    for old, new in pairs:
        n_frames = min(len(old), len(new))
        np.add.at(counts, (np.asarray(new[:n_frames], np.int64), np.asarray(old[:n_frames], np.int64)), 1)
    if not counts.sum():
        raise ValueError("no frames: `pairs` holds no codes")
    usual = counts.sum(0) / counts.sum()
    counts += usual * 0.5  # a code met once is not trusted wholly
    return torch.from_numpy(counts / counts.sum(1, keepdims=True)).float()


@torch.no_grad()
def carry_coarse(model: BarkCoarseModel, weights: list[Tensor], n_semantic: int) -> None:
    """Gives a coarse model embeddings and heads for new codes, `weights` [new, old] for each of its codebooks; the rest stays."""
    for table in (model.input_embeds_layer.weight, model.lm_head.weight):
        for number, share in enumerate(weights):
            start = n_semantic + number * len(share)
            part = table[start : start + len(share)]
            part.copy_(share @ part)


@torch.no_grad()
def carry_fine(model: BarkFineModel, weights: list[Tensor]) -> None:
    """Gives a fine model embeddings for new codes, `weights` [new, old] for each codebook; its heads share them or get the same."""
    inputs: list[Any] = list(model.input_embeds_layers)
    heads: list[Any] = list(model.lm_heads)
    given = len(weights) - len(heads)
    done: set[int] = set()
    for layer, share in [*zip(inputs, weights, strict=True), *zip(heads, weights[given:], strict=True)]:
        table: Tensor = layer.weight
        if table.data_ptr() not in done:
            done.add(table.data_ptr())
            table[: len(share)].copy_(share @ table[: len(share)])
