"""The engine that compiles the decode step: fixed shapes, a fixed cache, and on CUDA one graph for the whole step.

`torch.compile` pays where a step is many small kernels, as on a GPU. Shapes come in buckets, so that few graphs serve all calls:
the cache's room in multiples of `ROOM`, the rows in powers of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from ..generation.cache import InPlaceCache
from ..generation.engine import Foresight, Span, tokens_of
from .blocks import module_linear, run_blocks

ROOM = 256
"""The cache's room is a multiple of this many positions."""


def bucket_of(n_rows: int) -> int:
    """Rows that a batch is filled up to: the next power of two."""
    return 1 << (n_rows - 1).bit_length()


class PerShape:
    """A function that is compiled for each shape it is called with.

    PyTorch counts what it has compiled by code object, whichever model it was for, and after eight shapes runs the rest
    uncompiled without a word. So each shape has a code object of its own.
    """

    def __init__(self, function: Any, backend: str, mode: str | None = None) -> None:
        self.function = function
        self.compile: Callable[..., Any] = partial(torch.compile, backend=backend, mode=mode, dynamic=False)
        self.compiled: dict[tuple[int, ...], Callable[..., Any]] = {}

    def __call__(self, shape: tuple[int, ...], *arguments: Any) -> Any:
        if shape not in self.compiled:
            own = FunctionType(self.function.__code__.replace(), self.function.__globals__)
            self.compiled[shape] = self.compile(own)
        return self.compiled[shape](*arguments)


@dataclass(frozen=True)
class CompiledDecoding:
    """A batch being decoded.

    Args:
        keys, values: of each layer, [bucket, head, room, head_dim].
        positions: of each row's next token, int64 [bucket].
        rows: places in the bucket of the rows that are still decoded.
    """

    keys: list[Tensor]
    values: list[Tensor]
    positions: Tensor
    rows: Tensor


def decode_step(model: Any, tokens: Tensor, positions: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """One token a row, int64 [bucket] -> logits [bucket, token]; writes keys and values at each row's position."""
    rows = torch.arange(len(tokens), device=tokens.device)
    seen = (torch.arange(keys[0].shape[2], device=tokens.device) <= positions[:, None])[:, None, None]

    def attend(index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys[index][rows, :, positions] = key[:, :, 0]
        values[index][rows, :, positions] = value[:, :, 0]
        return nn.functional.scaled_dot_product_attention(query, keys[index], values[index], attn_mask=seen)

    hidden = model.input_embeds_layer(tokens[:, None]) + model.position_embeds_layer(positions[:, None])
    return model.lm_head(run_blocks(model, hidden, attend, module_linear)[:, 0])


class CompiledCausal:
    """`CausalEngine` whose steps are compiled; prompts are read by the modules as they are. Rows are padded on the right."""

    def __init__(self, model: Any, backend: str = "inductor") -> None:
        self.model = model
        on_cuda = model.device.type == "cuda" and backend == "inductor"
        self._step = PerShape(decode_step, backend, "reduce-overhead" if on_cuda else None)

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, CompiledDecoding]:
        bucket = bucket_of(len(embeds))
        rows = [*embeds, *[embeds[0][:1]] * (bucket - len(embeds))]
        lengths = torch.tensor([len(row) for row in rows], device=embeds[0].device)
        longest = int(lengths.max())
        cache = InPlaceCache(self.model.config.num_layers, -(-(longest + room) // ROOM) * ROOM)
        ends, place = (lengths - 1).unique(return_inverse=True)
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.model.dtype)
        # what stands behind a row's end looks at it, and is overwritten before anything looks back
        output = self.model(inputs_embeds=padded, past_key_values=cache, use_cache=True, logits_to_keep=ends)
        logits = output.logits[torch.arange(bucket, device=place.device), place][: len(embeds)]
        keys, values = ([getattr(layer, name) for layer in cache.layers] for name in ("keys", "values"))
        for part in (*keys, *values):
            part[:, :, longest:] = 0  # empty memory may hold what no mask stops
            torch._dynamo.mark_static_address(part)
        state = CompiledDecoding(keys, values, lengths, torch.arange(len(embeds), device=lengths.device))
        return logits[:, tokens_of(span)], state

    def step(
        self, state: CompiledDecoding, tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, CompiledDecoding]:
        fed = torch.zeros_like(state.positions)
        fed[state.rows] = tokens
        shape = (len(fed), state.keys[0].shape[2])
        logits = self._step(shape, self.model, fed, state.positions, state.keys, state.values)[state.rows]
        positions = state.positions.clone()
        positions[state.rows] += 1
        return logits[:, tokens_of(span)], replace(state, positions=positions)

    def keep_rows(self, state: CompiledDecoding, rows: Sequence[int]) -> CompiledDecoding:
        kept = state.rows[torch.as_tensor(list(rows), device=state.rows.device)]
        bucket = bucket_of(len(kept))
        if bucket == len(state.positions):
            return replace(state, rows=kept)
        filled = torch.cat([kept, kept[:1].expand(bucket - len(kept))])
        keys, values = ([part[filled] for part in parts] for parts in (state.keys, state.values))
        for part in (*keys, *values):
            torch._dynamo.mark_static_address(part)
        rows_now = torch.arange(len(kept), device=kept.device)
        return CompiledDecoding(keys, values, state.positions[filled], rows_now)


def fine_blocks(model: Any, embeds: Tensor) -> Tensor:
    """All blocks of the fine stack: embeds [bucket, frame, hidden] -> what the heads are fed."""
    return model._run_blocks(embeds, None, None, False, False)[0]


class CompiledFine:
    """`FineEngine` whose stack is compiled, for each shape of the window."""

    def __init__(self, model: Any, backend: str = "inductor") -> None:
        self.model = model
        self._blocks = PerShape(fine_blocks, backend)

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        extra = bucket_of(len(codes)) - len(codes)
        filled = torch.cat([codes, codes[:1].expand(extra, -1, -1)])
        hidden = self._blocks(tuple(filled.shape[:2]), self.model, self.model.embed(codebook, filled))
        return self.model.lm_heads[codebook - self.model.config.n_codes_given](hidden[: len(codes), first:])
