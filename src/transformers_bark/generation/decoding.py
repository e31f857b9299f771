"""Prefill and single steps of a causal model for a batch of rows of different length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .cache import InPlaceCache


@dataclass(frozen=True)
class Decoding:
    """A batch being decoded: its cache, the next position of each row and, where rows were padded, which are real."""

    cache: InPlaceCache
    positions: Tensor
    mask: Tensor | None


def prefill(model: Any, embeds: Sequence[Tensor], room: int) -> tuple[Tensor, Decoding]:
    """Reads the prompts.

    Args:
        model: a causal model with Transformers' `forward`.
        embeds: prompt of each row, [length, hidden]; padded on the left, with the positions the row has alone.
        room: tokens that will follow.

    Returns:
        logits after each prompt, [row, token], and the state to go on from.
    """
    lengths = [len(row) for row in embeds]
    longest = max(lengths)
    padded = torch.stack([nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in embeds])
    positions = torch.tensor(lengths, device=padded.device)
    mask = position_ids = None
    if min(lengths) < longest:
        place = torch.arange(longest, device=padded.device) - (longest - positions)[:, None]
        mask, position_ids = (place >= 0).long(), place.clamp_min(0)
    cache = InPlaceCache(model.config.num_layers, longest + room)
    output = model(
        inputs_embeds=padded,
        attention_mask=mask,
        position_ids=position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1], Decoding(cache, positions, mask)


def step(model: Any, state: Decoding, tokens: Tensor) -> tuple[Tensor, Decoding]:
    """Appends one token a row, int64 [row] -> logits of the next, [row, token], and the new state."""
    mask = state.mask
    if mask is not None:
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    output = model(
        input_ids=tokens[:, None],
        attention_mask=mask,
        position_ids=state.positions[:, None],
        past_key_values=state.cache,
        use_cache=True,
    )
    return output.logits[:, -1], Decoding(state.cache, state.positions + 1, mask)


def keep_rows(state: Decoding, rows: Sequence[int]) -> Decoding:
    """The state with these rows only: finished rows leave and cost nothing more."""
    if list(rows) == list(range(len(state.positions))):
        return state
    index = torch.as_tensor(rows, device=state.positions.device)
    state.cache.keep(index)
    mask = None if state.mask is None else state.mask[index]
    return replace(state, positions=state.positions[index], mask=mask)
