"""The coarse stage: semantic tokens -> the first codebooks, in windows over a sliding prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from .. import vocabulary
from .engine import Foresight, causal_engine
from .options import CoarseOptions
from .processors import TokenRules, among, check_numbers
from .progress import Advance, ignore
from .sampling import Draws


@dataclass
class CoarseRow:
    """One row: its voice and semantic tokens in a line, its coarse ids so far, and how many it needs.

    Args:
        base: semantic tokens of the voice; `start`: coarse ids of the voice.
    """

    index: int
    semantic: Tensor
    coarse: Tensor
    base: int
    n_tokens: int
    n_done: int = 0
    start: int = 0

    def __post_init__(self) -> None:
        self.start = len(self.coarse)

    @property
    def made(self) -> Tensor:
        """The ids that the stage has made, int64 [n]."""
        return self.coarse[self.start :]


def make_row(
    index: int,
    semantic: Tensor,
    voice: tuple[Tensor, Tensor] | None,
    ratio: float,
    vocab_size: int,
    codebook_size: int,
    coarse_config: Any,
    options: CoarseOptions,
) -> CoarseRow:
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
    return CoarseRow(
        index,
        torch.cat([past_semantic, semantic]),
        past_coarse,
        kept if voice is not None else 0,
        vocabulary.n_coarse_tokens(len(semantic), ratio, n_codebooks),
    )


def _first_semantic(row: CoarseRow, n_done: int, ratio: float, options: CoarseOptions) -> int:
    """Where the prompt's semantic tokens start when `n_done` coarse tokens have been made."""
    here = row.base + int(round(n_done / ratio))
    return max(0, here - vocabulary.max_semantic_history(options.max_coarse_history, ratio))


def tokens_before_prompt_moves(row: CoarseRow, ratio: float, options: CoarseOptions) -> int:
    """Length of the next windows whose prompts only grow by what is made: one cache serves them all."""
    start, length = _first_semantic(row, row.n_done, ratio, options), options.sliding_window_len
    while (
        len(row.coarse) + length <= options.max_coarse_history
        and _first_semantic(row, row.n_done + length, ratio, options) == start
    ):
        length += options.sliding_window_len
    return length


def window_prompt(row: CoarseRow, ratio: float, config: Any, options: CoarseOptions) -> Tensor:
    """Ids of a window's prompt: semantic tokens around the window, the infer token, the coarse tokens before it."""
    length = config.max_coarse_input_length
    start = _first_semantic(row, row.n_done, ratio, options)
    semantic = row.semantic[start : start + length]
    semantic = torch.nn.functional.pad(semantic, (0, length - len(semantic)), value=config.coarse_semantic_pad_token)
    infer = semantic.new_tensor([config.coarse_infer_token])
    return torch.cat([semantic, infer, row.coarse[-options.max_coarse_history :]])


@dataclass(frozen=True)
class Turns:
    """Which codebook each of the next coarse tokens is of, and how it is chosen; `n_done` tokens are made already.

    What has been made travels as ids, int64 [row, token], where the rules ask for it, and as None where there are no rules.
    """

    n_done: int
    vocab_size: int
    codebook_size: int
    n_codebooks: int
    options: CoarseOptions
    draws: Draws
    rules: TokenRules | None
    n_ids: int

    def span(self, turn: int) -> tuple[int, int]:
        """The ids of the codebook."""
        first = self.vocab_size + (self.n_done + turn) % self.n_codebooks * self.codebook_size
        return first, first + self.codebook_size

    def choose(
        self, turn: int, owners: Sequence[int], logits: Tensor, made: Tensor | None, ahead: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """An id of each row from logits [row, code], and a number of each row that is none where the logits are none.

        With `ahead`, what would be chosen so many tokens after the next.
        """
        first, end = self.span(turn)
        if self.rules is not None and made is not None:
            logits = self.rules.process(made, among(logits, slice(first, end), self.n_ids))[:, first:end]
        codes, values = self.draws.next_tokens("coarse", owners, logits, self.options, ahead)
        return codes + first, values

    def foresee(self, turn: int, n_turns: int, owners: Sequence[int], made: Tensor | None) -> Foresight | None:
        """From the step on that gives the logits of `turn`, of so many in all; None for rules that must not be asked twice."""
        if self.rules is not None and not self.rules.is_pure:
            return None
        proposed: list[int] = []

        def choose(ahead: int, logits: Tensor) -> int:
            del proposed[ahead:]
            past = None if made is None else torch.cat([made, made.new_tensor([proposed])], dim=1)
            proposed.append(int(self.choose(turn + ahead, owners, logits, past, ahead)[0]))
            return proposed[-1]

        return Foresight(n_turns - turn - 1, lambda ahead: self.span(turn + ahead), choose)

    def stopped(self, made: Tensor | None) -> list[int]:
        """Places of the rows that a criterion ends."""
        stops = None if self.rules is None or made is None else self.rules.stops(made)
        return [] if stops is None else stops.nonzero()[:, 0].tolist()


class _Progress:
    """The next windows of rows that stand at the same token, while they are made.

    Args:
        rows: in the order of the batch.
        counts: tokens that each row takes part in; a criterion makes it less.
    """

    def __init__(self, rows: Sequence[CoarseRow], counts: list[int]) -> None:
        self.rows, self.counts = rows, counts
        self.active = list(range(len(rows)))
        # since the last window: the tokens of each row, and active places, tokens and values (see `Turns.choose`) of each turn.
        # They stay on the device: to look at them is to wait for it
        self.n_made = [0] * len(rows)
        self.taken: list[tuple[list[int], Tensor, Tensor]] = []

    @property
    def owners(self) -> list[int]:
        """The places of the active rows in the whole batch."""
        return [self.rows[place].index for place in self.active]

    def leave(self, turn: int) -> list[int] | None:
        """Lets finished rows leave: the places of those that go on, None where all do."""
        going = [place for place, index in enumerate(self.active) if self.counts[index] > turn]
        if len(going) == len(self.active):
            return None
        self.active = [self.active[place] for place in going]
        return going

    def take(self, chosen: Tensor, values: Tensor) -> None:
        self.taken.append((self.active, chosen, values))
        for place in self.active:
            self.n_made[place] += 1

    def end_soon(self, places: Sequence[int], turn: int, n_codebooks: int) -> None:
        """Ends active rows with the frame that they are in."""
        for index in [self.active[place] for place in places]:
            row = self.rows[index]
            n_done = row.n_done + self.n_made[index]
            row.n_tokens = min(row.n_tokens, -(-n_done // n_codebooks) * n_codebooks)
            self.counts[index] = min(self.counts[index], turn + row.n_tokens - n_done)

    def give(self, has_rules: bool) -> None:
        """Gives each row what has been made of it since the last time."""
        values = [part for _, _, part in self.taken]
        check_numbers(torch.cat(values).tolist() if values else [], "the coarse stage's logits", has_rules)
        parts = [[row.coarse] for row in self.rows]
        for active, turns in groupby(self.taken, key=itemgetter(0)):
            tokens = torch.stack([chosen for _, chosen, _ in turns], dim=1)  # a tensor a row, not one a token
            for place, new in zip(active, tokens, strict=True):
                parts[place].append(new)
        for row, part, n_made in zip(self.rows, parts, self.n_made, strict=True):
            row.coarse = torch.cat(part)
            row.n_done += n_made
        self.n_made = [0] * len(self.rows)
        self.taken.clear()


def _windows(
    model: Any, rows: Sequence[CoarseRow], ratio: float, config: Any, turns: Turns, advance: Advance
) -> Iterator[None]:
    """Makes the next windows of each row, in place, until a prompt moves; yields after each.

    All rows stand at the same token, so they share their codebook's turn.
    """
    options, embed, engine = turns.options, model.get_input_embeddings(), causal_engine(model, turns.options)
    length = min(tokens_before_prompt_moves(row, ratio, options) for row in rows)
    progress = _Progress(rows, [min(length, row.n_tokens - row.n_done) for row in rows])
    made = None if turns.rules is None else torch.stack([row.made for row in rows])
    prompts = [embed(window_prompt(row, ratio, config, options)) for row in rows]
    logits, state = engine.prefill(prompts, max(progress.counts), turns.span(0))
    for turn in count(1):
        chosen, values = turns.choose(turn - 1, progress.owners, logits, made)
        progress.take(chosen, values)
        advance(1)
        if made is not None:
            made = torch.cat([made, chosen[:, None]], dim=1)
            progress.end_soon(turns.stopped(made), turn, config.n_coarse_codebooks)
        is_last = turn >= max(progress.counts)
        if turn % options.sliding_window_len == 0 or is_last:
            progress.give(turns.rules is not None)
            yield
        if is_last:
            return
        if (going := progress.leave(turn)) is not None:
            state, chosen = engine.keep_rows(state, going), chosen[going]
            made = None if made is None else made[going]
        left = progress.counts[progress.active[0]]
        foresight = turns.foresee(turn, left, progress.owners, made) if len(progress.active) == 1 else None
        logits, state = engine.step(state, chosen, turns.span(turn), foresight)


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


def check_options(model: Any, config: Any, options: CoarseOptions) -> TokenRules | None:
    """The rules that the options ask for, whose time is counted from now.

    Raises:
        ValueError: history and window do not fit the model's positions, a window would split a frame, or an id that the model
            does not have.
    """
    room = model.config.block_size - config.max_coarse_input_length - 1
    # the last token of a window is never fed back, so it needs no position
    if options.max_coarse_history + options.sliding_window_len - 1 > room:
        raise ValueError(
            f"`max_coarse_history` ({options.max_coarse_history}) and `sliding_window_len` ({options.sliding_window_len}) "
            f"exceed the {room} positions left by the prompt"
        )
    if options.sliding_window_len % config.n_coarse_codebooks:
        raise ValueError(
            f"`sliding_window_len` must be a multiple of {config.n_coarse_codebooks} codebooks, got {options.sliding_window_len}"
        )
    return TokenRules.of(options, model.config.output_vocab_size, None, model.device)


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
        ValueError: options that the model cannot meet, or logits that are not numbers.
    """
    rules = check_options(model, coarse_config, options)
    n_codebooks = coarse_config.n_coarse_codebooks
    ratio = vocabulary.semantic_to_coarse_ratio(semantic_config, coarse_config)
    vocab_size = semantic_config.semantic_vocab_size
    rows = [
        make_row(i, tokens.to(model.device).long(), voice, ratio, vocab_size, codebook_size, coarse_config, options)
        for i, (tokens, voice) in enumerate(zip(semantic, histories, strict=True))
    ]

    def made() -> list[Tensor]:
        return [vocabulary.coarse_codes(row.made, n_codebooks, vocab_size, codebook_size) for row in rows]

    yield made()
    while active := [row for row in rows if row.n_done < row.n_tokens]:
        turns = Turns(
            active[0].n_done,
            vocab_size,
            codebook_size,
            n_codebooks,
            options,
            draws,
            rules,
            model.config.output_vocab_size,
        )
        for _ in _windows(model, active, ratio, coarse_config, turns, advance):
            yield made()
