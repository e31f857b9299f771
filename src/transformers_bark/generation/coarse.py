"""The coarse stage: semantic tokens -> the first codebooks, in windows over a sliding prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import vocabulary
from .engine import CausalEngine, Foresight
from .options import CoarseOptions
from .progress import Advance, ignore
from .sampling import Draws


@dataclass
class _Row:
    """One row: its voice and semantic tokens in a line, its coarse ids so far, and how many it needs."""

    index: int
    semantic: Tensor
    coarse: Tensor
    base: int
    n_tokens: int
    n_done: int = 0


def _make_row(
    index: int,
    semantic: Tensor,
    voice: tuple[Tensor, Tensor] | None,
    ratio: float,
    vocab_size: int,
    codebook_size: int,
    coarse_config: Any,
    options: CoarseOptions,
) -> _Row:
    """Puts the kept part of the voice before the row's tokens. voice: semantic [n] and coarse codes [codebook, frame]."""
    n_codebooks = coarse_config.n_coarse_codebooks
    past_semantic, past_coarse = semantic[:0], semantic[:0]
    if voice is not None:
        ids = vocabulary.coarse_ids(voice[1].to(semantic), vocab_size, codebook_size)
        kept, n_coarse = vocabulary.history_lengths(
            len(voice[0]), voice[1].shape[1], options.max_coarse_history, ratio, n_codebooks
        )
        past_semantic = voice[0].to(semantic)[len(voice[0]) - kept :]
        past_coarse = ids[len(ids) - n_coarse :][: -vocabulary.COARSE_HISTORY_CUT]
    return _Row(
        index,
        torch.cat([past_semantic, semantic]),
        past_coarse,
        kept if voice is not None else 0,
        vocabulary.n_coarse_tokens(len(semantic), ratio, n_codebooks),
    )


def _first_semantic(row: _Row, n_done: int, ratio: float, options: CoarseOptions) -> int:
    """Where the prompt's semantic tokens start when `n_done` coarse tokens have been made."""
    here = row.base + int(round(n_done / ratio))
    return max(0, here - vocabulary.max_semantic_history(options.max_coarse_history, ratio))


def _tokens_before_prompt_moves(row: _Row, ratio: float, options: CoarseOptions) -> int:
    """Length of the next windows whose prompts only grow by what is made: one cache serves them all."""
    start, length = _first_semantic(row, row.n_done, ratio, options), options.sliding_window_len
    while (
        len(row.coarse) + length <= options.max_coarse_history
        and _first_semantic(row, row.n_done + length, ratio, options) == start
    ):
        length += options.sliding_window_len
    return length


def _prompt(row: _Row, ratio: float, config: Any, options: CoarseOptions) -> Tensor:
    """Ids of a window's prompt: semantic tokens around the window, the infer token, the coarse tokens before it."""
    length = config.max_coarse_input_length
    start = _first_semantic(row, row.n_done, ratio, options)
    semantic = row.semantic[start : start + length]
    semantic = torch.nn.functional.pad(semantic, (0, length - len(semantic)), value=config.coarse_semantic_pad_token)
    infer = semantic.new_tensor([config.coarse_infer_token])
    return torch.cat([semantic, infer, row.coarse[-options.max_coarse_history :]])


@dataclass(frozen=True)
class _Turns:
    """Which codebook each of the next coarse tokens is of, and how it is chosen; `n_done` tokens are made already."""

    n_done: int
    vocab_size: int
    codebook_size: int
    n_codebooks: int
    options: CoarseOptions
    draws: Draws

    def span(self, turn: int) -> tuple[int, int]:
        """The ids of the codebook."""
        first = self.vocab_size + (self.n_done + turn) % self.n_codebooks * self.codebook_size
        return first, first + self.codebook_size

    def choose(self, turn: int, owners: Sequence[int], logits: Tensor, ahead: int | None = None) -> Tensor:
        """An id of each row from logits [row, code]; with `ahead`, what would be chosen so many tokens after the next."""
        return self.draws.next_tokens("coarse", owners, logits, self.options, ahead) + self.span(turn)[0]

    def foresee(self, turn: int, count: int, owners: Sequence[int]) -> Foresight:
        """From the step on that gives the logits of `turn`, of `count` turns in all."""
        return Foresight(
            count - turn - 1,
            lambda ahead: self.span(turn + ahead),
            lambda ahead, logits: int(self.choose(turn + ahead, owners, logits, ahead)),
        )


def _windows(
    model: Any,
    rows: Sequence[_Row],
    ratio: float,
    vocab_size: int,
    codebook_size: int,
    config: Any,
    options: CoarseOptions,
    draws: Draws,
    advance: Advance,
) -> Iterator[None]:
    """Makes the next windows of each row, in place, until a prompt moves; yields after each.

    All rows stand at the same token, so they share their codebook's turn.
    """
    embed = model.get_input_embeddings()
    length = min(_tokens_before_prompt_moves(row, ratio, options) for row in rows)
    counts = [min(length, row.n_tokens - row.n_done) for row in rows]
    n_turns = max(counts)
    engine: CausalEngine = model.engine
    before = rows[0].n_done
    turns = _Turns(before, vocab_size, codebook_size, config.n_coarse_codebooks, options, draws)
    prompts = [embed(_prompt(row, ratio, config, options)) for row in rows]
    logits, state = engine.prefill(prompts, n_turns, turns.span(0))
    active = list(range(len(rows)))
    owners = [row.index for row in rows]
    made: list[list[Tensor]] = [[] for _ in rows]  # they stay on the device: to look at them is to wait for it
    chosen = turns.choose(0, owners, logits)
    for turn in range(1, n_turns + 1):
        for index, token in zip(active, chosen, strict=True):
            made[index].append(token)
        advance(1)
        if turn % options.sliding_window_len == 0 or turn == n_turns:
            for row, tokens in zip(rows, made, strict=True):
                new = tokens[row.n_done - before :]
                row.coarse = torch.cat([row.coarse, *(token[None] for token in new)])
                row.n_done += len(new)
            yield
        if turn == n_turns:
            return
        going = [place for place, index in enumerate(active) if counts[index] > turn]
        if len(going) < len(active):
            state, chosen = engine.keep_rows(state, going), chosen[going]
            active = [active[place] for place in going]
            owners = [rows[index].index for index in active]
        foresight = turns.foresee(turn, counts[active[0]], owners) if len(active) == 1 else None
        logits, state = engine.step(state, chosen, turns.span(turn), foresight)
        chosen = turns.choose(turn, owners, logits)


def count_tokens(semantic: Sequence[Tensor], semantic_config: Any, coarse_config: Any) -> int:
    """Coarse tokens of the row that needs the most: semantic tokens [n] a row."""
    ratio = vocabulary.semantic_to_coarse_ratio(semantic_config, coarse_config)
    return vocabulary.n_coarse_tokens(max(map(len, semantic), default=0), ratio, coarse_config.n_coarse_codebooks)


def generate_coarse(
    model: Any,
    semantic: Sequence[Tensor],
    histories: Sequence[tuple[Tensor, Tensor] | None],
    semantic_config: Any,
    coarse_config: Any,
    codebook_size: int,
    options: CoarseOptions,
    draws: Draws,
    advance: Advance = ignore,
) -> list[Tensor]:
    """Coarse codes of each row, int64 [codebook, frame]; arguments and errors are those of `coarse_windows`."""
    *_, codes = coarse_windows(
        model, semantic, histories, semantic_config, coarse_config, codebook_size, options, draws, advance
    )
    return codes


@torch.no_grad()
def coarse_windows(
    model: Any,
    semantic: Sequence[Tensor],
    histories: Sequence[tuple[Tensor, Tensor] | None],
    semantic_config: Any,
    coarse_config: Any,
    codebook_size: int,
    options: CoarseOptions,
    draws: Draws,
    advance: Advance = ignore,
) -> Iterator[list[Tensor]]:
    """Coarse codes of each row as far as they are made: at the start, and after each window.

    Args:
        model: the coarse model.
        semantic: semantic tokens [n] of each row; a row may be empty.
        histories: semantic tokens [n] and coarse codes [codebook, frame] of each row's voice, or None.

    Yields:
        codes in [0, codebook_size), int64 [codebook, frame] a row.

    Raises:
        ValueError: history and window do not fit the model's positions, or a window would split a frame.
    """
    n_codebooks = coarse_config.n_coarse_codebooks
    room = model.config.block_size - coarse_config.max_coarse_input_length - 1
    # the last token of a window is never fed back, so it needs no position
    if options.max_coarse_history + options.sliding_window_len - 1 > room:
        raise ValueError(
            f"`max_coarse_history` ({options.max_coarse_history}) and `sliding_window_len` ({options.sliding_window_len}) "
            f"exceed the {room} positions left by the prompt"
        )
    if options.sliding_window_len % n_codebooks:
        raise ValueError(
            f"`sliding_window_len` must be a multiple of {n_codebooks} codebooks, got {options.sliding_window_len}"
        )
    ratio = vocabulary.semantic_to_coarse_ratio(semantic_config, coarse_config)
    vocab_size = semantic_config.semantic_vocab_size
    rows = [
        _make_row(i, tokens.to(model.device).long(), voice, ratio, vocab_size, codebook_size, coarse_config, options)
        for i, (tokens, voice) in enumerate(zip(semantic, histories, strict=True))
    ]
    starts = [len(row.coarse) for row in rows]

    def made() -> list[Tensor]:
        return [
            vocabulary.coarse_codes(row.coarse[start:], n_codebooks, vocab_size, codebook_size)
            for row, start in zip(rows, starts, strict=True)
        ]

    yield made()
    while active := [row for row in rows if row.n_done < row.n_tokens]:
        for _ in _windows(model, active, ratio, vocab_size, codebook_size, coarse_config, options, draws, advance):
            yield made()
