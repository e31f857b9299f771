"""A coarse or fine model on new codes, from a model on old ones: its blocks stay, its embeddings are carried over.

A new code gets the mean of the old codes that stand where it stands, weighted by how often they do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..generation_configuration_bark import BarkGenerationConfig
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
def carry_coarse(
    model: BarkCoarseModel,
    before: BarkCoarseModel,
    weights: list[Tensor],
    old: BarkGenerationConfig,
    new: BarkGenerationConfig,
) -> None:
    """Gives a coarse model what one on other codes, and of no more codebooks, has learned.

    Blocks, semantic tokens and special tokens are taken over. Codebooks that the old model lacks stay as they are in `model`. A
    position after the prompt gets the embedding of the time that it stands for.

    Args:
        weights: [new, old] for each codebook of the old model.
        old, new: the generation configs of the two.
    """
    tables = ("input_embeds_layer.weight", "lm_head.weight", "position_embeds_layer.weight")
    shared = {name: value for name, value in before.state_dict().items() if name not in tables}
    model.load_state_dict(shared, strict=False)
    n_semantic, size = old.semantic_config.semantic_vocab_size, old.codebook_size
    special = [
        (getattr(old.coarse_acoustics_config, name), getattr(new.coarse_acoustics_config, name))
        for name in ("coarse_semantic_pad_token", "coarse_infer_token")
    ]
    for name in tables[:2]:
        source, target = before.get_parameter(name), model.get_parameter(name)
        target[:n_semantic] = source[:n_semantic]
        for number, share in enumerate(weights):
            codes = slice(n_semantic + number * size, n_semantic + (number + 1) * size)
            target[codes] = share @ source[codes]
        for there, here in special:
            if there < len(source) and here < len(target):  # no head for what is never said
                target[here] = source[there]
    _carry_positions(model, before, old, new)


def _carry_positions(
    model: BarkCoarseModel, before: BarkCoarseModel, old: BarkGenerationConfig, new: BarkGenerationConfig
) -> None:
    source, target = before.position_embeds_layer.weight, model.position_embeds_layer.weight
    prompt = old.coarse_acoustics_config.max_coarse_input_length
    pace = old.coarse_acoustics_config.n_coarse_codebooks / new.coarse_acoustics_config.n_coarse_codebooks
    number, last = torch.arange(len(target)), len(source) - 1
    place = torch.where(number < prompt, number, prompt + (number - prompt) * pace).clamp_max(last)
    low = place.long()
    target.copy_(torch.lerp(source[low], source[(low + 1).clamp_max(last)], (place - low)[:, None]))


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
