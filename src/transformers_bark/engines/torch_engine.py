"""The engine that runs PyTorch as it is: exact, on every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..generation.cache import InPlaceCache
from ..generation.engine import Foresight, Span, tokens_of
from .blocks import fast_linear, is_plain, run_blocks


@dataclass(frozen=True)
class TorchDecoding:
    """A batch being decoded.

    Args:
        cache: of the keys and values, with room for what follows.
        positions: of each row's next token.
        real: where rows were padded, which places of the cache are theirs, [row, room].
        is_plain: whether the blocks can be run without their modules' calls.
    """

    cache: InPlaceCache
    positions: Tensor
    real: Tensor | None
    is_plain: bool


class TorchCausal:
    """`CausalEngine` over a causal model. Rows are padded on the left, with the positions that they have alone."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, TorchDecoding]:
        lengths = [len(row) for row in embeds]
        longest = max(lengths)
        padded = torch.stack([nn.functional.pad(row, (0, 0, longest - len(row), 0)) for row in embeds])
        positions = torch.tensor(lengths, device=padded.device)
        place = torch.arange(longest, device=padded.device) - (longest - positions)[:, None]
        real = None
        if min(lengths) < longest:
            real = place.new_ones(len(embeds), longest + room, dtype=torch.bool)
            real[:, :longest] = place >= 0
        cache = InPlaceCache(self.model.config.num_layers, longest + room)
        state = TorchDecoding(cache, positions, real, is_plain(self.model))
        return self._run(state, padded.to(self.model.dtype), place.clamp_min(0), span), state

    def step(
        self, state: TorchDecoding, tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, TorchDecoding]:
        embeds = self.model.input_embeds_layer(tokens[:, None])
        logits = self._run(state, embeds, state.positions[:, None], span)
        return logits, replace(state, positions=state.positions + 1)

    def keep_rows(self, state: TorchDecoding, rows: Sequence[int]) -> TorchDecoding:
        index = torch.as_tensor(rows, device=state.positions.device)
        state.cache.keep(index)
        real = None if state.real is None else state.real[index]
        return replace(state, positions=state.positions[index], real=real)

    def join(self, state: TorchDecoding, other: TorchDecoding) -> TorchDecoding:
        positions = torch.cat([state.positions, other.positions])
        end = int(positions.max())  # what all rows are padded with is left behind
        cache = state.cache.join(other.cache, end)
        place = torch.arange(cache.get_max_length(), device=positions.device)
        real = place >= (end - positions)[:, None]
        return TorchDecoding(cache, positions, real, state.is_plain and other.is_plain)

    def _run(self, state: TorchDecoding, embeds: Tensor, position_ids: Tensor, span: Span) -> Tensor:
        """Embeddings [row, length, hidden] without positions -> logits after the last, [row, token of the span]."""
        length = embeds.shape[1]
        seen = None if state.real is None else state.real[:, : state.cache.get_seq_length() + length]
        if not state.is_plain:
            output = self.model(
                inputs_embeds=embeds,
                attention_mask=None if seen is None else seen.long(),
                position_ids=position_ids,
                past_key_values=state.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            return output.logits[:, -1, tokens_of(span)]
        mask = None if seen is None else seen[:, None, None]
        if mask is not None and length > 1:  # padding looks at itself: attention to nothing is not a number
            itself = torch.eye(length, dtype=torch.bool, device=embeds.device)
            mask = (mask | itself).tril()

        def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            keys, values = state.cache.update(key, value, index)
            asked = query.shape[2]  # of the last block, one
            own = None if mask is None else mask[:, :, -asked:]
            is_causal = mask is None and asked > 1
            return nn.functional.scaled_dot_product_attention(query, keys, values, own, is_causal=is_causal)

        hidden = embeds + self.model.position_embeds_layer(position_ids)
        hidden = run_blocks(self.model, hidden, attend, fast_linear, length - 1)
        return fast_linear(hidden[:, -1], self.model.lm_head, span)


class TorchFine:
    """`FineEngine` over the fine model."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        if not is_plain(self.model):
            return self.model(codebook, codes, first_frame=first).logits

        def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(query, key, value)

        hidden = run_blocks(self.model, self.model.embed(codebook, codes), attend, fast_linear, first)
        return fast_linear(hidden, self.model.lm_heads[codebook - self.model.config.n_codes_given])
