"""What runs the transformers during generation: the one contract between the stages and the engines.

The stages know prompts, windows and sampling; an engine knows how a stack of blocks is computed and where its cache lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Decoding = Any
"""A batch being decoded, as its engine keeps it. A new one replaces the old, which is not used again."""


Span = tuple[int, int] | None
"""[first, end) of the tokens whose logits are asked for; None for all."""


def tokens_of(span: Span) -> slice:
    """The place of a span's tokens along an axis of tokens."""
    return slice(None) if span is None else slice(*span)


@dataclass(frozen=True)
class Foresight:
    """What a stage would do next with its one row: an engine may try tokens before they are chosen.

    Args:
        n_steps: steps that may still follow the present one.
        span: of the logits that the present step gives (0), or one so many steps later.
        choose: the token that would be chosen from logits [1, token of the span] of the present step (0), or of one so many steps
            later; None where the row would end. It is asked for one step after the other, from 0 on, and takes what it said of
            the steps before for chosen. What will be chosen does not change by it.
    """

    n_steps: int
    span: Callable[[int], Span]
    choose: Callable[[int, Tensor], int | None]


class CausalEngine(Protocol):
    """Runs a causal model over a batch of rows of different length."""

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, Decoding]:
        """Reads the prompts.

        Args:
            embeds: prompt of each row, [length, hidden], without positions.
            room: tokens that will follow.
            span: tokens that can be chosen next.

        Returns:
            logits after each prompt, [row, token of the span], and the state to go on from.
        """

    def step(
        self, state: Decoding, tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, Decoding]:
        """Appends one token a row, int64 [row] -> logits of the next, [row, token of the span], and the new state.

        `foresight`, where there is one row, is for engines that gain by it; what they return does not depend on it.
        """

    def keep_rows(self, state: Decoding, rows: Sequence[int]) -> Decoding:
        """The state with these rows only, in this order: finished rows leave and cost nothing more."""

    def join(self, state: Decoding, other: Decoding) -> Decoding:
        """The rows of `state`, then those of `other`, as one batch: what `keep_rows` is for leaving, this is for coming.

        Neither is used again. Each row has room for as many tokens as it had, or more.
        """


class Uncached:
    """`CausalEngine` that reads every row anew for every token: what `use_cache=False` asks for. Its state is what it reads."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prefill(self, embeds: Sequence[Tensor], room: int, span: Span = None) -> tuple[Tensor, list[Tensor]]:
        # room for one token: some engines have no cache without any
        return self.model.engine.prefill(embeds, 1, span)[0], list(embeds)

    def step(
        self, state: list[Tensor], tokens: Tensor, span: Span = None, foresight: Foresight | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        new = self.model.get_input_embeddings()(tokens[:, None])
        rows = [torch.cat([row, token]) for row, token in zip(state, new, strict=True)]
        return self.prefill(rows, 1, span)

    def keep_rows(self, state: list[Tensor], rows: Sequence[int]) -> list[Tensor]:
        return [state[row] for row in rows]

    def join(self, state: list[Tensor], other: list[Tensor]) -> list[Tensor]:
        return [*state, *other]


def causal_engine(model: Any, options: Any) -> CausalEngine:
    """What runs a causal model under the options of its stage."""
    return Uncached(model) if options.use_cache is False else model.engine


class FineEngine(Protocol):
    """Runs a model that looks both ways."""

    def forward(self, codebook: int, codes: Tensor, first: int = 0) -> Tensor:
        """Codes [row, frame, codebook] -> logits of `codebook` for the frames from `first` on, [row, frame, code]."""
