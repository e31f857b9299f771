"""Continuous batching: rows join the batch of a stage between its steps, and leave it as they end.

`semantic` and `coarse` decode one batch from its beginning to its end. Here a batch never ends: a service has rows of many callers
in it. What a row gets is what it gets there alone: its draws, positions and windows are its own, and so may its options be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import vocabulary
from .coarse import CoarseRow, Turns, make_row, tokens_before_prompt_moves, window_prompt
from .coarse import check_options as check_coarse
from .engine import causal_engine
from .options import CoarseOptions, SemanticOptions
from .processors import check_numbers
from .sampling import Draws
from .semantic import Chooser, attention_mask_on, check_ids, history_prompt, prompt_embeds, text_prompt
from .semantic import check_options as check_semantic

MOST_PROMPTS = 4
"""Prompts that are read between two steps at most: the rows that are there already wait meanwhile."""

_MOST_CHOOSERS = 64

Ended = dict[int, Tensor | ValueError]
"""What became of the rows that have ended, by owner."""


@dataclass
class _SemanticRow:
    """A row being decoded: whose it is, how its tokens are chosen, how many there may be, and those made."""

    owner: int
    chooser: Chooser
    limit: int
    made: Tensor | None
    tokens: list[int] = field(default_factory=list)


class SemanticBatch:
    """The semantic stage of rows that come and go.

    Args:
        model: the semantic model.
        config: its generation config.
        draws: that have admitted the owners of all rows.
    """

    def __init__(self, model: Any, config: Any, draws: Draws) -> None:
        self._model, self._config, self._draws = model, config, draws
        self._device = model.device  # to ask a model is to walk through its modules
        self._rows: list[_SemanticRow] = []
        self._choosers: dict[str, Chooser] = {}
        self._logits: Tensor | None = None
        self._state: Any = None
        self._engine: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    def prompt(
        self, input_ids: Tensor, attention_mask: Tensor | None, history: Tensor | None, options: SemanticOptions
    ) -> Tensor:
        """The prompt of a row, [length, hidden]: ids [1, length] of its text, and the semantic tokens [n] of its voice.

        Raises:
            ValueError: no text, an id outside the vocabulary, or options that the model cannot meet.
        """
        model, config = self._model, self._config
        mask = attention_mask_on(attention_mask, model.device)
        text = text_prompt(input_ids.to(model.device), mask, config)
        check_ids(text, model, config)
        check_semantic(model, config, options)
        return prompt_embeds(model, text, history_prompt([history], config, model.device), config)[0]

    @torch.no_grad()
    def join(self, rows: Sequence[tuple[int, Tensor, SemanticOptions]]) -> None:
        """Rows come: the owner, the prompt and the options of each."""
        new = [self._row(owner, options) for owner, _, options in rows]
        self._engine = causal_engine(self._model, rows[0][2]) if self._state is None else self._engine
        logits, state = self._engine.prefill([prompt for _, prompt, _ in rows], max(row.limit for row in new))
        if self._state is None:
            self._logits, self._state = logits, state
        else:
            assert self._logits is not None
            self._logits, self._state = torch.cat([self._logits, logits]), self._engine.join(self._state, state)
        self._rows += new

    def _row(self, owner: int, options: SemanticOptions) -> _SemanticRow:
        key = repr(options)
        chooser = self._choosers.get(key) or Chooser.of(self._model, self._config, options, self._draws)
        if chooser.rules is None:  # rules may keep something, such as the time at which they began
            if len(self._choosers) >= _MOST_CHOOSERS:
                self._choosers.clear()
            self._choosers[key] = chooser
        limit = check_semantic(self._model, self._config, options)
        return _SemanticRow(owner, chooser, limit, chooser.nothing_made(1, self._device))

    def leave(self, owners: Collection[int]) -> None:
        """Rows go before they have ended."""
        self._keep(_compact([row.owner not in owners for row in self._rows]))

    def clear(self) -> None:
        """All rows go."""
        self._rows, self._logits, self._state = [], None, None

    def _keep(self, places: list[int]) -> None:
        if len(places) == len(self._rows):
            return
        if not places:
            self.clear()
            return
        assert self._logits is not None
        self._state, self._logits = self._engine.keep_rows(self._state, places), self._logits[places]
        self._rows = [self._rows[place] for place in places]

    @torch.no_grad()
    def step(self) -> Ended:
        """One token more of each row; int64 [n] of those that have ended with it."""
        ended, last = Ended(), [0] * len(self._rows)
        for places in _alike([id(row.chooser) for row in self._rows]):
            self._choose(places, last, ended)
        going = _compact([row.owner not in ended for row in self._rows])
        self._keep(going)
        if self._rows:
            tokens = torch.tensor([last[place] for place in going], device=self._device)
            self._logits, self._state = self._engine.step(self._state, tokens, foresight=self._foresee())
        return ended

    def _choose(self, places: list[int], last: list[int], ended: Ended) -> None:
        """Chooses the next tokens of rows with the same options."""
        assert self._logits is not None
        rows = [self._rows[place] for place in places]
        chooser, first = rows[0].chooser, rows[0]
        logits = self._logits if len(places) == len(self._rows) else self._logits[places]
        choice = chooser.choose(logits, [row.owner for row in rows], first.made)
        first.made = chooser.with_token(first.made, choice.tokens)
        numbers = zip(choice.tokens.tolist(), choice.ended.tolist(), choice.values.tolist(), strict=True)
        for place, row, (token, over, value) in zip(places, rows, numbers, strict=True):
            last[place] = token
            try:
                check_numbers([value], "the semantic stage's logits", chooser.rules is not None)
            except ValueError as error:
                ended[row.owner] = error
                continue
            if over != 1:
                row.tokens.append(token)
            if over or len(row.tokens) == row.limit:
                ended[row.owner] = torch.tensor(row.tokens, dtype=torch.long, device=self._device)

    def _foresee(self) -> Any:
        if len(self._rows) > 1:
            return None
        (row,) = self._rows
        return row.chooser.foresee(row.limit - len(row.tokens) - 1, [row.owner], row.made)


def _compact(stays: Sequence[bool]) -> list[int]:
    """Places of the rows that stay, the last of them in the gaps: so that few rows are moved."""
    n_rows = sum(stays)
    late = [place for place in range(n_rows, len(stays)) if stays[place]]
    return [place if stays[place] else late.pop() for place in range(n_rows)]


def _alike(keys: Sequence[int]) -> Iterator[list[int]]:
    """The places of each key."""
    for key in dict.fromkeys(keys):
        yield [place for place, other in enumerate(keys) if other == key]


@dataclass
class _CoarseRow:
    """A row being decoded.

    Args:
        row: what is made, up to its last prompt.
        turns: how its tokens are chosen; the first of them is of the first codebook.
        count: tokens that follow its last prompt.
        new: those of them that are made.
    """

    row: CoarseRow
    turns: Turns
    count: int = 0
    new: list[int] = field(default_factory=list)

    @property
    def owner(self) -> int:
        return self.row.index

    def made(self) -> Tensor | None:
        """What the rules are shown: all tokens so far, int64 [1, n]; None where there are no rules."""
        return None if self.turns.rules is None else self.ids()[None]

    def ids(self) -> Tensor:
        """All tokens so far, int64 [n]."""
        return torch.cat([self.row.made, self.row.coarse.new_tensor(self.new)])

    def take(self) -> None:
        """Puts what is made with what was made before."""
        self.row.coarse = torch.cat([self.row.coarse, self.row.coarse.new_tensor(self.new)])
        self.row.n_done += len(self.new)
        self.new = []


class CoarseBatch:
    """The coarse stage of rows that come and go. They come between frames, so that all are at the same codebook.

    Args:
        model: the coarse model.
        semantic_config, coarse_config: the generation configs of the stages.
        codebook_size: codes in each codebook.
        draws: that have admitted the owners of all rows.
    """

    def __init__(self, model: Any, semantic_config: Any, coarse_config: Any, codebook_size: int, draws: Draws) -> None:
        self._model, self._config, self._draws = model, coarse_config, draws
        self._device = model.device
        self._vocab_size, self._codebook_size = semantic_config.semantic_vocab_size, codebook_size
        self._n_codebooks = coarse_config.n_coarse_codebooks
        self._ratio = vocabulary.semantic_to_coarse_ratio(semantic_config, coarse_config)
        self._waiting: list[_CoarseRow] = []
        self._rows: list[_CoarseRow] = []
        self._turns: dict[str, Turns] = {}
        self._logits: Tensor | None = None
        self._state: Any = None
        self._engine: Any = None

    def __len__(self) -> int:
        return len(self._rows) + len(self._waiting)

    def join(self, owner: int, tokens: Tensor, voice: tuple[Tensor, Tensor] | None, options: CoarseOptions) -> None:
        """A row comes: its semantic tokens [n], and semantic tokens [n] and coarse codes [codebook, frame] of its voice."""
        sizes = (self._ratio, self._vocab_size, self._codebook_size)
        row = make_row(owner, tokens.to(self._device).long(), voice, *sizes, self._config, options)
        self._waiting.append(_CoarseRow(row, self._turns_of(options)))

    def _turns_of(self, options: CoarseOptions) -> Turns:
        key = repr(options)
        if key not in self._turns:
            rules = check_coarse(self._model, self._config, options)
            sizes = (self._vocab_size, self._codebook_size, self._n_codebooks)
            turns = Turns(0, *sizes, options, self._draws, rules, self._model.config.output_vocab_size)
            if rules is not None:
                return turns
            if len(self._turns) >= _MOST_CHOOSERS:
                self._turns.clear()
            self._turns[key] = turns
        return self._turns[key]

    def leave(self, owners: Collection[int]) -> None:
        """Rows go before they have ended."""
        self._waiting = [row for row in self._waiting if row.owner not in owners]
        self._keep(_compact([row.owner not in owners for row in self._rows]))

    def clear(self) -> None:
        """All rows go."""
        self._waiting, self._rows, self._logits, self._state = [], [], None, None

    def _keep(self, places: list[int]) -> None:
        if len(places) == len(self._rows):
            return
        if not places:
            self._rows, self._logits, self._state = [], None, None
            return
        assert self._logits is not None
        self._state, self._logits = self._engine.keep_rows(self._state, places), self._logits[places]
        self._rows = [self._rows[place] for place in places]

    @torch.no_grad()
    def frame(self) -> Ended:
        """One frame more of each row; codes in [0, codebook_size), int64 [codebook, frame], of those that have ended with it."""
        ended = Ended()
        self._read_prompts(ended)
        for turn in range(self._n_codebooks):
            if not self._rows:
                break
            last = [0] * len(self._rows)
            for places in _alike([id(row.turns) for row in self._rows]):
                self._choose(turn, places, last, ended)
            going = self._go_on(ended)
            self._keep(going)
            if self._rows:
                tokens = torch.tensor([last[place] for place in going], device=self._device)
                span = self._rows[0].turns.span(turn + 1)
                self._logits, self._state = self._engine.step(self._state, tokens, span, self._foresee())
        return ended

    def whole_windows(self, owners: Collection[int]) -> dict[int, Tensor]:
        """Codes in [0, codebook_size), int64 [codebook, frame], of those owners whose rows have just ended a window."""
        found = {}
        for row in [*self._rows, *self._waiting] if owners else []:
            n_done = row.row.n_done + len(row.new)
            if row.owner in owners and n_done and n_done % row.turns.options.sliding_window_len == 0:
                found[row.owner] = self._codes(row.ids())
        return found

    def _codes(self, ids: Tensor) -> Tensor:
        """Coarse ids [n] -> codes, int64 [codebook, frame]."""
        return vocabulary.coarse_codes(ids, self._n_codebooks, self._vocab_size, self._codebook_size)

    def _read_prompts(self, ended: Ended) -> None:
        """Rows whose prompt has moved, or which are new, join with a prompt; those that have all their tokens have ended."""
        for row in [row for row in self._waiting if row.row.n_done >= row.row.n_tokens]:
            ended[row.owner] = self._codes(row.row.made)
        waiting = [row for row in self._waiting if row.owner not in ended]
        new, self._waiting = waiting[:MOST_PROMPTS], waiting[MOST_PROMPTS:]
        if not new:
            return
        embed, prompts = self._model.get_input_embeddings(), []
        for one in new:
            options = one.turns.options
            length = tokens_before_prompt_moves(one.row, self._ratio, options)
            one.count = min(length, one.row.n_tokens - one.row.n_done)
            prompts.append(embed(window_prompt(one.row, self._ratio, self._config, options)))
        self._engine = causal_engine(self._model, new[0].turns.options) if self._state is None else self._engine
        logits, state = self._engine.prefill(prompts, max(one.count for one in new), new[0].turns.span(0))
        if self._state is None:
            self._logits, self._state = logits, state
        else:
            assert self._logits is not None
            self._logits, self._state = torch.cat([self._logits, logits]), self._engine.join(self._state, state)
        self._rows += new

    def _choose(self, turn: int, places: list[int], last: list[int], ended: Ended) -> None:
        """Chooses the next tokens of rows with the same options."""
        assert self._logits is not None
        rows = [self._rows[place] for place in places]
        turns, made = rows[0].turns, rows[0].made()
        logits = self._logits if len(places) == len(self._rows) else self._logits[places]
        tokens, values = turns.choose(turn, [row.owner for row in rows], logits, made)
        for place, row, token, value in zip(places, rows, tokens.tolist(), values.tolist(), strict=True):
            last[place] = token
            row.new.append(token)
            try:
                check_numbers([value], "the coarse stage's logits", turns.rules is not None)
            except ValueError as error:
                ended[row.owner] = error
        if turns.stopped(rows[0].made()):  # with the frame that it is in
            stopped = rows[0].row
            done = stopped.n_done + len(rows[0].new)
            stopped.n_tokens = min(stopped.n_tokens, -(-done // self._n_codebooks) * self._n_codebooks)
            rows[0].count = min(rows[0].count, stopped.n_tokens - stopped.n_done)

    def _go_on(self, ended: Ended) -> list[int]:
        """The places of the rows that have tokens to come before their prompt moves; the others wait for that, or have ended."""
        going = [row.owner not in ended and len(row.new) < row.count for row in self._rows]
        for row, goes_on in zip(self._rows, going, strict=True):
            if goes_on or row.owner in ended:
                continue
            row.take()
            if row.row.n_done < row.row.n_tokens:
                self._waiting.append(row)
            else:
                ended[row.owner] = self._codes(row.row.made)
        return _compact(going)

    def _foresee(self) -> Any:
        if len(self._rows) > 1:
            return None
        (row,) = self._rows
        return row.turns.foresee(len(row.new), row.count, [row.owner], row.made())
