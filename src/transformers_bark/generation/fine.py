"""The fine stage: the remaining codebooks, one after the other, in overlapping windows that look both ways."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .engine import FineEngine
from .options import FineOptions
from .processors import TokenRules, check_numbers
from .progress import Advance, ignore
from .sampling import Draws, choose, probabilities


@dataclass
class _Row:
    """One row: codes of voice, row and padding in a line, [frame, codebook], and the (start, first filled) of its windows."""

    index: int
    codes: Tensor
    n_history: int
    n_frames: int
    windows: list[tuple[int, int]]


def plan_windows(n_frames: int, n_history: int, length: int, hop: int) -> list[tuple[int, int]]:
    """(start, first frame filled) of each window of `length` frames, as the original library places them.

    The last windows are moved back to end with the row, so they may fill frames a second time.
    """
    total = max(length, n_history + n_frames)
    count = max(0, math.ceil((n_frames - (length - n_history)) / hop)) + 1
    return [(min(n * hop, total - length), min(n_history + n * hop, total - hop)) for n in range(count)]


def _make_row(index: int, coarse: Tensor, voice: Tensor | None, config: Any, codebook_size: int) -> _Row:
    n_fine, length, hop = config.n_fine_codebooks, config.max_fine_input_length, config.max_fine_history_length
    n_frames = coarse.shape[1]
    history = coarse.new_zeros(n_fine, 0) if voice is None else voice.to(coarse)[:, -hop:]
    n_history = history.shape[1]
    total = max(length, n_history + n_frames)
    codes = coarse.new_full((n_fine, total), codebook_size)
    codes[:, :n_history] = history
    codes[: len(coarse), n_history : n_history + n_frames] = coarse
    return _Row(index, codes.T.contiguous(), n_history, n_frames, plan_windows(n_frames, n_history, length, hop))


def _predict(
    logits: Tensor,
    rows: Sequence[_Row],
    first: Sequence[int],
    options: FineOptions,
    draws: Draws,
    rules: TokenRules | None,
) -> tuple[Tensor, Tensor]:
    """Codes for every frame: logits [row, frame, code] -> [row, frame]; a row draws only for the frames from `first` on.

    And a number of each frame that is none where the logits are none.
    """
    if rules is not None:
        logits = rules.process_frames(logits)
    if not options.do_sample:
        values, codes = logits.max(-1)
        return codes, values
    length = logits.shape[1]
    uniforms = torch.zeros(logits.shape[:2], dtype=torch.float64)
    for target, row, start in zip(uniforms, rows, first, strict=True):
        target[start:] = draws.uniforms("fine", row.index, length - start)
    probs = probabilities(logits, options)
    return choose(probs, uniforms), probs[..., 0]


def _fill_windows(
    model: Any,
    rows: Sequence[_Row],
    turn: int,
    n_coarse: int,
    config: Any,
    codebook_size: int,
    options: FineOptions,
    draws: Draws,
    rules: TokenRules | None,
) -> None:
    """Fills the `turn`-th window of each row, in place: one batch for each codebook."""
    length = config.max_fine_input_length
    starts = [row.windows[turn][0] for row in rows]
    first = [row.windows[turn][1] - row.windows[turn][0] for row in rows]
    window = torch.stack([row.codes[start : start + length] for row, start in zip(rows, starts, strict=True)])
    filled = torch.arange(length, device=window.device) >= torch.tensor(first, device=window.device)[:, None]
    engine: FineEngine = model.engine
    start = min(first)  # frames before it are history in every row: nobody asks for their logits
    later = [place - start for place in first]
    sums = []
    for codebook in range(n_coarse, config.n_fine_codebooks):
        logits = engine.forward(codebook, window, start)[..., :codebook_size]
        predicted, values = _predict(logits, rows, later, options, draws, rules)
        sums.append(values.float().sum())
        window[:, start:, codebook] = torch.where(filled[:, start:], predicted, window[:, start:, codebook])
    check_numbers(torch.stack(sums).tolist() if sums else [], "the fine stage's logits", rules is not None)
    for row, start, codes, offset in zip(rows, starts, window, first, strict=True):
        row.codes[start + offset : start + length] = codes[offset:]


def count_windows(coarse: Sequence[Tensor], histories: Sequence[Tensor | None], config: Any) -> int:
    """Windows of the row that needs the most: coarse codes and voice codes a row, [codebook, frame] each."""
    length, hop = config.max_fine_input_length, config.max_fine_history_length
    counts = [
        len(plan_windows(codes.shape[1], 0 if voice is None else min(voice.shape[1], hop), length, hop))
        for codes, voice in zip(coarse, histories, strict=True)
        if codes.shape[1]
    ]
    return max(counts, default=0)


def check_options(codebook_size: int, options: FineOptions, device: torch.device) -> TokenRules | None:
    """The rules that the options ask for.

    Raises:
        ValueError: a code that there is not.
    """
    return TokenRules.of(options, codebook_size, None, device)


@torch.no_grad()
def generate_fine(
    model: Any,
    coarse: Sequence[Tensor],
    histories: Sequence[Tensor | None],
    config: Any,
    codebook_size: int,
    options: FineOptions,
    draws: Draws,
    advance: Advance = ignore,
) -> list[Tensor]:
    """All codes of each row.

    Args:
        model: the fine model.
        coarse: codes [codebook, frame] of each row, the same number of codebooks in all; a row may have no frames.
        histories: codes [n_fine, frame] of each row's voice, or None.

    Returns:
        int64 [n_fine, frame] a row.

    Raises:
        ValueError: an id that the model does not have, or logits that are not numbers.
    """
    rules = check_options(codebook_size, options, model.device)
    rows = [
        _make_row(index, codes.to(model.device).long(), voice, config, codebook_size)
        for index, (codes, voice) in enumerate(zip(coarse, histories, strict=True))
        if codes.shape[1]
    ]
    for turn in range(max((len(row.windows) for row in rows), default=0)):
        active = [row for row in rows if len(row.windows) > turn]
        _fill_windows(model, active, turn, len(coarse[0]), config, codebook_size, options, draws, rules)
        advance(1)
    done = {row.index: row.codes[row.n_history : row.n_history + row.n_frames].T for row in rows}
    empty = torch.zeros(config.n_fine_codebooks, 0, dtype=torch.long, device=model.device)
    return [done.get(index, empty) for index in range(len(coarse))]
