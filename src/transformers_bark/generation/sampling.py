"""From logits to tokens: the original library's filters, and random draws that belong to a row."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .options import STAGES, SamplingOptions
from .processors import warp

LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-30, 1e30
"""Beyond them logits divided by the temperature leave the range of a float: its limit is taken."""


def probabilities(logits: Tensor, options: SamplingOptions) -> Tensor:
    """logits [..., token] -> float32 probabilities of the same shape, those sampled from.

    The order is the original library's: top-p on the plain logits, then top-k, then temperature; Transformers' further filters
    come last. Where a logit is not a number, or none is left, no probability is a number.
    """
    logits = logits.float()
    if options.top_p is not None and options.top_p < 1:
        logits = _keep_top_p(logits, options.top_p)
    if options.top_k:
        least = logits.topk(min(int(options.top_k), logits.shape[-1]), dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    logits = _at_temperature(logits, float(options.temperature or 1.0))
    if options.warpers is not None:
        logits = warp(logits, options.warpers)
    return _softmax(logits)


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension.

    On the CPU a row at a time, which one thread computes: for a few rows PyTorch would wake others, and they wait for those of ONNX
    Runtime, which spin between two steps.
    """
    if logits.device.type != "cpu" or logits.ndim < 2 or len(logits) < 2:
        return logits.softmax(-1)
    return torch.stack([row.softmax(-1) for row in logits])


def _at_temperature(logits: Tensor, temperature: float) -> Tensor:
    if temperature < LEAST_TEMPERATURE:
        most = logits.amax(-1, keepdim=True)
        return torch.where(logits == most, most * 0, -torch.inf)  # times 0, so that what is no number stays none
    return logits / min(temperature, MOST_TEMPERATURE)


def _keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Removes what comes after the tokens that first exceed `top_p` together; the most probable always stays."""
    ordered, order = logits.sort(dim=-1, descending=True)
    before = _running_sums(ordered.softmax(-1)).roll(1, dims=-1)
    before[..., 0] = 0.0
    removed = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before > top_p)
    return torch.where(removed, -torch.inf, logits)


def _running_sums(probs: Tensor) -> Tensor:
    """Sums of probs [..., token] up to each token, in single precision one after the other, as the original's NumPy adds them.

    Torch adds in double precision on the CPU; over thousands of tokens that moves the border of a nucleus by a token or two.
    """
    if probs.device.type != "cpu":
        return probs.cumsum(-1)
    return torch.from_numpy(np.cumsum(probs.detach().numpy(), axis=-1, dtype=np.float32))


def choose(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The token at which the cumulative probability passes the uniform: probs [..., token], uniforms [...] -> int64 [...]."""
    if probs.device.type == "mps":  # no float64 there
        return choose(probs.cpu(), uniforms.cpu()).to(probs.device)
    cumulative = probs.double().cumsum(-1)
    target = uniforms.to(cumulative.device, torch.float64, non_blocking=True)[..., None] * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True)[..., 0].clamp_max(probs.shape[-1] - 1)


def race(probs: np.ndarray, waits: np.ndarray) -> np.ndarray:
    """The token that is ready first: probs [row, token], waits [row, token], drawn from Exp(1) -> int64 [row].

    A token is ready after its wait divided by its probability, so each is first with its probability (the exponential race, or
    Gumbel's trick). Where probabilities change a little the first seldom changes, unlike in `choose`: what a quantized model
    would say is nearly always what the exact one says.
    """
    with np.errstate(divide="ignore"):
        return (waits / probs).argmin(-1)


AHEAD = 64
"""Uniforms of a row that are sent to a device at once."""


@dataclass
class _Block:
    """Uniforms of some rows: here [row, AHEAD], there (on the device) [AHEAD, row]."""

    rows: tuple[int, ...]
    here: np.ndarray
    there: Tensor
    n_used: int = 0


@dataclass(frozen=True)
class Draws:
    """Random numbers by row and stage.

    Each row and stage has a generator of its own, so what a row draws does not depend on the batch around it. Without seeds
    a generator starts from torch's global one. Of several sequences of a text, the first draws what it would draw alone.
    """

    seeds: tuple[int, ...] | dict[int, int] | None = None
    """By row: in order, or of rows that come (`admit`) and go (`forget`)."""
    generators: dict[tuple[str, int], np.random.Generator] = field(default_factory=dict)
    foreseen: dict[tuple[str, int], list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    """Waits that were looked at before their turn, by stage and row."""
    blocks: dict[str, _Block] = field(default_factory=dict)
    """Uniforms of each stage that lie on a device already."""
    unused: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    """Uniforms that were on a device when other rows took their turn, by stage and row."""
    copies: int = 1
    """Rows in a line that are sequences of one text."""

    @classmethod
    def from_seed(cls, seed: int | Sequence[int] | Tensor | None, batch_size: int, copies: int = 1) -> Draws:
        """One seed for all texts, one per text, or None; `copies` rows a text.

        Raises:
            ValueError: not as many seeds as texts, or a negative seed.
            TypeError: a seed that is not a whole number.
        """
        if seed is None:
            return cls()
        if isinstance(seed, Tensor | np.ndarray):
            seed = seed.tolist()
        seeds = [_whole(value) for value in seed] if isinstance(seed, Iterable) else [_whole(seed)] * batch_size
        if len(seeds) != batch_size:
            raise ValueError(f"`seed` must be one number or one per row, got {len(seeds)} for {batch_size} rows")
        if min(seeds) < 0:
            raise ValueError(f"`seed` must not be negative, got {min(seeds)}")
        return cls(tuple(seed for seed in seeds for _ in range(copies)), copies=copies)

    def admit(self, row: int, seed: int) -> None:
        """A row comes; `seeds` is a dict."""
        assert isinstance(self.seeds, dict) and row not in self.seeds
        self.seeds[row] = seed

    def forget(self, row: int) -> None:
        """A row goes, with all that was kept for it."""
        assert isinstance(self.seeds, dict)
        self.seeds.pop(row, None)
        kept: tuple[dict[tuple[str, int], Any], ...] = (self.generators, self.foreseen, self.unused)
        for of_rows in kept:
            for stage in STAGES:
                of_rows.pop((stage, row), None)

    def _generator(self, stage: str, row: int) -> np.random.Generator:
        if (stage, row) not in self.generators:
            seed = int(torch.randint(2**62, ())) if self.seeds is None else self.seeds[row]
            # stages of a row must not share a stream, nor neighbouring seeds, nor sequences of a text
            copy = row % self.copies
            sequence = np.random.SeedSequence(seed, spawn_key=(STAGES.index(stage), *([copy] if copy else [])))
            self.generators[stage, row] = np.random.default_rng(sequence)
        return self.generators[stage, row]

    def uniforms(self, stage: str, row: int, count: int) -> Tensor:
        """The next `count` draws in [0, 1) of a row, float64 [count], on the CPU."""
        return torch.from_numpy(self._generator(stage, row).random(count))

    def next_uniforms(self, stage: str, rows: Sequence[int], device: torch.device) -> Tensor:
        """The next draw in [0, 1) of each row, float64 [row], on a device.

        They go there many at a time: to send one a step is to wait for the device at every step. A row's draws are those of
        `uniforms`, in the same order.
        """
        block = self.blocks.get(stage)
        if block is None or block.rows != tuple(rows) or block.n_used == AHEAD:
            block = self.blocks[stage] = self._fill_block(stage, tuple(rows), device)
        block.n_used += 1
        return block.there[block.n_used - 1]

    def _fill_block(self, stage: str, rows: tuple[int, ...], device: torch.device) -> _Block:
        before = self.blocks.get(stage)
        if before is not None:
            for row, numbers in zip(before.rows, before.here, strict=True):
                self.unused[stage, row] = numbers[before.n_used :]
        here = np.empty((len(rows), AHEAD))
        for numbers, row in zip(here, rows, strict=True):
            left = self.unused.pop((stage, row), here[:0, 0])
            numbers[: len(left)] = left
            numbers[len(left) :] = self._generator(stage, row).random(AHEAD - len(left))
        there = torch.from_numpy(np.ascontiguousarray(here.T)).to(device, non_blocking=True)
        return _Block(rows, here, there)

    def next_tokens(
        self, stage: str, rows: Sequence[int], logits: Tensor, options: SamplingOptions, ahead: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """One token a row: logits [row, token] -> int64 [row]; with `ahead`, what `choose` says of it.

        And a number of each row, float [row], that is none (or infinite) where the logits are none.
        """
        if not options.do_sample:
            values, tokens = logits.max(-1)
            return tokens, values
        probs = probabilities(logits, options)
        return self.choose(stage, rows, probs, ahead), probs[:, 0]

    def choose(self, stage: str, rows: Sequence[int], probs: Tensor, ahead: int | None = None) -> Tensor:
        """One sampled token a row: probs [row, token] -> int64 [row].

        With `ahead`, what would be chosen of `probs` after so many other choices; nothing is used up.
        """
        if probs.device.type != "cpu":  # a number for every token would have to be copied there
            return choose(probs, self.next_uniforms(stage, rows, probs.device))
        waits = [self._waits(stage, row, probs.shape[-1], ahead) for row in rows]
        return torch.from_numpy(race(probs.numpy(), np.array(waits)))

    def _waits(self, stage: str, row: int, count: int, ahead: int | None) -> np.ndarray:
        """The next draws from Exp(1) of a row, one for each token, or those after `ahead` others."""
        foreseen = self.foreseen[stage, row]
        while len(foreseen) <= (ahead or 0):
            foreseen.append(self._generator(stage, row).standard_exponential(count))
        return foreseen.pop(0) if ahead is None else foreseen[ahead]


def _whole(seed: Any) -> int:
    """A seed of any integer type, numpy's included."""
    try:
        if isinstance(seed, bool):
            raise TypeError
        return operator.index(seed)
    except TypeError:
        raise TypeError(f"`seed` must be whole numbers, got {seed!r}") from None
