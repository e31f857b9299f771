"""The engine that runs the PyTorch modules as they are: exact, on every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..generation.cache import InPlaceCache
from ..generation.engine import Foresight, Span, tokens_of


@dataclass(frozen=True)
class TorchDecoding:
    """A batch being decoded: its cache, the next position of each row and, where rows were padded, which are real."""

    cache: InPlaceCache
    positions: Tensor
    mask: Tensor | None


class TorchCausal:
    """`CausalEngine` over a causal model with Transformers' `forward`.

    Rows are padded on the left, with the positions that they have alone.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, TorchDecoding]:
        lengths = [len(row) for row in embeds]
        longest = max(lengths)
        padded = torch.stack([nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in embeds])
        positions = torch.tensor(lengths, device=padded.device)
        padded, mask, position_ids = padded.to(self.model.dtype), None, None
        if min(lengths) < longest:
            place = torch.arange(longest, device=padded.device) - (longest - positions)[:, None]
            mask, position_ids = (place >= 0).long(), place.clamp_min(0)
        cache = InPlaceCache(self.model.config.num_layers, longest + room)
        output = self.model(
            inputs_embeds=padded,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1, tokens_of(span)], TorchDecoding(cache, positions, mask)

    def step(
        self, state: TorchDecoding, tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, TorchDecoding]:
        mask = state.mask
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=mask,
            position_ids=state.positions[:, None],
            past_key_values=state.cache,
            use_cache=True,
        )
        return output.logits[:, -1, tokens_of(span)], TorchDecoding(state.cache, state.positions + 1, mask)

    def keep_rows(self, state: TorchDecoding, rows: Sequence[int]) -> TorchDecoding:
        if list(rows) == list(range(len(state.positions))):
            return state
        index = torch.as_tensor(rows, device=state.positions.device)
        state.cache.keep(index)
        mask = None if state.mask is None else state.mask[index]
        return replace(state, positions=state.positions[index], mask=mask)


class TorchFine:
    """`FineEngine` over the fine model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        return self.model(codebook, codes, first_frame=first).logits
