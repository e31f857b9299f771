"""The coarse stage: semantic tokens -> the first codebooks, in windows over a sliding prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import vocabulary
from .engine import CausalEngine, Foresight, Uncached
from .options import CoarseOptions
from .processors import TokenRules, among, check_numbers
from .progress import Advance, ignore
from .sampling import Draws


@dataclass
class _Row:
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

    def foresee(self, turn: int, count: int, owners: Sequence[int], made: Tensor | None) -> Foresight | None:
        """From the step on that gives the logits of `turn`, of `count` turns in all; None for rules that must not be asked twice."""
        if self.rules is not None and not self.rules.is_pure:
            return None
        proposed: list[int] = []

        def choose(ahead: int, logits: Tensor) -> int:
            del proposed[ahead:]
            past = None if made is None else torch.cat([made, made.new_tensor([proposed])], dim=1)
            proposed.append(int(self.choose(turn + ahead, owners, logits, past, ahead)[0]))
            return proposed[-1]

        return Foresight(count - turn - 1, lambda ahead: self.span(turn + ahead), choose)

    def stopped(self, made: Tensor | None) -> list[int]:
        """Places of the rows that a criterion ends."""
        stops = None if self.rules is None or made is None else self.rules.stops(made)
        return [] if stops is None else stops.nonzero()[:, 0].tolist()


@dataclass
class _Progress:
    """The next windows of rows that stand at the same token, while they are made.

    Args:
        counts: tokens that each row still takes part in; a criterion makes it less.
        active: places of the rows that do so now.
        made: tokens of each row since its last window. They stay on the device: to look at them is to wait for it.
        values: see `_Turns.choose`, one tensor a turn since then.
    """

    rows: Sequence[_Row]
    counts: list[int]
    active: list[int]
    made: list[list[Tensor]]
    values: list[Tensor]

    @property
    def owners(self) -> list[int]:
        return [self.rows[place].index for place in self.active]

    def take(self, chosen: Tensor, values: Tensor) -> None:
        for place, token in zip(self.active, chosen, strict=True):
            self.made[place].append(token)
        self.values.append(values)

    def end_soon(self, places: Sequence[int], turn: int, n_codebooks: int) -> None:
        """Ends active rows with the frame that they are in."""
        for index in [self.active[place] for place in places]:
            row = self.rows[index]
            n_done = row.n_done + len(self.made[index])
            row.n_tokens = min(row.n_tokens, -(-n_done // n_codebooks) * n_codebooks)
            self.counts[index] = min(self.counts[index], turn + row.n_tokens - n_done)

    def give(self, has_rules: bool) -> None:
        """Gives each row what has been made of it since the last time."""
        check_numbers(torch.cat(self.values).tolist() if self.values else [], "the coarse stage's logits", has_rules)
        for row, tokens in zip(self.rows, self.made, strict=True):
            row.coarse = torch.cat([row.coarse, *(token[None] for token in tokens)])
            row.n_done += len(tokens)
            tokens.clear()
        self.values.clear()


def _windows(
    model: Any, rows: Sequence[_Row], ratio: float, config: Any, turns: _Turns, advance: Advance
) -> Iterator[None]:
    """Makes the next windows of each row, in place, until a prompt moves; yields after each.

    All rows stand at the same token, so they share their codebook's turn.
    """
    options, embed = turns.options, model.get_input_embeddings()
    length = min(_tokens_before_prompt_moves(row, ratio, options) for row in rows)
    counts = [min(length, row.n_tokens - row.n_done) for row in rows]
    state_of = _Progress(rows, counts, list(range(len(rows))), [[] for _ in rows], [])
    engine: CausalEngine = Uncached(model) if options.use_cache is False else model.engine
    prompts = [embed(_prompt(row, ratio, config, options)) for row in rows]
    made = None if turns.rules is None else torch.stack([row.made for row in rows])
    logits, state = engine.prefill(prompts, max(counts), turns.span(0))
    chosen, values = turns.choose(0, state_of.owners, logits, made)
    turn = 0
    while True:
        turn += 1
        state_of.take(chosen, values)
        advance(1)
        if made is not None:
            made = torch.cat([made, chosen[:, None]], dim=1)
            state_of.end_soon(turns.stopped(made), turn, config.n_coarse_codebooks)
        is_last = turn >= max(counts)
        if turn % options.sliding_window_len == 0 or is_last:
            state_of.give(turns.rules is not None)
            yield
        if is_last:
            return
        going = [place for place, index in enumerate(state_of.active) if counts[index] > turn]
        if len(going) < len(state_of.active):
            state, chosen = engine.keep_rows(state, going), chosen[going]
            made = None if made is None else made[going]
            state_of.active = [state_of.active[place] for place in going]
        active, owners = state_of.active, state_of.owners
        foresight = turns.foresee(turn, counts[active[0]], owners, made) if len(active) == 1 else None
        logits, state = engine.step(state, chosen, turns.span(turn), foresight)
        chosen, values = turns.choose(turn, owners, logits, made)


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
        _make_row(i, tokens.to(model.device).long(), voice, ratio, vocab_size, codebook_size, coarse_config, options)
        for i, (tokens, voice) in enumerate(zip(semantic, histories, strict=True))
    ]

    def made() -> list[Tensor]:
        return [vocabulary.coarse_codes(row.made, n_codebooks, vocab_size, codebook_size) for row in rows]

    yield made()
    while active := [row for row in rows if row.n_done < row.n_tokens]:
        turns = _Turns(
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
